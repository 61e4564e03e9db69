"""Seconds a stage: six no-op stages through the operator, beside the floor of six chained no-op Jobs, in one run.

The floor creates the next Job as soon as both containers of the last pod have ended; its Jobs have the same two
containers side by side, no git and no operator. Everything that a stage costs beyond it is ours: checkout, commit,
push, the report, the status writes. Absolute figures are noise on a shared machine; the ratio is the result.

    make bench
"""

from __future__ import annotations

import statistics
import time
import uuid
from datetime import datetime
from typing import Any

import pykube

from hack.cluster.images import Images
from tests.e2e.lab import Lab

STAGES = 6
ROUNDS = 3


def test_seconds_a_stage(lab: Lab, built: Images) -> None:
    """Print both figures, in turn, several times."""
    lab.repository()
    lab.pipeline(change=six_stages)
    floors, ours = [], []
    for number in range(ROUNDS):
        floors.append(_floor(lab, built.agent))
        ours.append(_through_the_operator(lab, f"bench-{number}"))
    floor, own = statistics.median(floors), statistics.median(ours)
    print(f"\nfloor    {_row(floors)}   six chained two-container no-op Jobs")
    print(f"operator {_row(ours)}   six no-op stages, git work included")
    print(f"ratio    {own / floor:.2f}")


def _row(seconds: list[float]) -> str:
    return f"median {statistics.median(seconds):.2f} s a stage (min {min(seconds):.2f}, max {max(seconds):.2f})"


def six_stages(spec: dict[str, Any]) -> None:
    """Six stages that do nothing, in place of the default ones."""
    spec["agents"] = {"noop": {"command": ["true"]}}
    spec["agentDefaults"].pop("command")
    spec["stages"] = [{"name": f"stage-{n}", "agent": "noop"} for n in range(1, STAGES + 1)]


def _through_the_operator(lab: Lab, name: str) -> float:
    lab.item(name)
    status = lab.wait_phase(name, "Done")
    started, ended = (datetime.fromisoformat(status[key]) for key in ("startedAt", "finishedAt"))
    assert len(status["runs"]) == STAGES
    return (ended - started).total_seconds() / STAGES


def _floor(lab: Lab, image: str) -> float:
    pods = pykube.Pod.objects(lab.api, namespace=lab.namespace)
    began = time.monotonic()
    for _ in range(STAGES):
        name = f"floor-{uuid.uuid4().hex[:8]}"
        lab.apply(_job(name, image))
        for event in pods.filter(selector={"batch.kubernetes.io/job-name": name}).watch(since="0"):
            statuses = event.object.obj["status"].get("containerStatuses") or []
            if statuses and all("terminated" in status["state"] for status in statuses):
                break
    return (time.monotonic() - began) / STAGES


def _job(name: str, image: str) -> dict[str, Any]:
    security = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    containers = [
        {"name": container, "image": image, "command": ["true"], "securityContext": security}
        for container in ("runner", "agent")
    ]
    pod = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": containers,
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"backoffLimit": 0, "template": {"spec": pod}},
    }
