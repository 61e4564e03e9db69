"""Items and Decisions that this operator cannot read: said where a person looks, once, and nothing else is harmed."""

from __future__ import annotations

import pytest

from tests.loop.lab import Lab
from tests.loop.store import DECISIONS, EVENTS, JSON, WORKITEMS
from tests.unit.core.world import one_stage


def events_about(lab: Lab, kind: str, name: str) -> list[JSON]:
    """Events about one object, of the reason Unreadable."""
    about = {"kind": kind, "name": name}
    found = [body for body in lab.store.list(EVENTS) if about.items() <= body["involvedObject"].items()]
    return [body for body in found if body["reason"] == "Unreadable"]


def writes_of(lab: Lab, name: str) -> int:
    """Writes to the object of this name, carried out or refused, and Events about it."""
    calls = (call for call in lab.server.calls if call.verb not in ("get", "list", "watch"))
    return sum(name in str(call.body.get("metadata")) for call in calls)


async def in_review(lab: Lab) -> None:
    """Bring the item et-1 to where it waits for a person."""
    lab.pipeline()
    lab.repository()
    lab.start()
    lab.item("et-1")
    await lab.until_phase("InReview", "et-1")


@pytest.mark.slow
async def test_an_item_that_cannot_be_read_says_so_once_and_goes_on_once_it_can(lab: Lab) -> None:
    await in_review(lab)
    await lab.rest()
    before = lab.store.get(WORKITEMS, "team-a", "et-1")
    lab.store.put(WORKITEMS, {**before, "status": {**before["status"], "stage": ["no", "word"]}})

    def raw() -> JSON:
        return lab.store.get(WORKITEMS, "team-a", "et-1")

    def stands() -> dict[str, JSON]:
        return {condition["type"]: condition for condition in raw()["status"]["conditions"]}

    await lab.until(lambda: stands()["Ready"]["reason"] == "WorkItemUnreadable", "a condition")
    message = stands()["Ready"]["message"]
    assert "status.stage: Input should be a valid string" in message
    assert "kubectl -n team-a edit workitem et-1 --subresource=status" in message
    assert {kind: stands()[kind]["status"] for kind in ("Ready", "Reconciling", "Stalled")} == {
        "Ready": "False",
        "Reconciling": "False",
        "Stalled": "True",
    }
    kept = ("head", "gates", "runs", "pipeline", "phase", "stage")
    assert {key: raw()["status"][key] for key in kept} == {
        **{key: before["status"][key] for key in kept},
        "stage": ["no", "word"],
    }
    await lab.rest(1)
    (event,) = events_about(lab, "WorkItem", "et-1")
    assert (event["type"], event["message"]) == ("Warning", message)
    written = writes_of(lab, "et-1")
    await lab.rest(3600)
    await lab.restart()
    await lab.rest(3600)
    assert writes_of(lab, "et-1") == written
    lab.store.put(WORKITEMS, {**raw(), "status": {**raw()["status"], "stage": before["status"]["stage"]}})
    await lab.until(lambda: lab.ready("et-1")[0] == "WaitingForApproval", "where it was")
    ready = {c.type: c.status for c in lab.status("et-1").conditions}
    assert (ready["Stalled"], ready["Reconciling"]) == ("False", "True")


async def test_what_the_api_server_does_not_take_is_told_by_an_event_and_not_tried_again(lab: Lab) -> None:
    lab.pipeline()
    lab.repository()
    body = lab.store.get(WORKITEMS, "team-a", lab.item("et-1"))
    lab.store.put(WORKITEMS, {key: value for key, value in body.items() if key != "spec"})
    lab.start()
    await lab.until(lambda: events_about(lab, "WorkItem", "et-1") != [], "an Event")
    (event,) = events_about(lab, "WorkItem", "et-1")
    assert "spec: Field required" in event["message"]
    await lab.rest()
    written = writes_of(lab, "et-1")
    assert "not told" in {entry["event"] for entry in lab.log}
    await lab.rest(3600)
    assert writes_of(lab, "et-1") == written


@pytest.mark.slow
async def test_an_item_that_is_over_stays_over(lab: Lab) -> None:
    lab.pipeline(one_stage())
    lab.repository()
    lab.start()
    lab.item("et-1")
    await lab.until_phase("Done", "et-1")
    await lab.kill()
    body = lab.store.get(WORKITEMS, "team-a", "et-1")
    broken = {**body["status"], "outbox": "Pending", "stage": 7}
    lab.store.put(WORKITEMS, {**body, "status": broken})
    lab.start()
    await lab.until(lambda: events_about(lab, "WorkItem", "et-1") != [], "an Event")
    await lab.rest(3600)
    assert lab.store.get(WORKITEMS, "team-a", "et-1")["status"] == broken


@pytest.mark.slow
async def test_a_decision_that_cannot_be_read_has_an_event_and_is_not_taken_for_another(lab: Lab) -> None:
    await in_review(lab)
    name = lab.decide("et-1", "retry")
    # Said to a newer operator; for this one it is no action at all.
    body = lab.store.get(DECISIONS, "team-a", name)
    lab.store.put(DECISIONS, {**body, "spec": {"workItem": "et-1", "by": "team-lead", "pause": {}}})
    await lab.until(lambda: events_about(lab, "Decision", name) != [], "an Event")
    await lab.rest(3600)
    (event,) = events_about(lab, "Decision", name)
    assert "exactly one of approve, reject" in event["message"]
    assert (lab.phase("et-1"), lab.decision(name)) == ("InReview", ("", ""))


async def test_conditions_that_nobody_can_read_are_the_ones_that_the_item_is_told_by(lab: Lab) -> None:
    await in_review(lab)
    await lab.rest()
    body = lab.store.get(WORKITEMS, "team-a", "et-1")
    status = {**body["status"], "conditions": [7, *body["status"]["conditions"]]}
    lab.store.put(WORKITEMS, {**body, "status": status})
    await lab.until(lambda: 7 not in lab.store.get(WORKITEMS, "team-a", "et-1")["status"]["conditions"], "a write")
    # With that they can be read again, and so can the item.
    await lab.until(lambda: lab.ready("et-1")[0] == "WaitingForApproval", "where it was")


async def test_what_is_told_of_fields_stays_short_and_quotes_no_value(lab: Lab) -> None:
    await in_review(lab)
    body = lab.store.get(WORKITEMS, "team-a", "et-1")
    attempts = {f"{number}-{'x' * 5000}": "hunter2" for number in range(20)}
    lab.store.put(WORKITEMS, {**body, "status": {**body["status"], "attempts": attempts}})
    await lab.until(lambda: events_about(lab, "WorkItem", "et-1") != [], "an Event")
    said = [body["message"] for body in events_about(lab, "WorkItem", "et-1")]
    assert said[0].endswith("then it goes on by itself"), "not cut"
    ready = next(c for c in lab.store.get(WORKITEMS, "team-a", "et-1")["status"]["conditions"] if c["type"] == "Ready")
    assert ready["message"].startswith("WorkItem team-a/et-1 cannot be read: status.attempts.0-xxx")
    assert said == [ready["message"]]
    assert "hunter2" not in ready["message"]
