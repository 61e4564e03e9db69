"""An API server that drops events, forgets its history, is slow, refuses, or answers into nowhere."""

from __future__ import annotations

import random

import pytest

from tests.loop import virtual
from tests.loop.apiserver import Call, Cut
from tests.loop.lab import NAMESPACE, Lab
from tests.loop.store import DECISIONS, JOBS, REPOSITORIES, WORKITEMS, Refused
from tests.loop.test_killed import PIPELINE
from tests.unit.core.world import review

pytestmark = pytest.mark.slow

ITEMS = [f"et-{n}" for n in range(1, 8)]


async def test_without_a_single_event_the_sweep_brings_an_item_to_its_end(lab: Lab) -> None:
    lab.server.deaf = True
    lab.repository()
    lab.pipeline()
    lab.approve_always()
    lab.start()
    await lab.rest(10)
    lab.item("et-1")
    await lab.until_phase("Done", "et-1")


async def test_a_decision_whose_event_is_lost_is_found_by_the_sweep(lab: Lab) -> None:
    lab.start()
    await lab.rest(10)
    lab.server.deaf = True
    name = lab.decide("nobody", "retry")
    await lab.until(lambda: lab.decision(name) == ("Ignored", "NoSuchItem"), "an answer")
    told = lab.store.get(DECISIONS, NAMESPACE, name)["status"]["at"]
    assert told == f"{virtual.now():%Y-%m-%dT%H:%M:%SZ}", "the answer has the time of the operator's clock"


async def test_watches_that_are_cut_and_a_history_that_is_forgotten(lab: Lab) -> None:
    """Cut at every run, and every other time the server no longer knows where the watch was: 410, list again."""
    lab.repository()
    lab.pipeline()
    lab.approve_always()
    lab.start()
    lab.item("et-1")
    for run in range(1, 7):
        await lab.until(lambda run=run: lab.status("et-1").last_run >= run, f"run {run}")  # type: ignore[misc]
        if run % 2:
            lab.server.cut_watches()
            lab.store.put(WORKITEMS, {**lab.store.get(WORKITEMS, "team-a", "et-1")})
        else:
            lab.store.version += 1
            lab.store.compact()
            lab.server.cut_watches()
    await lab.until_phase("Done", "et-1")


@pytest.mark.parametrize("others", ["are well", "fail too"])
async def test_a_watch_that_dies_ends_the_operator_whatever_the_others_do(lab: Lab, others: str) -> None:
    """A half-dead operator that looks alive is worse than a restart."""
    lab.repository()
    lab.pipeline()
    lab.approve_always()
    lab.start()
    lab.item("et-1")
    await lab.until(lambda: lab.status("et-1").last_run >= 1, "a run")
    garbage = 0

    def fault(call: Call) -> Cut | None:
        nonlocal garbage
        if call.verb == "list" and call.kind is REPOSITORIES:
            garbage += 1
            return Cut.GARBAGE
        return Cut.RESET if call.verb == "watch" and call.kind is not REPOSITORIES and others == "fail too" else None

    lab.server.fault = fault
    lab.store.version += 1
    lab.store.compact()
    lab.server.cut_watches()
    await lab.until(lambda: not lab.alive, "the operator's end")
    assert garbage >= 1
    lab.server.fault = lambda _call: None
    await lab.restart()
    await lab.until_phase("Done", "et-1")


class Weather:
    """A tenth of all requests goes wrong, in one of the ways that a request can."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.count = 0

    def __call__(self, call: Call) -> Cut | Refused | None:
        if self._random.random() >= 0.1:
            return None
        self.count += 1
        faults: list[Cut | Refused] = [
            Cut.RESET,
            Cut.LOST,
            Refused(429, "TooManyRequests", "too many requests, please try again later"),
            Refused(500, "InternalError", "etcdserver: leader changed"),
        ]
        if call.writes:
            faults.append(Refused(409, "Conflict", "the object has been modified"))
        return self._random.choice(faults)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
async def test_a_tenth_of_all_requests_fails_and_every_item_is_done(lab: Lab, seed: int) -> None:
    lab.repository()
    lab.pipeline()
    lab.approve_always()
    lab.kubelet.scripts["et-2", "review"] = [review("REQUEST_CHANGES")]
    for item in ITEMS:
        lab.item(item)
    weather = Weather(seed)
    lab.server.fault = weather
    lab.supervised = True
    lab.start()
    await lab.until_phase("Done", *ITEMS)
    assert weather.count > 30, "of some seven hundred requests"
    for item in ITEMS:
        assert [run.number for run in lab.status(item).runs] == list(range(1, 9 if item == "et-2" else 7))


async def test_a_deletion_that_is_answered_with_a_conflict_is_made_again(lab: Lab) -> None:
    """Whoever aborts an item must not find its agent at work for another half hour."""
    conflicts = 2

    def fault(call: Call) -> Refused | None:
        nonlocal conflicts
        if call.verb == "delete" and call.kind is JOBS and conflicts:
            conflicts -= 1
            return Refused(409, "Conflict", "the object has been modified")
        return None

    lab.server.fault = fault
    lab.repository()
    lab.pipeline()
    lab.kubelet.holds = lambda _job: True
    lab.start()
    lab.item("et-1")
    await lab.until(lambda: bool(lab.kubelet.live()), "a run")
    lab.decide("et-1", "abort")
    await lab.until_phase("Aborted", "et-1")
    await lab.until(lambda: not list(lab.store.list(JOBS)), "the end of its Job")
    assert conflicts == 0


async def test_a_refused_job_is_a_condition_and_heals_by_itself(lab: Lab) -> None:
    message = 'jobs.batch "x" is forbidden: exceeded quota: team, requested: count/jobs.batch=1, used: 5, limited: 5'
    refuses = True

    def fault(call: Call) -> Refused | None:
        refused = refuses and call.kind is JOBS and call.verb == "create"
        return Refused(403, "Forbidden", message) if refused else None

    lab.server.fault = fault
    lab.repository()
    lab.pipeline()
    lab.start()
    lab.item("et-1")
    await lab.until(lambda: lab.ready("et-1")[0] == "QuotaExceeded", "the refusal")
    assert "exceeded quota: team" in lab.ready("et-1")[1]
    assert lab.phase("et-1") == "Blocked"
    settled = len(lab.writes("et-1"))
    tries = sum(call.kind is JOBS for call in lab.server.writes())
    await lab.rest(600)
    assert len(lab.writes("et-1")) == settled, "status flaps"
    assert sum(call.kind is JOBS for call in lab.server.writes()) > tries + 10, "it is not tried again"
    refuses = False
    await lab.until_phase("InReview", "et-1")
    assert lab.status("et-1").runs[0].number == 1


async def test_what_is_said_while_a_gates_job_is_refused_is_not_lost_in_a_conflict(lab: Lab) -> None:
    """A Decision is acknowledged after the status that remembers it, whatever else has to be tried again."""
    refuses, conflicts = True, 1

    def fault(call: Call) -> Refused | None:
        nonlocal conflicts
        if call.kind is JOBS and call.verb == "create" and "-tests-" in call.body["metadata"]["name"] and refuses:
            return Refused(403, "Forbidden", "exceeded quota: team")
        if call.kind is WORKITEMS and call.writes and call.body["status"].get("decisions") and conflicts:
            conflicts -= 1
            return Refused(409, "Conflict", "the object has been modified")
        return None

    lab.server.fault = fault
    lab.repository()
    lab.pipeline(PIPELINE)
    lab.start()
    lab.item("et-1")
    await lab.until(lambda: lab.ready("et-1")[0] == "QuotaExceeded", "the refusal")
    name = lab.decide("et-1", "approve", {"gate": "accepted", "commit": lab.status("et-1").head})
    await lab.until(lambda: lab.decision(name) == ("Accepted", "Approved"), "the answer")
    assert conflicts == 0
    assert [gate.result for gate in lab.status("et-1").gates if gate.name == "accepted"] == ["Passed"]
    refuses = False
    await lab.until_phase("Done", "et-1")


async def test_an_invalid_job_is_a_condition_and_survives_a_restart(lab: Lab) -> None:
    refuses = True

    def fault(call: Call) -> Refused | None:
        refused = refuses and call.kind is JOBS and call.verb == "create"
        return Refused(422, "Invalid", 'Job.batch "x" is invalid: spec.template: no') if refused else None

    lab.server.fault = fault
    lab.repository()
    lab.pipeline()
    lab.start()
    lab.item("et-1")
    await lab.until(lambda: lab.ready("et-1")[0] == "Invalid", "the refusal")
    await lab.restart()
    await lab.rest(300)
    assert lab.ready("et-1")[0] == "Invalid"
    assert len(lab.writes("et-1")) <= 4, "status flaps"
    refuses = False
    await lab.until_phase("InReview", "et-1")
