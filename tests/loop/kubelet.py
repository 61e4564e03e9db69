"""Everything of a cluster that is neither API server nor operator: Job controller, kubelet, runner, garbage collector.

A created Job becomes a pod that starts, runs for a while and ends with a RunReport about a git branch that is a dict
(`tests.unit.core.world`). Timers of the virtual clock drive it, never tasks: kopf ends all tasks of a loop with itself.
"""

from __future__ import annotations

import asyncio
import copy
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from tests.loop.store import JOBS, JSON, PODS, Change, Kind, Store
from tests.unit.core.world import Branch, End, good
from workitems import protocol
from workitems.api import RunReport, RunTask

START_SECONDS = 1.0
RUN_SECONDS = 20.0
JOB_LAGS_SECONDS = 2.0
"""The Job controller reports an end later than the kubelet does."""


@dataclass
class Record:
    """One Job that was created."""

    job: str
    uid: str
    item: str
    run: int
    gate: str | None
    started: float | None = None
    ended: float | None = None


@dataclass
class Kubelet:
    """One for the whole cluster."""

    store: Store
    scripts: dict[tuple[str, str], list[End]] = field(default_factory=dict)
    """How the next runs of (item, stage) end; where none is left, the agent does its job."""
    gate_codes: dict[str, list[int]] = field(default_factory=dict)
    """Exit codes of the next Jobs of a gate; where none is left, 0."""
    branches: dict[tuple[str, str], Branch] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)
    overlaps: list[str] = field(default_factory=list)
    holds: Callable[[JSON], bool] = field(default=lambda _job: False)
    """Whose Jobs run until `release`."""
    tells: Callable[[RunTask, str], str] = field(default=lambda _task, report: report)
    """What becomes of a run's report before anybody reads it."""
    tasks: list[RunTask] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    """Jobs, by uid, that wait for `release`."""
    seen_heads: dict[str, str | None] = field(default_factory=dict)
    """Where the branch was when a Job began, by uid."""

    def __post_init__(self) -> None:
        self.store.listeners.append(self._notice)

    def copy(self, store: Store) -> Kubelet:
        """The same on another store; what was to happen next happens there a little later, as after any restart."""
        kept = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("store", "holds", "tells")}
        return Kubelet(store, holds=self.holds, tells=self.tells, **copy.deepcopy(kept))

    def resume(self) -> None:
        """Go on with what is there."""
        for record in self.records:
            job, pod = self._job(record.uid), self._pod(record.uid)
            if job is not None and pod is None and record.started is None:
                self._later(START_SECONDS, self._make_pod, record.uid)
            elif pod is not None and record.started is None:
                self._later(START_SECONDS, self._run, record.uid)
            elif pod is not None and record.ended is None:
                self._later(RUN_SECONDS, self._end, record.uid)

    def branch(self, url: str, name: str) -> Branch:
        return self.branches.setdefault((url, name), Branch())

    def created(self) -> Counter[tuple[str, int, str | None]]:
        """How often a Job was created for each (item, run number, gate)."""
        return Counter((r.item, r.run, r.gate) for r in self.records)

    def live(self) -> list[str]:
        """Names of Jobs whose pods run."""
        return [r.job for r in self.records if r.started is not None and r.ended is None]

    def release(self) -> None:
        """What was held ends."""
        self.holds = lambda _job: False
        held, self.held = self.held, []
        for uid in held:
            self._later(0, self._end, uid)

    # --- the garbage collector and the Job controller

    def _notice(self, change: Change) -> None:
        if change.new is None and change.old is not None:
            self._later(0, self._collect, change.old["metadata"]["uid"])
        elif change.old is None and change.new is not None:
            self._later(0, self._orphan, change.kind, change.new)
            if change.kind is JOBS:
                self._record(change.new)
                self._later(START_SECONDS, self._make_pod, change.new["metadata"]["uid"])
        if change.kind is PODS and change.new is not None and "deletionTimestamp" in change.new["metadata"]:
            self._later(START_SECONDS, self._remove_pod, change.new)

    def _record(self, job: JSON) -> None:
        labels, owner = job["metadata"]["labels"], job["metadata"]["ownerReferences"][0]["uid"]
        item = f"{labels[protocol.ITEM_LABEL]}/{owner}"
        gate = labels.get(protocol.GATE_LABEL)
        name, uid = job["metadata"]["name"], job["metadata"]["uid"]
        self.records.append(Record(name, uid, item, int(labels[protocol.RUN_LABEL]), gate))

    def _collect(self, uid: str) -> None:
        for (kind, namespace, name), body in list(self.store.objects.items()):
            owners = body["metadata"].get("ownerReferences") or ()
            if any(owner["uid"] == uid for owner in owners) and "deletionTimestamp" not in body["metadata"]:
                self.store.delete(kind, namespace, name)

    def _orphan(self, kind: Kind, body: JSON) -> None:
        alive = {other["metadata"]["uid"] for other in self.store.objects.values()}
        owners = body["metadata"].get("ownerReferences") or ()
        here = self.store.find(kind, body["metadata"].get("namespace", ""), body["metadata"]["name"])
        if owners and here is not None and not any(owner["uid"] in alive for owner in owners):
            self.store.delete(kind, body["metadata"]["namespace"], body["metadata"]["name"])

    def _job(self, uid: str) -> JSON | None:
        return next((job for job in self.store.list(JOBS) if job["metadata"]["uid"] == uid), None)

    def _pod(self, uid: str) -> JSON | None:
        owned = (p for p in self.store.list(PODS) if p["metadata"]["ownerReferences"][0]["uid"] == uid)
        return next(owned, None)

    def _make_pod(self, uid: str) -> None:
        job = self._job(uid)
        if job is None:
            return
        name, template = job["metadata"]["name"], job["spec"]["template"]
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": uid, "controller": True}
        pod = self.store.create(
            PODS,
            job["metadata"]["namespace"],
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "generateName": f"{name[:57]}-",
                    "labels": {**template["metadata"]["labels"], "batch.kubernetes.io/job-name": name},
                    "annotations": template["metadata"]["annotations"],
                    "ownerReferences": [owner],
                },
                "spec": {**template["spec"], "nodeName": "node-1"},
            },
        )
        waiting = {"waiting": {"reason": "ContainerCreating"}}
        self._show(pod, "Pending", dict.fromkeys(self._containers(pod), waiting))
        self._later(START_SECONDS, self._run, uid)

    # --- the kubelet

    def _run(self, uid: str) -> None:
        job, pod = self._job(uid), self._pod(uid)
        if job is None or pod is None:
            return
        record = next(r for r in self.records if r.uid == uid)
        record.started = self._now()
        for other in self.records:
            if other is not record and other.item == record.item and other.started is not None and other.ended is None:
                self.overlaps.append(f"{record.job} started while {other.job} was running")
        task = _task(pod)
        if record.gate is None:
            self.tasks.append(task)
        self.seen_heads[uid] = self.branch(task.url, task.branch).head
        self._show(pod, "Running", {name: {"running": {}} for name in self._containers(pod)})
        if self.holds(job):
            self.held.append(uid)
        else:
            self._later(RUN_SECONDS, self._end, uid)

    def _end(self, uid: str) -> None:
        pod = self._pod(uid)
        record = next(r for r in self.records if r.uid == uid)
        if pod is None or record.ended is not None:
            return
        record.ended = self._now()
        task = _task(pod)
        if record.gate is not None:
            codes = self.gate_codes.get(record.gate)
            ends = {"runner": (0, ""), "agent": (codes.pop(0) if codes else 0, "make: done")}
        elif task.kind is protocol.RunKind.LOOK:
            report = self._work(uid, task, End())
            ends = {"runner": (0, self.tells(task, report.dumps()))}
        else:
            script = self.scripts.get((task.item, task.stage))
            end = script.pop(0) if script else End(writes=good(task))
            report = self._work(uid, task, end)
            ends = {"runner": (0, self.tells(task, report.dumps())), "agent": (end.exit_code or 0, end.tail)}
        states = {
            name: {"terminated": {"exitCode": code, "reason": "Completed" if not code else "Error", "message": text}}
            for name, (code, text) in ends.items()
        }
        self._show(pod, "Succeeded" if not any(code for code, _ in ends.values()) else "Failed", states)
        self._later(JOB_LAGS_SECONDS, self._complete, uid)

    def _complete(self, uid: str) -> None:
        job = self._job(uid)
        if job is not None:
            at = self.store.clock().strftime("%Y-%m-%dT%H:%M:%SZ")
            condition = {"type": "Complete", "status": "True", "lastTransitionTime": at}
            status = {"conditions": [condition], "succeeded": 1}
            self.store.put(JOBS, {**job, "status": status})

    def _remove_pod(self, pod: JSON) -> None:
        uid = pod["metadata"]["ownerReferences"][0]["uid"]
        for record in self.records:
            if record.uid == uid and record.ended is None:
                record.ended = self._now()
        here = self._pod(uid)
        if here is not None:
            self.store.remove(PODS, here)

    def _work(self, uid: str, task: RunTask, end: End) -> RunReport:
        """The runner: the agent's files become a commit, unless somebody else has moved the branch."""
        branch, seen = self.branch(task.url, task.branch), self.seen_heads[uid]
        facts: JSON = {
            "run": task.run,
            "uid": task.uid,
            "agent_started": True,
            "usage": protocol.Usage(cost_usd=end.cost),
        }
        # What was expected must be in the branch's history: a commit that nobody has is no beginning.
        begun = task.expected_head is None or task.expected_head in branch.trees
        ours = seen is not None and seen in branch.ours and begun
        if branch.head != seen or (task.expected_head != seen and not ours):
            problem = protocol.Problem(reason="HeadMoved", message="somebody pushed")
            return RunReport(**{**facts, **branch.describe(task), "problem": problem})
        files = {path: text for path, text in branch.files.items() if path not in task.remove}
        for path, text in end.writes.items():
            where = path.lstrip("/") if path.startswith("/") else f"{task.documents}/{path}"
            files.pop(where, None)
            if text is not None:
                files[where] = text
        branch.commit(files, ours=True)
        pushed = branch.head != seen
        return RunReport(**{**facts, **branch.describe(task), "committed": pushed, "pushed": pushed})

    def _containers(self, pod: JSON) -> list[str]:
        spec = pod["spec"]
        return [c["name"] for c in (*(spec.get("initContainers") or ()), *spec["containers"])]

    def _show(self, pod: JSON, phase: str, states: Mapping[str, Any]) -> None:
        here = self.store.get(PODS, pod["metadata"]["namespace"], pod["metadata"]["name"])
        init = {c["name"] for c in pod["spec"].get("initContainers") or ()}
        status: JSON = {"phase": phase, "initContainerStatuses": [], "containerStatuses": []}
        for name, state in states.items():
            status["initContainerStatuses" if name in init else "containerStatuses"].append(
                {"name": name, "state": state}
            )
        self.store.put(PODS, {**here, "status": status})

    def _later(self, seconds: float, callback: Callable[..., None], *arguments: Any) -> None:
        asyncio.get_running_loop().call_later(seconds, callback, *arguments)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def _task(pod: JSON) -> RunTask:
    return RunTask.loads(pod["metadata"]["annotations"][protocol.TASK_ANNOTATION])
