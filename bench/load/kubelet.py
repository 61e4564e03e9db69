"""Scheduler, kubelet and runner, played: pods are bound, run, and end when they are told to, with a proper report.

A pod goes through the same states as a real one, each its own write, so that the operator gets the events that a real
one brings. Between Running and its end a pod waits in `running` for whoever sets the pace.
"""

from __future__ import annotations

import asyncio
import collections
import hashlib
from datetime import UTC, datetime

from bench.load.client import JSON, Client
from bench.load.objects import STAGES
from workitems.protocol import ITEM_LABEL, STAGE_LABEL, TASK_ANNOTATION, RunReport, RunTask

CONTAINERS = ("runner", "agent")


class Kubelet:
    """One for the whole cluster."""

    def __init__(self, client: Client) -> None:
        """Take the connection."""
        self._client = client
        self._tasks: set[asyncio.Task[None]] = set()
        self._seen: set[str] = set()
        self._changed = asyncio.Event()
        self.running: collections.deque[JSON] = collections.deque()
        """Pods that run, longest first."""
        self.failure: BaseException | None = None

    async def run(self) -> None:
        """Start every pod that appears, until cancelled."""
        async for kind, pod in self._client.watch("/api/v1/pods", ITEM_LABEL):
            uid = pod["metadata"]["uid"]
            if kind == "DELETED" or uid in self._seen:
                continue
            self._seen.add(uid)
            if pod["status"].get("phase") == "Pending":
                task = asyncio.create_task(self._start(pod))
                self._tasks.add(task)
                task.add_done_callback(self._finished)

    async def wait_running(self, count: int, seconds: float) -> None:
        """Wait until so many pods run. Raises RuntimeError if they do not in that time."""
        try:
            async with asyncio.timeout(seconds):
                while len(self.running) < count:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise RuntimeError(f"{len(self.running)} of {count} pods run after {seconds:.0f} s") from None
        if self.failure is not None:
            raise self.failure

    async def running_pod(self, item: str, seconds: float) -> JSON:
        """Wait for the pod of this item's run. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while True:
                for pod in self.running:
                    if item_of(pod) == item:
                        return pod
                self._changed.clear()
                await self._changed.wait()

    async def end(self, pod: JSON) -> None:
        """A pod that runs ends."""
        self.running.remove(pod)
        metadata = pod["metadata"]
        message = report(RunTask.loads(metadata["annotations"][TASK_ANNOTATION])).dumps()
        ended = {"exitCode": 0, "reason": "Completed", "startedAt": _now(), "finishedAt": _now()}
        states = {
            "runner": {"terminated": {**ended, "message": message}},
            "agent": {"terminated": ended},
        }
        await self._status(pod, "Succeeded", states)

    async def _start(self, pod: JSON) -> None:
        where = _path(pod)
        target = {"apiVersion": "v1", "kind": "Node", "name": "played"}
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod["metadata"]["name"]}}
        await self._client.post(f"{where}/binding", {**binding, "target": target})
        for phase, state in (
            ("Pending", {"waiting": {"reason": "ContainerCreating"}}),
            ("Running", {"running": {"startedAt": _now()}}),
        ):
            await self._status(pod, phase, dict.fromkeys(CONTAINERS, state))
        self.running.append(pod)
        self._changed.set()

    async def _status(self, pod: JSON, phase: str, states: dict[str, JSON]) -> None:
        ready = phase == "Running"
        body = {
            "status": {
                "phase": phase,
                "startTime": _now(),
                "conditions": [
                    {"type": kind, "status": str(value), "lastTransitionTime": _now()}
                    for kind, value in (("PodScheduled", True), ("Initialized", True), ("Ready", ready))
                ],
                "containerStatuses": [
                    {"name": name, "image": "played", "imageID": "", "ready": ready, "restartCount": 0, "state": state}
                    for name, state in states.items()
                ],
            }
        }
        await self._client.patch(f"{_path(pod)}/status", body)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.failure = task.exception()
            self._changed.set()


def item_of(pod: JSON) -> str:
    """Whose run it is."""
    return str(pod["metadata"]["labels"][ITEM_LABEL])


def is_last(pod: JSON) -> bool:
    """Whether it is the run of the last stage."""
    return bool(pod["metadata"]["labels"][STAGE_LABEL] == f"stage-{STAGES}")


def report(task: RunTask) -> RunReport:
    """What the runner of a no-op agent says about a branch where nothing but the head has changed."""
    return RunReport(
        run=task.run,
        uid=task.uid,
        base_commit=task.base_commit or "b" * 40,
        head=hashlib.sha1(f"{task.uid} {task.run}".encode(), usedforsecurity=False).hexdigest(),
        tree=hashlib.sha1(task.uid.encode(), usedforsecurity=False).hexdigest(),
        code=f"sha256:{hashlib.sha256(task.uid.encode()).hexdigest()}",
        blobs=tuple(None for _ in task.watch),
        agent_started=True,
        committed=True,
        pushed=True,
    )


def _path(pod: JSON) -> str:
    return f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
