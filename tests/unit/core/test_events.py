"""Transitions and the Events about them: what changed is told, once, in words that fit, and nothing else is."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from workitems.api import (
    Effect,
    FinishedRun,
    GateResult,
    GateStatus,
    Phase,
    PipelineSnapshot,
    RunResult,
    WorkItem,
    WorkItemStatus,
)
from workitems.api.common import Condition
from workitems.core import events, transitions

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


def run(number: int, result: RunResult = RunResult.SUCCEEDED, message: str | None = None) -> FinishedRun:
    return FinishedRun(
        number=number,
        agent="developer",
        stage="development",
        attempt=1,
        job=f"job-{number}",
        result=result,
        message=message,
        started_at=NOW - timedelta(seconds=30),
        finished_at=NOW,
    )


def gate(result: GateResult, attempt: int = 1) -> GateStatus:
    return GateStatus(
        name="tests",
        stage="development",
        result=result,
        reason="CommandFailed",
        message="exit code 2",
        attempt=attempt,
        since=NOW,
        checked_at=NOW,
    )


def asked(*names: str, covers: str = "sha256:1") -> dict[str, Any]:
    """A stage that waits for these approvals; the first is the one that is asked for."""
    waiting = tuple(
        gate(GateResult.PENDING).model_copy(update={"name": name, "reason": "WaitingForApproval", "covers": covers})
        for name in names
    )
    return {"stage": "development", "phase": Phase.IN_REVIEW, "gates": waiting}


def blocked(message: str) -> dict[str, Any]:
    ready = Condition(
        type="Ready", status="False", reason="X", message=message, observed_generation=1, last_transition_time=NOW
    )
    return {"phase": Phase.BLOCKED, "conditions": (ready,)}


def item(status: WorkItemStatus, version: str = "7") -> WorkItem:
    metadata = {"name": "et-1", "namespace": "team-a", "uid": "u-1", "generation": 1, "resourceVersion": version}
    return WorkItem.model_validate(
        {"metadata": metadata, "spec": {"repository": "shop", "title": "T"}, "status": status.to_json()}
    )


STARTED = WorkItemStatus(
    stage="development",
    branch="workitem/et-1",
    pipeline=PipelineSnapshot(name="default", generation=1, digest="sha256:0", revision="r"),
)


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        pytest.param({}, {}, [], id="nothing changed"),
        pytest.param({}, STARTED.model_dump(), ["Started"], id="the start"),
        pytest.param({"stage": "a"}, {"stage": "b"}, [], id="the next stage"),
        pytest.param({"stage": "a"}, {"stage": "a", "runs": (run(1),)}, [], id="a run that succeeded"),
        pytest.param({"runs": (run(1),)}, {"runs": (run(1), run(2, RunResult.EVICTED))}, ["RunEvicted"], id="evicted"),
        pytest.param({}, {"gates": (gate(GateResult.PENDING),)}, [], id="a gate that waits"),
        pytest.param({}, {"gates": (gate(GateResult.PASSED),)}, [], id="a gate that passed"),
        pytest.param({}, {"gates": (gate(GateResult.FAILED),)}, ["GateFailed"], id="a gate that failed"),
        pytest.param(
            {"gates": (gate(GateResult.FAILED),)}, {"gates": (gate(GateResult.FAILED),)}, [], id="told already"
        ),
        pytest.param(
            {"gates": (gate(GateResult.FAILED),)}, {"gates": (gate(GateResult.FAILED, 2),)}, ["GateFailed"], id="again"
        ),
        pytest.param({}, blocked("mend it"), ["Blocked"], id="blocked"),
        pytest.param(blocked("mend it"), blocked("mend that too"), [], id="blocked as before"),
        pytest.param({}, {"phase": Phase.IN_REVIEW}, ["WaitingForApproval"], id="an approval is wanted"),
        pytest.param(asked("lead", "security"), asked("security"), ["WaitingForApproval"], id="the next approval"),
        pytest.param(asked("lead", "security"), asked("lead"), [], id="the same approval is still wanted"),
        pytest.param(asked("lead"), asked("lead", covers="sha256:2"), ["WaitingForApproval"], id="of something else"),
        pytest.param(asked("lead"), {**asked("lead"), "phase": Phase.BLOCKED}, ["Blocked"], id="blocked instead"),
        pytest.param({}, {"phase": Phase.DONE}, ["Done"], id="the end"),
    ],
)
def test_events_tell(before: dict[str, Any], after: dict[str, Any], told: list[str]) -> None:
    old, new = WorkItemStatus(**before), WorkItemStatus(**after)
    manifests = events.about(item(old), transitions.between(old, new), new, NOW)
    assert [manifest["reason"] for manifest in manifests] == told
    assert {manifest["reason"] for manifest in manifests} <= set(events.REASONS)


def test_an_event_carries_the_ready_conditions_words_cut_to_what_kubernetes_takes() -> None:
    after = WorkItemStatus(**blocked("x" * 3000))
    (event,) = events.about(item(WorkItemStatus()), transitions.between(WorkItemStatus(), after), after, NOW)
    assert event["message"] == "x" * 1023 + "…"
    assert (event["type"], event["involvedObject"]["uid"]) == ("Warning", "u-1")


def test_a_step_that_is_repeated_makes_no_second_event_and_a_later_one_does() -> None:
    after = WorkItemStatus(**blocked("mend it"))
    change = transitions.between(WorkItemStatus(), after)
    names = [
        events.about(item(WorkItemStatus(), version), change, after, at)[0]["metadata"]["name"]
        for version, at in (("7", NOW), ("7", NOW + timedelta(seconds=5)), ("9", NOW))
    ]
    assert names[0] == names[1] != names[2]


def test_a_transition_names_effects_that_came_into_another_state() -> None:
    before = WorkItemStatus(effects=(Effect(id="a", kind="Notify"), Effect(id="b", kind="Notify", state="Done")))
    after = WorkItemStatus(effects=(Effect(id="a", kind="Notify", state="Done"), *before.effects[1:]))
    change = transitions.between(before, after)
    assert [(effect.id, effect.state) for effect in change.effects] == [("a", "Done")]
    assert change
    assert not transitions.between(after, after)


def test_every_reason_is_documented_and_stays_what_it_is() -> None:
    """Alerts of other people match them: a rename here is a break for somebody."""
    text = (Path(__file__).parents[3] / "docs" / "events.md").read_text()
    documented = re.findall(r"^\| ([A-Z]\w+) \| (?:Normal|Warning) \|", text, re.MULTILINE)
    assert sorted(documented) == sorted(events.REASONS)
