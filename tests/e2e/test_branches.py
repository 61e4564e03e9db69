"""Every branch of the default pipeline on a real cluster: who gets the work next, with what in hand, and when a person.

All items begin at once in one namespace; each test then waits for its own. Pipelines have only the stages that a
branch needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e.lab import UNTIL_TOLD, Git, Lab, commands, job_of, only, said

pytestmark = pytest.mark.e2e

NO_PRINT = {"print": "Nothing to write."}
CHANGES = {"write": {"{docs}/12-review.md": "---\nverdict: REQUEST_CHANGES\n---\nThe refund case is untested.\n"}}
APPROVED = {"write": {"{docs}/12-review.md": "Verdict: APPROVED\n"}}
FAILS = {"write": {"{docs}/13-test-report.md": "Verdict: FAIL\n\nTwo of nine tests fail.\n"}}
BROKEN = {"write": {"src/feature.txt": "BROKEN\n"}}
DOCUMENTS = "docs/work-items"

SCRIPTS: dict[str, tuple[str, dict[str, Any]]] = {
    # item: its pipeline and its script
    "asks": ("analysis", {"analysis": [{"write": {"{docs}/01-questions.md": "How many codes an order?\n"}}, None]}),
    "empty": ("analysis", {"analysis": [NO_PRINT]}),
    "conflict": (
        "design",
        {"architecture": [{"write": {"{docs}/10-conflict.md": "Prices are integers here.\n"}}, None]},
    ),
    "changes": ("review", {"review": [CHANGES, None], "development": [{"write": {"src/feature.txt": "1\n"}}, None]}),
    "stubborn": ("review", {"review": [CHANGES, CHANGES, CHANGES, None]}),
    "untested": ("testing", {"testing": [FAILS, FAILS, FAILS, None]}),
    "broken": ("command", {"development": [BROKEN, None]}),
    "rolled-back": ("release", {"deploy": [{"print": "rolled back", "exit": 1}, None]}),
    "moved-documents": ("approval", {}),
}
PIPELINES = {
    "analysis": only("analysis"),
    "design": only("analysis", "architecture"),
    "review": only("development", "review"),
    "testing": only("development", "testing"),
    "command": only("development", gates=("tests-local",)),
    "release": only("development", "deploy"),
    "approval": only("analysis", "development", gates=("analysis-approved",)),
    "whole": only("development", "review", "testing", gates=("tests-local",)),
}
FAILING = ("analysis", "architecture", "development", "review", "testing")


@dataclass
class World:
    """The namespace, and the one repository of all its items."""

    lab: Lab
    git: Git

    def prompt(self, item: str, stage: str, attempt: int) -> str:
        """What an agent was told."""
        return self.git.show(f"workitem/{item}", f"{DOCUMENTS}/{item}/prompt-{stage}-{attempt}.md")


@pytest.fixture(scope="module")
def world(shared_lab: Lab) -> World:
    """All items, under way."""
    lab = shared_lab
    git = lab.repository()
    for name, change in PIPELINES.items():
        lab.pipeline(name, change)
    for name in FAILING:
        lab.pipeline(f"only-{name}", only(name))
        failing = {name: [{"write": {"docs/half.md": "half\n"}, "print": f"{name} gives up", "exit": 3}]}
        lab.item(f"failing-{name}", failing, pipeline=f"only-{name}")
    for name, (pipeline, script) in SCRIPTS.items():
        lab.item(name, {"keepPrompts": True, **script}, pipeline=pipeline)
    return World(lab, git)


def test_questions_need_input_and_the_answer_reaches_the_analyst_with_the_questions(world: World) -> None:
    lab = world.lab
    status = lab.wait_phase("asks", "NeedsInput")
    reason, message = said(status)
    assert reason == "QuestionsAsked"
    assert "01-questions.md is there" in message
    answer = 'One: `$(reboot)`, "two" and $HOME stay text.'
    decision = lab.decide("asks", comment=answer, answer={})
    status = lab.wait_phase("asks", "Done")

    assert lab.acknowledged(decision)["result"] == "Accepted"
    prompt = world.prompt("asks", "analysis", 2)
    assert answer in prompt
    assert "How many codes an order?" in prompt
    assert f"{DOCUMENTS}/asks/01-questions.md" not in world.git.files("workitem/asks")
    assert [run["attempt"] for run in status["runs"]] == [1, 2]


def test_neither_documents_nor_questions_is_blocked_and_says_exactly_that(world: World) -> None:
    reason, message = said(world.lab.wait_phase("empty", "Blocked"))
    assert reason == "FilesMissing"
    assert message.startswith(
        "finished with gate analysis-complete failed: 02-brd.md, 03-trz.md, 04-acceptance-criteria.md, 05-test-plan.md "
        "are missing or empty in docs/work-items/empty, and without 01-questions.md. Then: kubectl -n "
    )


def test_a_conflict_goes_back_to_the_analysis_with_the_conflict_in_its_prompt(world: World) -> None:
    status = world.lab.wait_phase("conflict", "Done")
    assert [run["stage"] for run in status["runs"]] == ["analysis", "architecture", "analysis", "architecture"]
    assert "Prices are integers here." in world.prompt("conflict", "analysis", 2)
    assert f"{DOCUMENTS}/conflict/10-conflict.md" not in world.git.files("workitem/conflict")
    assert status["rework"] == [{"gate": "architecture-done", "attempts": 1}]


def test_requested_changes_go_to_the_developer_with_the_findings(world: World) -> None:
    status = world.lab.wait_phase("changes", "Done")
    assert [run["stage"] for run in status["runs"]] == ["development", "review", "development", "review"]
    prompt = world.prompt("changes", "development", 2)
    assert "The refund case is untested." in prompt
    assert "12-review.md says REQUEST_CHANGES" in prompt
    assert world.git.show("workitem/changes", f"{DOCUMENTS}/changes/12-review.md").count("APPROVED") == 1


@pytest.mark.parametrize(
    ("item", "stage", "gate"), [("stubborn", "review", "review-approved"), ("untested", "testing", "tests-passed")]
)
def test_rework_is_bounded_then_blocked_and_a_retry_begins_anew(world: World, item: str, stage: str, gate: str) -> None:
    lab = world.lab
    status = lab.wait_phase(item, "Blocked")
    reason, message = said(status)
    assert reason == "ReworkExhausted"
    assert f"{gate} failed again and stage development has used its 3 attempts" in message
    assert status["stage"] == "development"
    assert [run["stage"] for run in status["runs"]] == ["development", stage] * 3
    assert status["rework"] == [{"gate": gate, "attempts": 3}]
    lab.paste(commands(message)[0])
    status = lab.wait_phase(item, "Done")
    assert [run["stage"] for run in status["runs"]] == ["development", stage] * 4


def test_a_failing_command_gate_tells_the_developer_what_it_printed(world: World) -> None:
    status = world.lab.wait_phase("broken", "Done")
    assert [run["stage"] for run in status["runs"]] == ["development", "development"]
    assert "src/feature.txt is BROKEN" in world.prompt("broken", "development", 2)
    gate = next(gate for gate in status["gates"] if gate["name"] == "tests-local")
    assert (gate["result"], gate["attempt"]) == ("Passed", 2)
    assert gate["commit"] == status["head"]


def test_a_failed_deploy_waits_in_development_for_a_person_and_reruns_nothing(world: World) -> None:
    lab = world.lab
    status = lab.wait_phase("rolled-back", "Blocked")
    assert status["stage"] == "development"
    assert said(status)[0] == "AgentFailed"
    assert (status["lastRun"], status.get("run")) == (2, None)
    lab.paste(commands(said(status)[1])[-1])
    status = lab.wait_phase("rolled-back", "Done")
    assert [run["stage"] for run in status["runs"]] == ["development", "deploy"] * 2
    assert "rolled back" in world.prompt("rolled-back", "development", 2)


@pytest.mark.parametrize("stage", FAILING)
def test_any_agents_failure_is_blocked_with_a_log_command_that_works(world: World, stage: str) -> None:
    lab = world.lab
    status = lab.wait_phase(f"failing-{stage}", "Blocked")
    reason, message = said(status)
    assert reason == "AgentFailed"
    assert status["stage"] == stage
    assert "the agent ended with exit code 3" in message
    assert f"{stage} gives up" in message
    log, retry = commands(message)
    assert f"{stage} gives up" in lab.paste(log)
    assert "retry: {}" in retry
    assert status["runs"][0]["exitCode"] == 3
    assert world.git.show(f"workitem/failing-{stage}", "docs/half.md") == "half\n"


def test_an_approval_is_void_when_its_documents_change_later(world: World) -> None:
    lab = world.lab
    waiting = lab.wait_phase("moved-documents", "InReview")
    edited = world.git.commit("workitem/moved-documents", f"{DOCUMENTS}/moved-documents/02-brd.md", "Another one.\n")
    approve = {"gate": "analysis-approved", "commit": waiting["head"]}
    assert lab.acknowledged(lab.decide("moved-documents", approve=approve))["result"] == "Accepted"
    status = lab.wait(
        "moved-documents", lambda s: s["phase"] == "InReview" and s["head"] == edited, "InReview of the new head"
    )

    assert status["stage"] == "analysis"
    gate = next(gate for gate in status["gates"] if gate["name"] == "analysis-approved")
    assert (gate["result"], gate["reason"], gate["commit"]) == ("Pending", "WaitingForApproval", edited)
    lab.paste(commands(said(status)[1])[0])
    status = lab.wait_phase("moved-documents", "Done")
    runs = [(run["stage"], run["result"]) for run in status["runs"]]
    assert runs == [("analysis", "Succeeded"), ("development", "Lost"), ("development", "Succeeded")]
    assert status["runs"][1]["reason"] == "HeadMoved"


def test_after_a_persons_push_between_stages_the_gates_look_again(world: World) -> None:
    lab, git = world.lab, world.git
    lab.item("moved-code", {"keepPrompts": True, "review": [{**APPROVED, "run": UNTIL_TOLD}, None]}, pipeline="whole")
    pod = lab.running("moved-code", "review")
    lab.suspend("moved-code")
    lab.tell(job_of(pod))
    lab.wait_phase("moved-code", "Suspended")
    pushed = git.commit("workitem/moved-code", "src/feature.txt", "BROKEN\n", "Cleverer")
    lab.suspend("moved-code", False)
    status = lab.wait_phase("moved-code", "Done")

    runs = [(run["stage"], run["result"]) for run in status["runs"]]
    # The tester finds the push; tests-local fails at it; the developer mends it; all later stages look again.
    assert runs == [
        ("development", "Succeeded"),
        ("review", "Succeeded"),
        ("testing", "Lost"),
        ("development", "Succeeded"),
        ("review", "Succeeded"),
        ("testing", "Succeeded"),
    ]
    assert "src/feature.txt is BROKEN" in world.prompt("moved-code", "development", 2)
    assert pushed in git("log", "--format=%H", "workitem/moved-code").split()
    assert {gate["result"] for gate in status["gates"]} == {"Passed"}
    assert status["rework"] == [{"gate": "tests-local", "attempts": 1}]
