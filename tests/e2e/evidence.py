"""What proves that nothing happened twice: the Jobs and pods themselves, the git server's log, and the audit log.

Status is what the operator says of itself; here are the witnesses that it cannot talk to. The API server's audit log
is the best of them, because what was deleted since is still in it; only the local cluster lets a test read it.
"""

from __future__ import annotations

import collections
import itertools
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from hack.cluster.local import LocalCluster
from hack.cluster.model import Cluster
from tests.e2e.lab import Git, Lab
from tests.e2e.session import OPERATOR_NAMESPACE

OPERATOR = f"system:serviceaccount:{OPERATOR_NAMESPACE}:workitem-operator"


@dataclass(frozen=True)
class Expected:
    """What became of an item: its stages' Jobs in order, command gates among them, and the gates that hold."""

    jobs: tuple[str, ...]
    """`<stage>-<attempt>` or `<stage>-<gate>`, as Jobs are named."""
    gates: dict[str, str]


REWORKED = Expected(
    jobs=(
        "analysis-1", "architecture-1", "development-1", "development-tests-local", "review-1",
        "development-2", "development-tests-local", "review-2", "testing-1", "deploy-1",
    ),
    gates={
        "analysis-complete": "Passed", "analysis-approved": "Passed", "architecture-done": "Passed",
        "ci-green": "Skipped", "tests-local": "Passed", "review-approved": "Passed", "tests-passed": "Passed",
    },
)  # fmt: skip
"""The default pipeline with one REQUEST_CHANGES: a rework is where counting goes wrong."""


def reworked() -> dict[str, Any]:
    """The script of an item that comes to `REWORKED`."""
    verdicts = ("REQUEST_CHANGES", "APPROVED")
    return {"review": [{"write": {"{docs}/12-review.md": f"Verdict: {verdict}\n"}} for verdict in verdicts]}


def nothing_twice(lab: Lab, git: Git, item: str, expected: Expected) -> None:
    """No run had two Jobs, no two runs overlapped, no commit was pushed twice, no gate was passed over."""
    status = lab.status(item)
    assert (status["stage"], status["phase"]) == ("done", "Done")
    assert {gate["name"]: gate["result"] for gate in status["gates"]} == expected.gates

    selector = f"workitems.dev/item={item},!workitems.dev/gate"
    jobs = json.loads(lab.kubectl("get", "jobs", "-l", selector, "-o", "json"))["items"]
    numbers = collections.Counter(job["metadata"]["labels"]["workitems.dev/run"] for job in jobs)
    assert {number: count for number, count in numbers.items() if count > 1} == {}

    pods = json.loads(lab.kubectl("get", "pods", "-l", selector, "-o", "json"))["items"]
    spans = sorted(_span(pod) for pod in pods)
    assert len(spans) == len(jobs), "a Job had more than one pod"
    assert [(one, two) for one, two in itertools.pairwise(spans) if two[0] < one[1]] == [], "two runs overlapped"

    branch = f"workitem/{item}"
    pushed = [push["new"] for push in git.pushes() if push["ref"] == f"refs/heads/{branch}"]
    assert len(pushed) == len(set(pushed)), "a commit was pushed twice"
    subjects = git.subjects(branch)
    assert len(subjects) == len(set(subjects)), "a run was committed twice"
    assert pushed[-1] == status["head"]

    runs = [f"{run['stage']}-{run['attempt']}" for run in status["runs"] if run["result"] == "Succeeded"]
    assert runs == [job for job in expected.jobs if job.rsplit("-", 1)[1].isdecimal()]


def audited(lab: Lab, items: dict[str, Expected]) -> int:
    """The same from the API server's audit log, for items whose names are short; how many Jobs it tells of.

    An API server that is killed may have created a Job and not have logged it: those that are there count as well.
    """
    created = _created_jobs(lab.cluster, lab.namespace)
    assert {user for _, user, _ in created} == {OPERATOR}
    logged = {name for _, _, name in created}
    there = json.loads(lab.kubectl("get", "jobs", "-o", "json"))["items"]
    times = {job["metadata"]["name"]: job["metadata"]["creationTimestamp"] for job in there}
    unlogged = [(time, name) for name, time in times.items() if name not in logged]
    names = [name for _, name in sorted([*((time, name) for time, _, name in created), *unlogged])]
    assert {name: count for name, count in collections.Counter(names).items() if count > 1} == {}, "created twice"
    for item, expected in items.items():
        mine = [name.removeprefix(f"{item}-").rsplit("-", 1)[0] for name in names if name.startswith(f"{item}-")]
        # A run that infrastructure lost comes again, next to itself; whatever else differs is a gate passed over.
        assert [name for name, _ in itertools.groupby(mine)] == list(expected.jobs), item
    return len(names)


def _created_jobs(cluster: Cluster, namespace: str) -> list[tuple[str, str, str]]:
    """(time, user, name) of every Job that the API server logged as created in a namespace."""
    assert isinstance(cluster, LocalCluster)
    found = []
    for line in cluster.audit_log().splitlines():
        if f'"namespace":"{namespace}"' not in line or '"resource":"jobs"' not in line:
            continue
        event: dict[str, Any] = json.loads(line)
        what = event["objectRef"]
        if event["verb"] == "create" and not what.get("subresource") and event["responseStatus"].get("code") == 201:
            found.append((event["requestReceivedTimestamp"], event["user"]["username"], what["name"]))
    return found


def _span(pod: dict[str, Any]) -> tuple[datetime, datetime]:
    """From the first container's start to the last one's end."""
    states = [status["state"]["terminated"] for status in pod["status"]["containerStatuses"]]
    started = min(datetime.fromisoformat(state["startedAt"]) for state in states)
    return started, max(datetime.fromisoformat(state["finishedAt"]) for state in states)
