"""What people say, when it counts, and what they are told."""

from dataclasses import replace
from datetime import timedelta

import pytest

from tests.unit.core.world import DOCUMENTS, End, World, default_pipeline, one_stage, review, writes
from workitems.api import Decision, GateResult
from workitems.core import begin

QUESTIONS = End(writes={"01-questions.md": "One code or many?\n"})
APPROVAL = {"name": "ok", "approval": {}, "onFailure": [{"sendBackTo": "build", "maxAttempts": 2}]}
NEVER = "0" * 39 + "1"


def in_review() -> World:
    world = World()
    world.go(approve=False)
    assert world.at == ("analysis", "InReview")
    return world


def blocked() -> World:
    world = World()
    world.script("analysis", End(exit_code=1))
    world.go()
    assert world.at == ("analysis", "Blocked")
    return world


def needs_input() -> World:
    world = World()
    world.script("analysis", QUESTIONS)
    world.go()
    return world


def running() -> World:
    world = World()
    world.go(until="analysis")
    return world


def done() -> World:
    world = World()
    world.go()
    return world


def test_in_review_the_approve_command_stands_ready_to_paste() -> None:
    world = in_review()
    assert "kubectl -n team-a create -f - <<<" in world.message
    assert f'approve: {{gate: "analysis-approved", commit: "{world.branch.head}"}}' in world.message
    assert 'workItem: "et-12"' in world.message
    assert DOCUMENTS in world.message


def test_approving_the_head_lets_it_go_on() -> None:
    world = in_review()
    name = world.approve()
    world.rest()
    assert world.answer_to(name) == ("Accepted", "Approved")
    assert world.at == ("architecture", "InProgress")
    gate = world.gate("analysis-approved")
    assert (gate.result, gate.commit) == (GateResult.PASSED, world.tasks[-1].expected_head)
    assert gate.message == "approved by team-lead"


def test_approving_another_commit_is_void_and_changes_nothing() -> None:
    world = in_review()
    name = world.approve(commit=NEVER)
    world.rest()
    # Perhaps somebody pushed it: the branch is looked at first, without an agent and without counting as a run.
    assert world.status.run is not None
    assert world.status.run.kind == "Look"
    runs = world.status.usage.runs
    world.end_run()
    world.rest()
    assert world.status.usage.runs == runs
    assert world.answer_to(name) == ("Void", "OtherContent")
    assert world.at == ("analysis", "InReview")
    assert str(world.branch.head) in world.decisions[name]["status"]["message"]


def test_a_person_may_push_better_documents_and_approve_that_commit() -> None:
    world = in_review()
    world.branch.push({f"{DOCUMENTS}/03-trz.md": "improved by the reviewer\n"})
    name = world.approve(commit=world.branch.head)
    world.rest()
    world.end_run()
    world.rest()
    assert world.answer_to(name) == ("Accepted", "Approved")
    assert world.gate("analysis-approved").commit == world.branch.head
    assert world.at == ("architecture", "InProgress")
    world.go()
    assert world.at == ("done", "Done")


@pytest.mark.parametrize("ahead", [timedelta(minutes=2), timedelta(minutes=-2)])
def test_an_api_server_with_another_clock_than_ours_costs_no_look_and_no_approval(ahead: timedelta) -> None:
    """When a Decision was said, and when the pod of a look was made, are both its times."""

    def look() -> None:
        world.rest()
        job = world.run_job()
        assert job.pod is not None
        job.pod = replace(job.pod, created=(world.now + ahead).replace(microsecond=0))
        world.end_run()
        world.rest()

    world = in_review()
    world.pass_time(minutes=5)
    wrong = world.say("approve", {"gate": "analysis-approved", "commit": NEVER}, created=world.now + ahead)
    look()
    assert world.answer_to(wrong) == ("Void", "OtherContent")
    head = world.branch.push({f"{DOCUMENTS}/03-trz.md": "improved by the reviewer\n"})
    right = world.say("approve", {"gate": "analysis-approved", "commit": head}, created=world.now + ahead)
    look()
    assert world.answer_to(right) == ("Accepted", "Approved")


def test_a_look_that_infrastructure_loses_is_repeated_before_the_answer() -> None:
    world = in_review()
    pushed = world.branch.push({f"{DOCUMENTS}/03-trz.md": "improved by the reviewer\n"})
    name = world.approve(commit=pushed)
    world.rest()
    world.end_run(End(reported=False))
    world.rest()
    assert world.reason == "Backoff"
    world.pass_time(minutes=1)
    world.rest()
    world.end_run()
    world.rest()
    assert world.answer_to(name) == ("Accepted", "Approved")


@pytest.mark.parametrize("files", [{f"{DOCUMENTS}/03-trz.md": "improved\n"}, {"src/a.py": "1\n"}], ids=["docs", "code"])
@pytest.mark.parametrize("named", [False, True], ids=["a reject of what is there", "a reject of the commit"])
def test_a_reject_while_the_branch_is_looked_at_beats_the_approves_and_reaches_the_agent(
    files: dict[str, str], named: bool
) -> None:
    world = in_review()
    old = world.branch.head
    pushed = world.branch.push(files)
    approves = [world.approve(commit=pushed)]
    world.rest()
    assert world.status.run is not None
    body = {"gate": "analysis-approved", **({"commit": pushed} if named else {})}
    reject = world.say("reject", body, comment="The refund case is missing.")
    approves.append(world.approve(commit=old))
    world.rest()
    world.end_run()
    world.rest()
    assert world.answer_to(reject) == ("Accepted", "Rejected")
    assert [world.answer_to(name) for name in approves] == [("Ignored", "NotAwaited")] * 2
    assert world.at == ("analysis", "InProgress")
    assert "The refund case is missing." in world.tasks[-1].prompt


def test_a_reject_runs_analysis_again_with_the_comment() -> None:
    world = in_review()
    world.say("reject", {"gate": "analysis-approved"}, comment="The refund case is missing.")
    world.go(until="analysis")
    assert world.tasks[-1].attempt == 2
    assert "rejected by team-lead: The refund case is missing." in world.tasks[-1].prompt
    world.go()
    assert world.at == ("done", "Done")


def test_a_long_reject_reaches_the_agent_whole_and_status_in_short() -> None:
    world = in_review()
    words = "Ж" * 16_384
    world.say("reject", {"gate": "analysis-approved"}, comment=words)
    world.go(until="analysis")
    assert words in world.tasks[-1].prompt
    assert max(len(g.message) for g in world.status.gates) <= 1024


def test_a_long_send_back_reaches_the_agent_whole() -> None:
    world = blocked()
    words = "Ж" * 16_384
    world.say("sendBack", {"stage": "analysis"}, comment=words)
    world.go(until="analysis")
    assert words in world.tasks[-1].prompt


@pytest.mark.parametrize("meanwhile", ["nothing", "suspended"])
def test_what_was_answered_before_a_send_back_reaches_the_agent_with_it(meanwhile: str) -> None:
    world = needs_input()
    world.item["spec"]["suspend"] = meanwhile == "suspended"
    answer = world.say("answer", comment="One code an order.")
    if meanwhile == "suspended":
        world.rest()
    back = world.say("sendBack", {"stage": "analysis"}, comment="Use the existing price type.")
    world.rest()
    assert world.answer_to(answer) == ("Accepted", "Answered")
    assert world.answer_to(back) == ("Accepted", "SentBack")
    world.item["spec"]["suspend"] = False
    world.go(until="analysis")
    prompt = world.tasks[-1].prompt
    assert "One code an order." in prompt
    assert "Use the existing price type." in prompt
    assert f"{DOCUMENTS}/01-questions.md" in world.tasks[-1].include


def test_a_reject_and_a_send_back_at_the_same_time_reach_the_agent_both() -> None:
    world = in_review()
    said = [
        world.say("reject", {"gate": "analysis-approved"}, comment="The refund case is missing."),
        world.say("sendBack", {"stage": "analysis"}, comment="Use the existing price type."),
    ]
    world.rest()
    assert [world.answer_to(name)[0] for name in said] == ["Accepted", "Accepted"]
    prompt = world.tasks[-1].prompt
    assert "The refund case is missing." in prompt
    assert "Use the existing price type." in prompt


def test_rejects_are_bounded() -> None:
    world = World(one_stage(APPROVAL))
    for _ in range(2):
        world.go(approve=False)
        world.say("reject", {"gate": "ok"}, comment="no")
    world.go(approve=False)
    assert world.at == ("build", "Blocked")
    assert world.reason == "ReworkExhausted"
    assert len(world.tasks) == 2


def test_a_reject_beats_an_approve_of_the_same_content() -> None:
    world = in_review()
    approve = world.approve()
    reject = world.say("reject", {"gate": "analysis-approved"}, comment="No.")
    world.rest()
    assert world.answer_to(reject) == ("Accepted", "Rejected")
    assert world.answer_to(approve) == ("Ignored", "NotAwaited")
    assert world.at == ("analysis", "InProgress")
    assert world.tasks[-1].attempt == 2


@pytest.mark.parametrize(
    ("make", "action", "body", "answer"),
    [
        (running, "approve", {"gate": "analysis-approved", "commit": NEVER}, ("Ignored", "NotAwaited")),
        (running, "reject", {"gate": "analysis-approved"}, ("Ignored", "NotAwaited")),
        (running, "answer", {}, ("Ignored", "NoQuestion")),
        (running, "retry", {}, ("Ignored", "NotBlocked")),
        (running, "sendBack", {"stage": "analysis"}, ("Ignored", "RunInProgress")),
        (running, "sendBack", {"stage": "deploy"}, ("Ignored", "StageAhead")),
        (running, "sendBack", {"stage": "nowhere"}, ("Ignored", "NoSuchStage")),
        (running, "abort", {}, ("Accepted", "Aborted")),
        (in_review, "approve", {"gate": "nothing", "commit": NEVER}, ("Ignored", "NoSuchGate")),
        (in_review, "approve", {"gate": "tests-local", "commit": NEVER}, ("Ignored", "NoSuchGate")),
        (in_review, "retry", {}, ("Ignored", "NotBlocked")),
        (in_review, "answer", {}, ("Ignored", "NoQuestion")),
        (in_review, "sendBack", {"stage": "analysis"}, ("Accepted", "SentBack")),
        (needs_input, "approve", {"gate": "analysis-approved", "commit": NEVER}, ("Ignored", "NotAwaited")),
        (needs_input, "reject", {"gate": "analysis-approved"}, ("Ignored", "NotAwaited")),
        (needs_input, "retry", {}, ("Accepted", "Retried")),
        (needs_input, "abort", {}, ("Accepted", "Aborted")),
        (blocked, "answer", {}, ("Ignored", "NoQuestion")),
        (blocked, "retry", {}, ("Accepted", "Retried")),
        (blocked, "sendBack", {"stage": "analysis"}, ("Accepted", "SentBack")),
        (World, "approve", {"gate": "analysis-approved", "commit": NEVER}, ("Ignored", "NotStarted")),
        (World, "retry", {}, ("Ignored", "NotStarted")),
        (World, "abort", {}, ("Accepted", "Aborted")),
        (done, "abort", {}, ("Ignored", "ItemFinished")),
        (done, "retry", {}, ("Ignored", "ItemFinished")),
        (done, "approve", {"gate": "analysis-approved", "commit": NEVER}, ("Ignored", "ItemFinished")),
    ],
)
def test_what_is_said_at_the_wrong_time_is_ignored_with_a_reason(
    make: type[World], action: str, body: dict[str, str], answer: tuple[str, str]
) -> None:
    world = make()
    name = world.say(action, body, comment="words")
    world.rest()
    assert world.answer_to(name) == answer
    assert world.decisions[name]["status"]["message"]
    assert world.decisions[name]["status"]["at"]
    record = next(d for d in world.status.decisions if d.name == name)
    assert (record.result, record.reason, record.by) == (*answer, "team-lead")


def test_what_was_said_to_an_older_item_of_the_same_name_is_ignored() -> None:
    world = in_review()
    name = world.say("abort", created=world.now - timedelta(hours=1))
    world.rest()
    assert world.answer_to(name) == ("Ignored", "OlderThanItem")
    assert world.at == ("analysis", "InReview")


def test_a_lost_acknowledgement_is_written_again_and_the_decision_counts_once() -> None:
    world = in_review()
    world.lose_acknowledgements = True
    name = world.say("reject", {"gate": "analysis-approved"}, comment="No.")
    world.go(until="analysis", approve=False)
    world.lose_acknowledgements = False
    world.end_run()
    world.rest()
    assert world.answer_to(name) == ("Accepted", "Rejected")
    assert world.at == ("analysis", "InReview"), "it was not applied to the second round"
    assert [d.name for d in world.status.decisions] == [name]


def test_a_decision_said_again_under_the_same_name_is_another_one() -> None:
    world = in_review()
    world.say("approve", {"gate": "analysis-approved", "commit": NEVER}, name="mine")
    world.rest()
    world.say("approve", {"gate": "analysis-approved", "commit": world.status.head}, name="mine")
    world.rest()
    assert world.answer_to("mine") == ("Accepted", "Approved")


def test_sixty_decisions_at_once_count_once_each_although_their_acknowledgements_are_lost() -> None:
    world = blocked()
    world.lose_acknowledgements = True
    for _ in range(60):
        world.say("retry")
    for _ in range(3):
        world.step()
    judged = [record.uid for record in world.status.decisions]
    assert len(judged) == len(set(judged)) == 50
    world.lose_acknowledgements = False
    world.rest()
    assert all(d["status"]["result"] for d in world.decisions.values())
    assert [d.result for d in world.status.decisions].count("Accepted") == 0, "the accepted one is history"
    assert sum(d["status"]["result"] == "Accepted" for d in world.decisions.values()) == 1
    assert len(world.tasks) == 2


def test_sixty_decisions_that_wait_for_a_look_keep_no_other_waiting() -> None:
    world = in_review()
    world.item["spec"]["suspend"] = True
    for number in range(60):
        world.approve(commit=f"{number:040x}")
    abort = world.say("abort")
    world.rest(steps=100)
    assert world.answer_to(abort) == ("Accepted", "Aborted")


def test_decisions_are_taken_in_the_order_in_which_they_were_said() -> None:
    world = needs_input()
    later = world.say("answer", comment="second", name="a-later")
    world.decisions[later]["metadata"]["creationTimestamp"] = (world.now + timedelta(seconds=9)).isoformat()
    earlier = world.say("answer", comment="first", name="b-earlier")
    world.rest()
    assert world.answer_to(earlier) == ("Accepted", "Answered")
    assert world.answer_to(later) == ("Ignored", "NoQuestion")


def test_an_approval_is_void_when_a_later_commit_changes_the_documents_and_then_no_run_is_repeated() -> None:
    world = World()
    world.go(until="testing")
    read = world.status.head
    world.branch.push({f"{DOCUMENTS}/03-trz.md": "changed by a person\n"})
    world.end_run()
    world.rest()
    # The run on the pushed branch is set aside; the gates are looked at for the new head.
    assert world.at == ("analysis", "InReview")
    assert world.gate("analysis-approved").commit == world.branch.head
    old = world.approve(commit=read)
    world.rest()
    world.end_run()
    world.rest()
    assert world.answer_to(old) == ("Void", "OtherContent")
    before = len(world.tasks)
    world.approve()
    world.rest()
    assert world.at == ("testing", "InProgress"), "stages whose gates hold are passed without a run"
    assert [t.stage for t in world.tasks[before:]] == ["testing"]
    world.go()
    assert world.at == ("done", "Done")


def test_an_approval_holds_when_only_code_changed_and_either_commit_may_be_named() -> None:
    world = World(one_stage({"name": "doc", "files": ["plan.md"]}, APPROVAL))
    world.script("build", End(writes={"plan.md": "plan\n"}))
    world.go(approve=False)
    first = world.status.head
    world.approve(gate="ok", commit=first)
    world.rest()
    assert world.at == ("done", "Done")


@pytest.mark.parametrize("stage", ["analysis", "architecture", "development"])
def test_send_back_makes_a_stage_and_all_after_it_run_again(stage: str) -> None:
    world = World()
    world.script("testing", End(exit_code=1))
    world.go()
    assert world.at == ("testing", "Blocked")
    before = len(world.tasks)
    world.say("sendBack", {"stage": stage}, comment="Use the existing price type.")
    world.go()
    assert world.at == ("done", "Done")
    order = ["analysis", "architecture", "development", "review", "testing", "deploy"]
    assert [t.stage for t in world.tasks[before:]] == order[order.index(stage) :]
    assert "sent back by team-lead: Use the existing price type." in world.tasks[before].prompt


def test_send_back_while_a_gate_runs_its_command_stops_that_job() -> None:
    world = World()
    world.go(until="development")
    world.end_run()
    world.rest()
    assert len(world.live_gates()) == 1
    world.say("sendBack", {"stage": "development"})
    world.rest()
    assert world.live_gates() == []
    assert len(world.live_runs()) == 1
    world.go()
    assert world.at == ("done", "Done")


def test_abort_deletes_the_job_and_keeps_the_branch() -> None:
    world = running()
    job = world.run_job().name
    world.say("abort", comment="No longer needed.")
    world.rest()
    assert world.at == ("analysis", "Aborted")
    assert job not in world.jobs
    assert world.released == 604_800
    assert "aborted by team-lead; the branch feature/et-12-discounts is kept" in world.message
    succeeded = next(c for c in world.status.conditions if c.type == "Succeeded")
    assert (succeeded.status, succeeded.reason) == ("False", "Aborted")


def test_abort_while_a_gate_runs_deletes_its_job_and_frees_its_place() -> None:
    world = World()
    world.go(until="development")
    world.end_run()
    world.rest()
    assert begin.occupies(world.status)
    world.say("abort")
    world.rest()
    assert world.live_gates() == []
    assert not begin.occupies(world.status)


def test_the_person_who_aborted_is_named_although_others_spoke_after() -> None:
    world = running()
    world.say("abort")
    later = world.say("retry")
    world.decisions[later]["spec"]["by"] = "somebody-else"
    world.rest()
    assert "aborted by team-lead" in world.message
    assert world.answer_to(later) == ("Ignored", "ItemFinished")


LIMITS = {
    "maxRuns": ({"maxRuns": 2}, {"maxRuns": 20}, "MaxRunsReached", "2 of at most 2 runs are used"),
    "maxCostUSD": ({"maxCostUSD": "0.02"}, {"maxCostUSD": "2"}, "MaxCostReached", "0.02 of at most 0.02 USD are used"),
    "maxDuration": ({"maxDuration": "1m"}, {"maxDuration": "9h"}, "MaxDurationReached", "worked on for 1m"),
}


@pytest.mark.parametrize(("limit", "raised", "reason", "says"), LIMITS.values(), ids=LIMITS)
def test_a_limit_blocks_and_a_retry_counts_only_once_it_is_raised(
    limit: dict[str, str], raised: dict[str, str], reason: str, says: str
) -> None:
    world = World(limits=limit)
    world.go()
    assert (world.at[1], world.reason) == ("Blocked", reason)
    assert says in world.message
    assert 'kubectl -n team-a patch workitem et-12 --type merge -p \'{"spec": {"limits":' in world.message
    assert "retry: {}" in world.message
    runs = len(world.tasks)
    early = world.say("retry")
    world.rest()
    assert world.answer_to(early) == ("Ignored", reason)
    world.item["spec"]["limits"] = raised
    world.rest()
    assert world.at[1] == "Blocked", "raising it alone does not start anything"
    world.say("retry", comment="Go on.")
    world.go()
    assert world.at == ("done", "Done")
    assert len(world.tasks) == 6, f"nothing of the first {runs} runs is repeated"
    assert not any("kubectl" in t.prompt for t in world.tasks)


def test_max_duration_leaves_out_the_waits_for_people() -> None:
    world = World(limits={"maxDuration": "20m"})
    world.go(approve=False)
    world.pass_time(hours=50)
    world.go()
    assert world.at == ("done", "Done")
    assert world.status.waited_seconds >= 50 * 3600


def test_retry_of_an_item_that_cannot_start_looks_again() -> None:
    world = World(branch="main")
    world.rest()
    assert world.at == ("created", "Blocked")
    name = world.say("retry")
    world.rest()
    assert world.answer_to(name) == ("Accepted", "Retried")


def test_approval_gates_with_one_name_in_two_stages_are_refused_before_anything_runs() -> None:
    pipeline = default_pipeline()
    pipeline["stages"][1]["gates"].append({"name": "analysis-approved", "approval": {}})
    world = World(pipeline)
    world.rest()
    assert (world.at, world.reason) == (("created", "Blocked"), "PipelineInvalid")
    assert "gate 'analysis-approved' is in stages analysis and architecture" in world.message


def test_after_review_an_approval_of_the_review_is_not_needed_again() -> None:
    world = World()
    world.script("review", review("REQUEST_CHANGES"), review("REQUEST_CHANGES"))
    world.script("development", writes({"/src/a.py": "1"}), writes({"/src/a.py": "2"}))
    world.go()
    assert world.at == ("done", "Done")
    assert len([d for d in world.decisions.values() if "approve" in d["spec"]]) == 1


def test_a_decision_model_reads_back_what_was_said() -> None:
    world = in_review()
    name = world.approve()
    assert Decision.parse(world.decisions[name]).spec.action == "Approve"


def test_no_decision_is_lost_when_the_copy_of_the_pipeline_is_gone() -> None:
    world = in_review()
    saved, world.revisions = world.revisions, {}
    name = world.approve()
    world.rest()
    assert world.answer_to(name) == ("Ignored", "SnapshotMissing")
    assert (world.at[1], world.reason) == ("Blocked", "SnapshotMissing")
    world.revisions = saved
    world.rest()
    assert world.at == ("analysis", "InReview")
    abort = world.say("abort")
    world.revisions = {}
    world.rest()
    assert world.answer_to(abort) == ("Accepted", "Aborted")
    assert world.at[1] == "Aborted"
