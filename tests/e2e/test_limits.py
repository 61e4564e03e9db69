"""Limits on a real cluster: what stops an item, how it goes on, and how long its logs stay.

All items begin at once in one namespace. What takes its time does so in the agents' scripts; no test counts seconds.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.lab import JSON, PATIENTLY, UNTIL_TOLD, Lab, commands, condition, only, said

pytestmark = pytest.mark.e2e

TTL = 15
GATE = "analysis-approved"
ASKS = {"write": {"{docs}/01-questions.md": "How many?\n"}}
GIVES_UP: dict[str, Any] = {"exit": 1}
CODE = {"write": {"src/feature.txt": "a feature\n"}}


def _short_lived(spec: JSON) -> None:
    only("analysis", "development", gates=(GATE, "tests-local"))(spec)
    spec["ttlSecondsAfterFinished"] = TTL
    spec["stages"][1]["gates"][0]["command"]["run"] = ["sh", "-c", UNTIL_TOLD]


PIPELINES: dict[str, Callable[[JSON], None]] = {
    "two": only("development", "review"),
    "plain": only("analysis"),
    "approval": only("analysis", "development", gates=(GATE,)),
    "short-lived": _short_lived,
}


@pytest.fixture(scope="module")
def lab(shared_lab: Lab) -> Lab:
    """All items, under way."""
    shared_lab.repository()
    shared_lab.repository("narrow", limits={"maxConcurrentRuns": 1})
    for name, change in PIPELINES.items():
        shared_lab.pipeline(name, change)
    slowly = {"development": [{**CODE, "sleep": 3}]}
    shared_lab.item("few-runs", pipeline="two", limits={"maxRuns": 1})
    shared_lab.item("short-time", slowly, pipeline="two", limits={"maxDuration": "2s"})
    # Nobody gets past the first before the third was seen to wait.
    until_told = {"development": [{**CODE, "run": UNTIL_TOLD}]}
    for name, script in (("narrow-1", until_told), ("narrow-2", slowly), ("narrow-3", slowly)):
        shared_lab.item(name, script, pipeline="two", repository="narrow")
    shared_lab.item("paused-review", pipeline="approval")
    shared_lab.item("paused-blocked", {"analysis": [GIVES_UP, None]}, pipeline="plain")
    shared_lab.item("paused-asking", {"analysis": [ASKS, None]}, pipeline="plain")
    shared_lab.item(
        "short-lived", {"analysis": [None], "development": [{**CODE, "print": "hello"}]}, pipeline="short-lived"
    )
    return shared_lab


def test_a_repositorys_runs_never_exceed_its_limit_and_the_waiting_say_behind_whom(lab: Lab) -> None:
    names = ("narrow-1", "narrow-2", "narrow-3")
    queued = lab.wait("narrow-3", lambda s: s.get("phase") == "Queued", "Queued")
    assert (
        f"one of 1 concurrent runs of Repository {lab.namespace}/narrow, behind {lab.namespace}/narrow-"
        in said(queued)[1]
    )
    lab.tell(lab.wait("narrow-1", lambda s: s.get("run") is not None, "its run")["run"]["job"])
    runs = [run for name in names for run in lab.wait_phase(name, "Done")["runs"]]
    assert len(runs) == 6
    spans = sorted((run["startedAt"], run["finishedAt"]) for run in runs)
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans)), spans


@pytest.mark.parametrize(
    ("item", "reason", "used", "more"),
    [
        ("few-runs", "MaxRunsReached", "1 of at most 1 runs are used", "5"),
        ("short-time", "MaxDurationReached", "the item has been worked on for 2s", "2h"),
    ],
)
def test_a_limit_blocks_until_it_is_raised_and_a_retry_goes_on_where_it_stopped(
    lab: Lab, item: str, reason: str, used: str, more: str
) -> None:
    status = lab.wait_phase(item, "Blocked")
    message = said(status)[1]
    assert said(status)[0] == reason
    assert message.startswith(f"{used}. Raise it: kubectl -n ")
    early = lab.acknowledged(lab.decide(item, retry={}))
    assert (early["result"], early["reason"]) == ("Ignored", reason)
    assert commands(early["message"]) == commands(message)
    raise_it, retry = commands(message)
    lab.paste(raise_it, MORE=more)
    assert lab.status(item)["phase"] == "Blocked"
    lab.paste(retry)
    status = lab.wait_phase(item, "Done")
    assert [(run["stage"], run["attempt"]) for run in status["runs"]] == [("development", 1), ("review", 1)]


def test_suspend_during_a_run_lets_it_end_and_starts_no_other(lab: Lab) -> None:
    lab.item("paused-running", {"development": [{**CODE, "run": UNTIL_TOLD}]}, pipeline="two")
    status = lab.wait("paused-running", lambda s: s.get("run") is not None, "a run")
    lab.suspend("paused-running")
    lab.tell(status["run"]["job"])
    status = lab.wait_phase("paused-running", "Suspended")
    assert [run["result"] for run in status["runs"]] == ["Succeeded"]
    assert "set it to false to go on" in said(status)[1]
    lab.suspend("paused-running", False)
    status = lab.wait_phase("paused-running", "Done")
    assert len(status["runs"]) == 2


def test_suspend_while_people_are_waited_for_still_hears_them_and_starts_nothing(lab: Lab) -> None:
    head = lab.wait_phase("paused-review", "InReview")["head"]
    lab.wait_phase("paused-asking", "NeedsInput")
    lab.wait_phase("paused-blocked", "Blocked")
    items = ("paused-review", "paused-asking", "paused-blocked")
    for item in items:
        lab.suspend(item)
    said_to = [
        lab.decide("paused-review", approve={"gate": GATE, "commit": head}),
        lab.decide("paused-asking", comment="Two.", answer={}),
        lab.decide("paused-blocked", retry={}),
    ]
    assert {lab.acknowledged(decision)["result"] for decision in said_to} == {"Accepted"}
    for item in items:
        status = lab.wait_phase(item, "Suspended")
        assert len(status["runs"]) == 1
        assert condition(status, "Stalled")["status"] == "False"
        lab.suspend(item, False)
    for item in items:
        assert len(lab.wait_phase(item, "Done")["runs"]) == 2


def test_jobs_and_logs_stay_until_the_item_is_over_and_go_after_the_ttl(lab: Lab) -> None:
    status = lab.wait_phase("short-lived", "InReview")
    first = status["runs"][0]["job"]
    assert "ttlSecondsAfterFinished" not in lab.get("job", first)["spec"]
    lab.approve("short-lived")
    status = lab.wait("short-lived", lambda s: s.get("stage") == "development" and bool(s["gates"][-1].get("jobUID")))
    for run in status["runs"]:
        assert "stage " in lab.kubectl("logs", f"job/{run['job']}", "-c", "agent")
        assert "ttlSecondsAfterFinished" not in lab.get("job", run["job"])["spec"]
    gate = status["gates"][-1]["job"]
    # What is looked at too late to be there still is held by this.
    lab.kubectl("patch", "job", gate, "--type=merge", "-p", '{"metadata": {"finalizers": ["workitems.dev/e2e"]}}')
    lab.tell(gate)
    lab.wait_phase("short-lived", "Done")
    lab.wait("short-lived", lambda s: all(effect["state"] == "Done" for effect in s["effects"]), "its effects")
    selector = "workitems.dev/item=short-lived"
    released = lab.kubectl("get", "jobs", "-l", selector, "-o", "jsonpath={.items[*].spec.ttlSecondsAfterFinished}")
    # From its own end each, so that all go at the same time.
    assert min(map(int, released.split())) >= TTL
    lab.kubectl("patch", "job", gate, "--type=merge", "-p", '{"metadata": {"finalizers": null}}')
    lab.kubectl("wait", "jobs", "-l", selector, "--for=delete", PATIENTLY)
    assert lab.status("short-lived")["phase"] == "Done"
