"""An item that goes on for ever: its status stays as small as etcd, a watch and a person want it."""

from __future__ import annotations

import gc
import json

import pytest

from tests.loop.apiserver import Call
from tests.loop.lab import NAMESPACE, Lab
from tests.loop.store import JOBS, PODS, WORKITEMS
from tests.unit.core.world import End, default_pipeline, review
from workitems.api import DECISIONS_KEPT, EFFECTS_KEPT, MESSAGE_LIMIT, RUNS_KEPT
from workitems.echoes import Echoes
from workitems.memory import Memory
from workitems.outbox import Outbox
from workitems.readings import Readings
from workitems.reconcile import Reconciler
from workitems.slots import Slots

RUNS = 500
STATUS_BYTES = 64 * 1024
"""A twentieth of what etcd takes. It was 31 KiB at most in November 2026."""
WORDS = "The refund case is untested, and the price is no integer. " * 200


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_status_is_bounded_after_five_hundred_runs(lab: Lab) -> None:
    """Every way in which a status grows, again and again: findings, failures, Decisions and their comments, effects."""
    largest = 0

    def measure(call: Call) -> None:
        nonlocal largest
        if call.kind is WORKITEMS and call.writes:
            largest = max(largest, len(json.dumps(call.body["status"], ensure_ascii=False).encode()))

    lab.server.done = measure
    pipeline = default_pipeline()
    pipeline["limits"] = {"maxConcurrentRuns": 10, "maxRuns": 1000, "maxInfraRetries": 3}
    lab.pipeline(pipeline)
    lab.repository()
    lab.approve_always()
    findings = review("REQUEST_CHANGES")
    findings = End(writes={"12-review.md": f"{findings.writes['12-review.md']}\n{WORDS}"})
    gives_up = End(exit_code=1, tail=WORDS[-4000:])
    lab.kubelet.scripts["et-1", "review"] = [findings, findings, gives_up] * RUNS
    lab.start()
    lab.item("et-1", description=WORDS)
    while (last := lab.status("et-1").last_run) < RUNS:
        await lab.until(lambda last=last: lab.phase("et-1") == "Blocked" and lab.status("et-1").last_run > last, "more")  # type: ignore[misc]
        lab.decide("et-1", "retry", comment=WORDS[:4000])
        # What a test remembers would be hundreds of megabytes.
        lab.server.calls.clear()
        lab.store.changes.clear()
        _forget_old_jobs(lab)
    status = lab.status("et-1")
    assert status.usage.runs >= RUNS
    assert len(status.runs) == RUNS_KEPT
    assert [run.number for run in status.runs] == list(range(status.last_run - RUNS_KEPT + 1, status.last_run + 1))
    assert len(status.decisions) == DECISIONS_KEPT
    assert len(status.effects) <= EFFECTS_KEPT
    for message in (*(run.message for run in status.runs), *(gate.message for gate in status.gates)):
        assert len(message or "") <= MESSAGE_LIMIT
    assert len(status.gates) <= 7
    assert len(status.rework) <= 7
    assert len(status.conditions) <= 8
    print(f"{status.usage.runs} runs, {largest} bytes of status at most")
    assert largest < STATUS_BYTES
    # Alive and well: a person ends it.
    lab.kubelet.scripts.clear()
    lab.decide("et-1", "retry")
    await lab.until_phase("Done", "et-1")


def _forget_old_jobs(lab: Lab) -> None:
    """As a person does who cleans up: the operator keeps Jobs until the item is over."""
    recorded = {run.job for run in lab.status("et-1").runs}
    for kind in (PODS, JOBS):
        for body in list(lab.store.list(kind)):
            name = body["metadata"]["labels"].get("batch.kubernetes.io/job-name", body["metadata"]["name"])
            if name not in recorded and lab.status("et-1").run is None:
                lab.store.remove(kind, body)


@pytest.mark.slow
async def test_nothing_is_remembered_of_an_item_that_is_over(lab: Lab) -> None:
    """Memory is flat in the number of finished items: whatever the process keeps by item is let go."""
    lab.repository()
    lab.pipeline()
    lab.approve_always()
    lab.start()
    names = [lab.item(f"et-{number}") for number in range(3)]
    for name in names:
        await lab.until_phase("Done", name)
    keys = {f"{NAMESPACE}/{name}" for name in names}
    await lab.until(lambda: not any(keys & kept for kept in _kept().values()), f"memory of {_kept()}")


@pytest.mark.slow
async def test_nothing_is_kept_of_own_writes_whose_events_were_lost(lab: Lab) -> None:
    lab.repository()
    lab.pipeline()
    lab.approve_always()
    lab.start()
    await lab.rest(5)
    lab.server.deaf = True
    lab.item("et-1")
    await lab.until(lambda: lab.ready("et-1")[0] == "RunInProgress", "a run")
    lab.store.version += 1
    lab.store.compact()
    lab.server.deaf = False
    lab.server.cut_watches()
    await lab.until_phase("Done", "et-1")
    await lab.rest(3600)
    assert not [key for keys in _kept().values() for key in keys if key.endswith("/et-1")], _kept()


def _kept() -> dict[str, set[str]]:
    """The keys of what this process's reconcilers and their neighbours hold in memory."""
    gc.collect()  # worlds of earlier tests
    kinds = Reconciler | Echoes | Memory | Outbox | Readings | Slots
    holders = [each for each in gc.get_objects() if isinstance(each, kinds)]
    assert holders
    return {
        f"{type(holder).__name__}.{name}": {key for key in value if isinstance(key, str)}
        for holder in holders
        for name, value in vars(holder).items()
        if isinstance(value, dict | set)
    }
