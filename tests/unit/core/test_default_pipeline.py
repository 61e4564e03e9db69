"""The six-agent Pipeline as users get it: the whole way, and every way back."""

import pytest

from tests.unit.core.world import DOCUMENTS, End, World, good, review, writes
from workitems.api import GateResult, RunResult

QUESTIONS = End(writes={"01-questions.md": "One code or many?\n"})
FAIL = End(writes={"13-test-report.md": "Verdict: FAIL\n\ntest_refund fails.\n"})


def runs(world: World) -> list[str]:
    return [task.stage for task in world.tasks]


def test_an_item_goes_all_the_way_with_one_approval() -> None:
    world = World()
    world.go()
    assert world.at == ("done", "Done")
    assert runs(world) == ["analysis", "architecture", "development", "review", "testing", "deploy"]
    assert {g.name: str(g.result) for g in world.status.gates} == {
        "analysis-complete": "Passed",
        "analysis-approved": "Passed",
        "architecture-done": "Passed",
        "ci-green": "Skipped",
        "tests-local": "Passed",
        "review-approved": "Passed",
        "tests-passed": "Passed",
    }
    status = world.status
    assert status.usage.runs == 6
    assert status.usage.cost_usd == "0.06"
    assert status.usage.input_tokens == 18
    assert status.head == world.branch.head
    assert all(count == 1 for count in world.created.values())
    assert len(world.claims) == 1
    assert world.released == 604_800
    assert [r.commit for r in status.runs][-1] == world.branch.head
    assert status.rework == ()


def test_questions_wait_for_an_answer_which_reaches_the_next_prompt_with_the_questions() -> None:
    world = World()
    world.script("analysis", QUESTIONS)
    world.go()
    assert world.at == ("analysis", "NeedsInput")
    assert world.reason == "QuestionsAsked"
    assert "01-questions.md is there" in world.message
    assert "kubectl -n team-a create -f - <<<" in world.message
    assert "answer: {}" in world.message
    world.say("answer", comment="One code per order, $(percentages) only.")
    world.go(until="analysis")
    task = world.tasks[-1]
    assert "One code per order, $(percentages) only." in task.prompt
    assert task.include == (f"{DOCUMENTS}/01-questions.md",)
    assert f"{DOCUMENTS}/01-questions.md" in task.remove
    world.go()
    assert world.at == ("done", "Done")
    assert world.tasks[2].stage == "architecture"
    assert "percentages" not in world.tasks[2].prompt


def test_an_answer_is_not_forgotten_by_a_run_that_fails() -> None:
    world = World()
    world.script("analysis", QUESTIONS, End(exit_code=3, tail="no model key"))
    world.go()
    world.say("answer", comment="One code per order.")
    world.go()
    assert world.at == ("analysis", "Blocked")
    world.say("retry", comment="The key is renewed.")
    world.go(until="analysis")
    assert "One code per order." in world.tasks[-1].prompt
    assert "The key is renewed." in world.tasks[-1].prompt
    assert world.tasks[-1].include == (f"{DOCUMENTS}/01-questions.md",)


def test_findings_are_not_forgotten_by_a_run_that_fails() -> None:
    world = World()
    world.script("review", review("REQUEST_CHANGES"))
    world.script("development", writes(), End(exit_code=3))
    world.go()
    assert world.at == ("development", "Blocked")
    world.say("retry")
    world.go(until="development")
    assert "The price type is wrong." in world.tasks[-1].prompt
    assert world.tasks[-1].include == (f"{DOCUMENTS}/12-review.md",)


def test_neither_artifacts_nor_questions_is_blocked_and_says_exactly_that() -> None:
    world = World()
    world.script("analysis", End())
    world.go()
    assert world.at == ("analysis", "Blocked")
    assert world.reason == "FilesMissing"
    missing = "02-brd.md, 03-trz.md, 04-acceptance-criteria.md, 05-test-plan.md are missing or empty"
    assert missing in world.message
    assert "without 01-questions.md" in world.message
    assert "retry: {}" in world.message
    world.say("retry", comment="Write them.")
    world.go()
    assert world.at == ("done", "Done")
    assert "02-brd.md" in world.tasks[1].prompt
    assert "Write them." in world.tasks[1].prompt


@pytest.mark.parametrize(
    ("text", "passes"),
    [("words\n", True), ("", False)],
    ids=["a file with words is there", "an empty file is not there"],
)
def test_a_document_must_have_a_word_in_it(text: str, passes: bool) -> None:
    world = World()
    world.script("analysis", writes({"02-brd.md": text}))
    world.go(approve=False)
    assert world.at == ("analysis", "InReview" if passes else "Blocked")


def test_a_conflict_sends_back_to_analysis_with_the_conflict_in_the_prompt() -> None:
    world = World()
    world.script("architecture", End(writes={"10-conflict.md": "03 contradicts 04\n"}))
    world.go(until="architecture")
    world.go(until="analysis")
    task = world.tasks[-1]
    assert (task.stage, task.attempt) == ("analysis", 2)
    assert task.include == (f"{DOCUMENTS}/10-conflict.md",)
    assert "architecture-done: 10-conflict.md is there" in task.prompt
    assert [(r.gate, r.attempts) for r in world.status.rework] == [("architecture-done", 1)]
    world.go()
    assert world.at == ("done", "Done")
    assert runs(world)[:4] == ["analysis", "architecture", "analysis", "architecture"]
    assert len([d for d in world.decisions if d.startswith("approve")]) == 2, "the approval is asked for again"


def test_request_changes_sends_back_to_development_with_the_findings() -> None:
    world = World()
    world.script("review", review("REQUEST_CHANGES"))
    world.go()
    assert world.at == ("done", "Done")
    assert runs(world)[2:6] == ["development", "review", "development", "review"]
    again = world.tasks[4]
    assert again.attempt == 2
    assert again.include == (f"{DOCUMENTS}/12-review.md",)
    assert "review-approved: 12-review.md says REQUEST_CHANGES" in again.prompt
    assert "The price type is wrong." in again.prompt
    assert [(r.gate, r.attempts) for r in world.status.rework] == [("review-approved", 1)]


@pytest.mark.parametrize(
    ("stage", "bad", "gate"),
    [("review", review("REQUEST_CHANGES"), "review-approved"), ("testing", FAIL, "tests-passed")],
    ids=["a review that never approves", "tests that never pass"],
)
def test_rework_ends_after_the_targets_third_run(stage: str, bad: End, gate: str) -> None:
    world = World()
    world.script(stage, *[bad] * 9)
    world.go()
    assert world.at == ("development", "Blocked")
    assert world.reason == "ReworkExhausted"
    assert runs(world).count("development") == 3
    assert runs(world).count(stage) == 3
    assert "stage development has used its 3 attempts" in world.message
    assert "retry: {}" in world.message
    assert [(r.gate, r.attempts) for r in world.status.rework] == [(gate, 3)]
    assert world.gate(gate).result is GateResult.FAILED, "the evidence stays visible"
    world.go()
    assert runs(world).count("development") == 3, "nothing happens without a person"
    world.say("retry", comment="Use the existing price type.")
    world.go(until="development")
    assert runs(world).count("development") == 4
    assert "Use the existing price type." in world.tasks[-1].prompt
    assert world.status.rework == ()


def test_failing_tests_send_back_to_development() -> None:
    world = World()
    world.script("testing", FAIL)
    world.go()
    assert world.at == ("done", "Done")
    assert runs(world)[4:8] == ["testing", "development", "review", "testing"]
    assert "test_refund fails." in world.tasks[5].prompt


def test_a_failed_deployment_waits_at_development_and_never_reruns_by_itself() -> None:
    world = World()
    world.script("deploy", End(exit_code=1, tail="rolled back"))
    world.go()
    assert world.at == ("development", "Blocked")
    assert world.reason == "AgentFailed"
    assert "rolled back" in world.message
    assert "retry: {}" in world.message
    before = len(world.tasks)
    world.pass_time(hours=30)
    world.go()
    assert len(world.tasks) == before
    world.say("retry")
    world.go(until="development")
    assert "rolled back" in world.tasks[-1].prompt
    world.go()
    assert world.at == ("done", "Done")


def test_a_failed_agent_is_blocked_with_the_command_that_shows_its_log() -> None:
    world = World()
    world.script("architecture", End(exit_code=2, tail="Error: invalid api key"))
    world.go()
    assert world.at == ("architecture", "Blocked")
    (job,) = [name for name in world.jobs if "architecture" in name]
    assert f"kubectl -n team-a logs job/{job} --all-containers" in world.message
    assert "exit code 2: Error: invalid api key" in world.message
    assert world.status.runs[-1].exit_code == 2
    assert world.status.runs[-1].pushed is False


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("No verdict.\n", "VerdictMissing"),
        (None, "VerdictMissing"),
        ("Verdict: APPROVED\nVerdict: REQUEST_CHANGES\n", "VerdictAmbiguous"),
        ("Verdict: LGTM\n", "VerdictUnknown"),
    ],
    ids=["no verdict", "no file", "two verdicts", "an unknown word"],
)
def test_only_one_known_verdict_counts(text: str | None, reason: str) -> None:
    world = World()
    world.script("review", End(writes={"12-review.md": text}))
    world.go(until="review")
    world.go(until="development")
    gate = world.gate("review-approved")
    assert (gate.result, gate.reason) == (GateResult.FAILED, reason)
    assert "APPROVED, REQUEST_CHANGES" in gate.message


def test_an_old_verdict_never_counts_for_a_new_run() -> None:
    world = World()
    world.branch.commit({"README.md": "x", f"{DOCUMENTS}/12-review.md": "Verdict: APPROVED\n"}, ours=False)
    world.item["spec"]["adoptBranch"] = True
    world.script("review", End())
    world.go(until="review")
    world.go(until="development")
    assert world.gate("review-approved").reason == "VerdictMissing"


def test_every_run_stands_in_the_history() -> None:
    world = World()
    world.script("review", review("REQUEST_CHANGES"))
    world.go()
    history = world.status.runs
    assert [r.number for r in history] == list(range(1, 9))
    assert all(r.result is RunResult.SUCCEEDED and r.exit_code == 0 for r in history)
    assert all(r.started_at < r.finished_at for r in history)
    assert [r.attempt for r in history if r.stage == "development"] == [1, 2]


def test_the_prompt_begins_with_fixed_words_and_keeps_the_description_byte_for_byte() -> None:
    world = World(description="/compact\n`$(reboot)` $$ {item}\r\n\ttab", title="/quit {branch}")
    world.go(until="analysis")
    prompt = world.tasks[0].prompt
    assert prompt.startswith("You are the analyst of work item et-12")
    assert "/compact\n`$(reboot)` $$ {item}\r\n\ttab" in prompt
    assert "/quit {branch}" in prompt
    assert good(world.tasks[0])
