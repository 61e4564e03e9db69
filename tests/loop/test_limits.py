"""Concurrent runs, the queue in front of them, and suspension."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.loop.apiserver import Call, Cut
from tests.loop.lab import Lab
from tests.loop.store import JSON, WORKITEMS
from tests.loop.test_killed import PIPELINE
from tests.unit.core.world import one_stage
from workitems.api import Phase

pytestmark = pytest.mark.slow


def small(**limits: Any) -> JSON:
    return {**one_stage(), "limits": limits}


def order(lab: Lab) -> list[str]:
    return [record.item.split("/")[0] for record in lab.kubelet.records]


def most_at_once(lab: Lab) -> int:
    """How many runs were announced at the same time, at worst."""
    status: dict[str, JSON] = {}
    worst = 0
    for change in lab.store.changes:
        if change.kind is WORKITEMS and change.new is not None:
            status[change.new["metadata"]["name"]] = change.new.get("status") or {}
            worst = max(worst, sum("run" in s for s in status.values()))
    return worst


@pytest.mark.parametrize("of", ["Pipeline", "Repository"])
async def test_one_at_a_time_by_priority_then_age(lab: Lab, of: str) -> None:
    limit: JSON = {"maxConcurrentRuns": 1}
    lab.pipeline(small(**(limit if of == "Pipeline" else {})))
    lab.repository("shop", **({"limits": limit} if of == "Repository" else {}))
    lab.kubelet.holds = lambda _job: True
    lab.start()
    lab.item("running")
    await lab.until(lambda: bool(lab.kubelet.live()), "a run")
    for name, priority in (("first", 0), ("second", 0), ("urgent", 5)):
        lab.item(name, priority=priority)
        await lab.rest(5)
    await lab.until_phase("Queued", "first", "second", "urgent")
    await lab.rest(200)  # the next sweep tells each of them who is before them now
    pool = "Pipeline workitem-operator/default" if of == "Pipeline" else "Repository team-a/shop"
    for name, behind in (("urgent", ""), ("first", ", team-a/urgent"), ("second", ", team-a/urgent, team-a/first")):
        reason, message = lab.ready(name)
        assert reason == "Queued"
        assert message == f"waits for one of 1 concurrent runs of {pool}, behind team-a/running{behind}"
    lab.kubelet.release()
    await lab.until_phase("Done", "running", "first", "second", "urgent")
    assert order(lab) == ["running", "urgent", "first", "second"]
    assert most_at_once(lab) == 1


async def test_a_restart_in_the_middle_keeps_the_limit(lab: Lab) -> None:
    lab.pipeline(small(maxConcurrentRuns=1))
    lab.repository()
    lab.kubelet.holds = lambda _job: True
    lab.start()
    for name in ("a", "b", "c"):
        lab.item(name)
    await lab.until(lambda: bool(lab.kubelet.live()), "a run")
    for _ in range(3):
        # Without sweeps: who waits is woken by who ends.
        await lab.restart(sweep_seconds=80_000)
        await lab.rest(300)
        assert len(lab.kubelet.live()) == 1
    lab.kubelet.release()
    await lab.until_phase("Done", "a", "b", "c")
    assert most_at_once(lab) == 1


async def test_a_new_operator_keeps_the_order_of_those_that_wait(lab: Lab) -> None:
    """The run that had the place has ended while nobody was there: it does not go to whoever is looked at first."""
    lab.pipeline(
        {**small(maxConcurrentRuns=1), "stages": [{"name": name, "agent": "coder"} for name in ("build", "ship")]}
    )
    lab.repository()
    lab.kubelet.holds = lambda _job: True
    lab.start()
    lab.item("m-running")
    await lab.until(lambda: bool(lab.kubelet.live()), "a run")
    lab.item("b-older")
    await lab.rest(5)
    lab.item("a-younger")
    lab.item("z-urgent", priority=5)
    lab.item("gone", priority=9)
    await lab.until_phase("Queued", "b-older", "a-younger", "z-urgent", "gone")
    await lab.kill()
    lab.kubelet.release()
    await lab.rest()

    def deletes(call: Call) -> None:
        """The first in line goes as soon as the new operator has found it: no event tells."""
        if (call.verb, call.kind) == ("list", WORKITEMS) and lab.store.find(WORKITEMS, "team-a", "gone") is not None:
            lab.store.delete(WORKITEMS, "team-a", "gone")

    lab.server.done = deletes
    lab.start(sweep_seconds=80_000)
    await lab.until_phase("Done", "m-running", "b-older", "a-younger", "z-urgent")
    assert order(lab) == ["m-running", *["z-urgent"] * 2, "m-running", *["b-older"] * 2, *["a-younger"] * 2]
    assert most_at_once(lab) == 1


@pytest.mark.parametrize("cut", [Cut.LOST, Cut.RESET], ids=["lost answer", "reset"])
async def test_a_limit_holds_when_the_announcement_goes_wrong(lab: Lab, cut: Cut) -> None:
    """Nobody knows then whether the run is announced: the slot must not go to somebody else before it is looked at."""
    lab.pipeline(small(maxConcurrentRuns=1))
    lab.repository()
    failing = {"a": 3, "b": 3, "c": 3}

    def fault(call: Call) -> Cut | None:
        run = ((call.body.get("status") or {}).get("run") or {}).get("state")
        if call.kind is WORKITEMS and call.writes and run == "Intended" and failing[call.name]:
            failing[call.name] -= 1
            return cut
        return None

    lab.server.fault = fault
    for name in failing:
        lab.item(name)
    lab.start()
    await lab.until_phase("Done", *failing)
    assert most_at_once(lab) == 1


def suspend(lab: Lab, *, on: bool) -> None:
    lab.store.patch(WORKITEMS, "team-a", "et-1", {"spec": {"suspend": on}})


async def test_suspended_before_the_start(lab: Lab) -> None:
    lab.pipeline(small())
    lab.repository()
    lab.item("et-1", suspend=True)
    lab.start()
    await lab.until_phase("Suspended", "et-1")
    await lab.rest(600)
    assert lab.jobs("et-1") == []
    suspend(lab, on=False)
    await lab.until_phase("Done", "et-1")


async def test_suspended_in_the_queue_it_lets_the_others_go_first_and_keeps_its_place(lab: Lab) -> None:
    lab.pipeline(small(maxConcurrentRuns=1))
    lab.repository()
    lab.kubelet.holds = lambda job: job["metadata"]["name"].startswith("running-")
    lab.start(sweep_seconds=80_000)
    lab.item("running")
    await lab.until(lambda: bool(lab.kubelet.live()), "a run")
    lab.item("et-1", priority=5)
    lab.item("other")
    await lab.until_phase("Queued", "et-1", "other")
    suspend(lab, on=True)
    await lab.until_phase("Suspended", "et-1")
    lab.kubelet.release()
    await lab.until_phase("Done", "running", "other")
    assert lab.jobs("et-1") == []
    suspend(lab, on=False)
    await lab.until_phase("Done", "et-1")
    assert most_at_once(lab) == 1


async def test_suspended_while_a_command_gate_runs_it_is_judged_and_nothing_else_begins(lab: Lab) -> None:
    lab.pipeline(PIPELINE)
    lab.repository()
    lab.kubelet.holds = lambda job: "workitems.dev/gate" in job["metadata"]["labels"]
    lab.kubelet.gate_codes["tests"] = [1, 0]
    lab.start()
    lab.item("et-1")
    await lab.until(lambda: bool(lab.kubelet.held), "the gate's Job")
    suspend(lab, on=True)
    lab.kubelet.release()
    await lab.until_phase("Suspended", "et-1")
    await lab.rest(600)
    status = lab.status("et-1")
    assert [(r.gate, r.attempts) for r in status.rework] == [("tests", 1)]
    assert len(lab.jobs("et-1")) == 2
    lab.approve_always()
    suspend(lab, on=False)
    await lab.until_phase("Done", "et-1")


@pytest.mark.parametrize(
    ("moment", "jobs"),
    [
        (lambda lab: bool(lab.kubelet.live()), 1),
        (lambda lab: lab.phase("et-1") is Phase.IN_REVIEW, 1),
    ],
    ids=["while a run is under way", "between two stages"],
)
async def test_suspended_on_the_way(lab: Lab, moment: Callable[[Lab], bool], jobs: int) -> None:
    """A live run finishes and is recorded, a Decision is answered, and no new run starts until it is resumed."""
    lab.pipeline()
    lab.repository()
    lab.start()
    lab.item("et-1")
    await lab.until(lambda: moment(lab), "the moment")
    suspend(lab, on=True)
    lab.approve_always()
    await lab.until_phase("Suspended", "et-1")
    await lab.rest(600)
    assert len(lab.jobs("et-1")) == jobs
    assert lab.decision("et-1-approve-1") == ("Accepted", "Approved")
    suspend(lab, on=False)
    await lab.until_phase("Done", "et-1")
