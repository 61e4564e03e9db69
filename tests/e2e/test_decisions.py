"""What people say to items, on a real cluster: a Decision's own status and the item's tell what became of it.

All items begin at once in one namespace; each test then talks to its own.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e.lab import JSON, PATIENTLY, UNTIL_TOLD, Git, Lab, commands, only, said

pytestmark = pytest.mark.e2e

GATE = "analysis-approved"
ASKS = {"write": {"{docs}/01-questions.md": "How many?\n"}}
NAMES = ("02-brd.md", "03-trz.md", "04-acceptance-criteria.md", "05-test-plan.md")
ANALYSIS = {"write": {f"{{docs}}/{name}": f"{name}\n" for name in NAMES}}
GIVES_UP: dict[str, Any] = {"exit": 1}
NOWHERE = "0" * 40

ITEMS: dict[str, tuple[str, dict[str, Any]]] = {
    # item: its pipeline and its script
    "approved": ("approval", {}),
    "rejected": ("approval", {"keepPrompts": True, "analysis": [None, {**ANALYSIS, "run": UNTIL_TOLD}]}),
    "contradicted": ("approval", {"keepPrompts": True}),
    "improved": ("approval", {}),
    "sent-back": (
        "approval",
        {"keepPrompts": True, "analysis": [None, {**ANALYSIS, "run": UNTIL_TOLD}], "development": [GIVES_UP, None]},
    ),
    "asks": ("plain", {"keepPrompts": True, "analysis": [ASKS, None]}),
    "fails": ("plain", {"keepPrompts": True, "analysis": [GIVES_UP, None]}),
    "empty": ("plain", {"analysis": [{"print": "nothing"}, None]}),
    "mute": ("review", {"review": [{"write": {"{docs}/12-review.md": "Looks fine to me.\n"}}, None]}),
    "aborted-blocked": ("plain", {"analysis": [GIVES_UP]}),
}


@dataclass
class World:
    """The namespace, and the one repository of all its items."""

    lab: Lab
    git: Git

    def told(self, item: str, decision: str) -> tuple[str, str, str]:
        """Result, reason and message of a Decision; the item's record must say the same."""
        status = self.lab.acknowledged(decision)
        record = next(entry for entry in self.lab.status(item)["decisions"] if entry["name"] == decision)
        assert {key: record[key] for key in ("result", "reason", "message")} == {
            key: status[key] for key in ("result", "reason", "message")
        }
        return status["result"], status["reason"], status["message"]


@pytest.fixture(scope="module")
def world(shared_lab: Lab) -> World:
    """All items, under way."""
    lab = shared_lab
    git = lab.repository()
    lab.pipeline("approval", only("analysis", "development", gates=(GATE,)))
    lab.pipeline("plain", only("analysis"))
    lab.pipeline("review", only("review"))
    for name, (pipeline, script) in ITEMS.items():
        lab.item(name, script, pipeline=pipeline)
    return World(lab, git)


def test_approve_is_accepted_once_and_void_for_another_commit(world: World) -> None:
    lab = world.lab
    status = lab.wait_phase("approved", "InReview")
    other = lab.decide("approved", approve={"gate": GATE, "commit": NOWHERE})
    result, reason, message = world.told("approved", other)
    assert (result, reason) == ("Void", "OtherContent")
    assert f"at {status['head']} and say it about that commit" in message
    wrong = lab.decide("approved", approve={"gate": "no-such-gate", "commit": status["head"]})
    result, reason, message = world.told("approved", wrong)
    assert (result, reason) == ("Ignored", "NoSuchGate")
    assert f"there are: {GATE}" in message

    assert "decision.workitems.dev/approved-approve-" in lab.paste(commands(said(status)[1])[0])
    lab.wait_phase("approved", "Done")
    accepted = lab.status("approved")["decisions"][-1]
    assert (accepted["result"], accepted["by"]) == ("Accepted", "team-lead")
    assert lab.acknowledged(accepted["name"])["result"] == "Accepted"

    late = lab.decide("approved", approve={"gate": GATE, "commit": status["head"]})
    assert world.told("approved", late)[:2] == ("Ignored", "ItemFinished")


def test_what_a_person_pushed_and_then_approved_is_approved_without_another_run(world: World) -> None:
    lab = world.lab
    lab.wait_phase("improved", "InReview")
    pushed = world.git.commit("workitem/improved", "docs/work-items/improved/02-brd.md", "Better.\n")
    decision = lab.decide("improved", approve={"gate": GATE, "commit": pushed})
    assert world.told("improved", decision)[:2] == ("Accepted", "Approved")
    status = lab.wait_phase("improved", "Done")
    assert [run["stage"] for run in status["runs"]] == ["analysis", "development"]
    assert world.git.show("workitem/improved", "docs/work-items/improved/02-brd.md") == "Better.\n"


def test_reject_is_accepted_and_a_second_word_on_the_same_gate_is_ignored(world: World) -> None:
    lab = world.lab
    lab.wait_phase("rejected", "InReview")
    first = lab.decide("rejected", comment="The refund case is missing.", reject={"gate": GATE})
    assert world.told("rejected", first)[:2] == ("Accepted", "Rejected")
    second = lab.decide("rejected", comment="And once more.", reject={"gate": GATE})
    assert world.told("rejected", second)[:2] == ("Ignored", "NotAwaited")
    lab.tell(lab.wait("rejected", lambda s: s.get("run") is not None, "its second run")["run"]["job"])
    lab.wait("rejected", lambda s: s["attempts"] == {"analysis": 2} and s["phase"] == "InReview", "InReview again")
    prompt = world.git.show("workitem/rejected", "docs/work-items/rejected/prompt-analysis-2.md")
    assert "The refund case is missing." in prompt


def test_a_reject_beats_an_approve_that_was_there_at_the_same_time(world: World) -> None:
    lab = world.lab
    head = lab.wait_phase("contradicted", "InReview")["head"]
    with lab.operator.asleep():
        approve = lab.decide("contradicted", approve={"gate": GATE, "commit": head})
        reject = lab.decide("contradicted", comment="No.", reject={"gate": GATE})
    assert world.told("contradicted", reject)[:2] == ("Accepted", "Rejected")
    result, reason, message = world.told("contradicted", approve)
    assert (result, reason) == ("Ignored", "NotAwaited")
    assert GATE in message
    lab.wait("contradicted", lambda s: s["attempts"] == {"analysis": 2} and s["phase"] == "InReview", "InReview again")


def test_answer_is_accepted_where_it_was_asked_for_and_nowhere_else(world: World) -> None:
    lab = world.lab
    status = lab.wait_phase("asks", "NeedsInput")
    answered = lab.paste(commands(said(status)[1])[0], **{"YOUR ANSWER": "Three at most"})
    assert "asks-answer-" in answered
    lab.wait_phase("asks", "Done")
    assert "Three at most" in world.git.show("workitem/asks", "docs/work-items/asks/prompt-analysis-2.md")
    lab.wait_phase("aborted-blocked", "Blocked")
    result, reason, message = world.told("aborted-blocked", lab.decide("aborted-blocked", comment="Two.", answer={}))
    assert (result, reason) == ("Ignored", "NoQuestion")
    assert "it is Blocked" in message


@pytest.mark.parametrize(
    ("item", "reason"), [("fails", "AgentFailed"), ("empty", "FilesMissing"), ("mute", "VerdictMissing")]
)
def test_retry_resumes_an_item_whatever_blocked_it(world: World, item: str, reason: str) -> None:
    lab = world.lab
    status = lab.wait_phase(item, "Blocked")
    assert said(status)[0] == reason
    lab.paste(commands(said(status)[1])[-1])
    done = lab.wait_phase(item, "Done")
    assert [run["attempt"] for run in done["runs"]] == [1, 2]
    assert [entry["action"] for entry in done["decisions"]] == ["Retry"]


def test_retry_is_ignored_while_nothing_is_blocked(world: World) -> None:
    lab = world.lab
    lab.wait_phase("rejected", "InReview")
    result, reason, message = world.told("rejected", lab.decide("rejected", retry={}))
    assert (result, reason) == ("Ignored", "NotBlocked")
    assert "InReview" in message


def test_send_back_goes_only_back_and_never_beside_a_run(world: World) -> None:
    lab = world.lab
    lab.approve("sent-back")
    lab.wait_phase("sent-back", "Blocked")
    nowhere = lab.decide("sent-back", sendBack={"stage": "deploy"})
    assert world.told("sent-back", nowhere)[:2] == ("Ignored", "NoSuchStage")
    back = lab.decide("sent-back", comment="Use the existing price type.", sendBack={"stage": "analysis"})
    assert world.told("sent-back", back) == ("Accepted", "SentBack", "continues at stage analysis")
    status = lab.wait("sent-back", lambda s: (s.get("run") or {}).get("stage") == "analysis", "the analysis")
    beside = lab.decide("sent-back", sendBack={"stage": "analysis"})
    result, reason, message = world.told("sent-back", beside)
    assert (result, reason) == ("Ignored", "RunInProgress")
    assert "say it again when it is over" in message
    lab.tell(status["run"]["job"])
    lab.wait_phase("sent-back", "InReview")
    ahead = lab.decide("sent-back", sendBack={"stage": "development"})
    assert world.told("sent-back", ahead)[:2] == ("Ignored", "StageAhead")
    prompt = world.git.show("workitem/sent-back", "docs/work-items/sent-back/prompt-analysis-2.md")
    assert "Use the existing price type." in prompt
    lab.approve("sent-back")
    lab.wait_phase("sent-back", "Done")


def test_abort_stops_the_run_keeps_the_branch_and_ends_the_item(world: World) -> None:
    lab = world.lab
    lab.item("aborted-running", {"analysis": [{"run": UNTIL_TOLD}]}, pipeline="plain")
    lab.running("aborted-running", "analysis")
    job = lab.status("aborted-running")["run"]["job"]
    result, reason, _ = world.told("aborted-running", lab.decide("aborted-running", abort={}))
    assert (result, reason) == ("Accepted", "Aborted")
    status = lab.wait_phase("aborted-running", "Aborted")
    assert said(status) == ("Aborted", "aborted by team-lead; the branch workitem/aborted-running is kept")
    lab.kubectl("wait", "job", job, "--for=delete", PATIENTLY)
    late = lab.decide("aborted-running", retry={})
    assert world.told("aborted-running", late)[:2] == ("Ignored", "ItemFinished")

    lab.wait_phase("aborted-blocked", "Blocked")
    world.told("aborted-blocked", lab.decide("aborted-blocked", abort={}))
    lab.wait_phase("aborted-blocked", "Aborted")


def test_a_decision_about_nobody_is_told_so(world: World) -> None:
    told = world.lab.acknowledged(world.lab.decide("nobody", retry={}))
    assert (told["result"], told["reason"]) == ("Ignored", "NoSuchItem")
    assert "there is no WorkItem nobody in namespace" in told["message"]


def test_a_decision_older_than_the_item_was_said_to_another_one(world: World) -> None:
    lab = world.lab
    with lab.operator.asleep():
        decision = lab.decide("reborn", abort={})
        said_at = lab.get("decision", decision)["metadata"]["creationTimestamp"]
        # The API server's times have whole seconds: an item of the same second would not be younger.
        while time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()) <= said_at:
            time.sleep(0.1)
        lab.item("reborn", pipeline="plain")
    assert world.told("reborn", decision)[:2] == ("Ignored", "OlderThanItem")
    done: JSON = lab.wait_phase("reborn", "Done")
    assert [run["result"] for run in done["runs"]] == ["Succeeded"]
