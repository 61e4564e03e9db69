"""Gates: files, verdicts, approvals, commands; what voids them and in which order they are acted on."""

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.core.world import DOCUMENTS, NAMESPACE, End, FakeJob, World, one_stage, review, writes
from workitems.agents import entry
from workitems.api import GateResult
from workitems.core import begin
from workitems.core.facts import ContainerView, PodView
from workitems.protocol import Problem

TESTS: dict[str, Any] = {
    "name": "tests",
    "command": {"run": ["make", "test"]},
    "onFailure": [{"sendBackTo": "build", "maxAttempts": 3}],
}
OK: dict[str, Any] = {"name": "ok", "approval": {}, "onFailure": [{"hold": "Blocked"}]}
CODE = End(writes={"/src/a.py": "1\n", "plan.md": "plan\n"})


def build(*gates: dict[str, Any], **stage: Any) -> World:
    world = World(one_stage(*gates, **stage))
    world.script("build", CODE)
    return world


def at_gate(*gates: dict[str, Any]) -> World:
    """A world whose command gate's Job is under way."""
    world = build(*(gates or (TESTS,)))
    world.go(until="build")
    world.end_run(CODE)
    world.scripts.clear()
    world.rest()
    assert len(world.live_gates()) == 1
    return world


def test_a_command_that_succeeds_passes_its_gate() -> None:
    world = at_gate()
    assert world.reason == "GateInProgress"
    (name,) = world.live_gates()
    assert f"kubectl -n {NAMESPACE} logs job/{name} -c agent -f" in world.message
    world.end_gate(0)
    world.rest()
    gate = world.gate("tests")
    assert (gate.result, gate.reason, gate.job) == (GateResult.PASSED, "CommandSucceeded", name)
    assert gate.commit == world.branch.head
    assert world.at == ("done", "Done")


@pytest.mark.parametrize(
    ("code", "reason", "says"),
    [(1, "CommandFailed", "exit code 1: E  assert 1 == 2"), (124, "CommandTimedOut", "timed out: E  assert 1 == 2")],
    ids=["a command that fails", "a command that runs into its timeout"],
)
def test_is_rework_with_the_end_of_its_output(code: int, reason: str, says: str) -> None:
    world = at_gate()
    world.end_gate(code, tail="E  assert 1 == 2")
    world.rest()
    assert world.at == ("build", "InProgress")
    assert world.tasks[-1].attempt == 2
    assert f"tests: {says}" in world.tasks[-1].prompt
    assert (world.gate("tests").result, world.gate("tests").reason) == (GateResult.FAILED, reason)


def test_a_command_killed_by_its_memory_limit_says_so() -> None:
    world = at_gate()
    world.end_gate(137, reason="OOMKilled")
    world.rest()
    assert world.gate("tests").message == "killed by its memory limit"


def test_a_command_that_always_fails_is_bounded() -> None:
    world = build(TESTS)
    world.gate_scripts["tests"] = [1] * 9
    world.go()
    assert (world.at, world.reason) == (("build", "Blocked"), "ReworkExhausted")
    assert len(world.tasks) == 3
    assert len([n for n in world.created if "tests" in n]) == 3


def test_a_lost_gate_job_is_an_error_tried_again_and_never_rework() -> None:
    world = at_gate()
    world.end_gate(None)
    world.rest()
    assert world.gate("tests").result is GateResult.ERROR
    assert (world.at, world.reason) == (("build", "InProgress"), "Backoff")
    assert world.status.infra_retries == 1
    world.go()
    assert world.at == ("done", "Done")
    assert world.status.rework == ()
    assert len(world.tasks) == 1
    assert world.gate("tests").tries == 2


def test_a_gate_whose_checkout_was_killed_by_the_memory_limit_says_what_to_raise() -> None:
    world = at_gate()
    (name,) = world.live_gates()
    world.end_gate(None)
    pod = world.jobs[name].pod
    assert pod is not None
    killed = {"runner": ContainerView(exit_code=137, reason="OOMKilled"), "agent": ContainerView()}
    world.jobs[name].pod = replace(pod, disrupted="", containers=killed)
    world.rest()
    assert world.gate("tests").result is GateResult.ERROR
    assert "raise its memory limit, WORKITEMS_RUNNER_MEMORY of the operator" in (world.gate("tests").message or "")


def test_a_gate_whose_checkout_finds_no_git_server_is_tried_until_it_does() -> None:
    world = at_gate()
    away = Problem(reason="RemoteUnreachable", message="https://git.example.com does not answer", retry=True)
    for _ in range(10):
        world.end_gate(None, problem=away)
        plan = world.rest()
        assert (world.at, world.reason) == (("build", "InProgress"), "RemoteUnreachable")
        assert (world.gate("tests").result, world.gate("tests").reason) == (GateResult.ERROR, "RemoteUnreachable")
        assert plan.requeue_seconds is not None
        world.pass_time(seconds=plan.requeue_seconds)
        world.rest()
    assert world.status.infra_retries == 0
    world.go()
    assert world.at == ("done", "Done")
    assert world.status.remote_away_since is None


def test_a_gate_job_that_is_always_lost_blocks_in_the_end() -> None:
    world = at_gate()
    world.gate_scripts["tests"] = [None] * 9
    world.go()
    assert (world.at, world.reason) == (("build", "Blocked"), "InfraRetriesExhausted")
    assert "4 times in a row" in world.message
    assert "retry: {}" in world.message
    world.gate_scripts.clear()
    world.say("retry")
    world.go()
    assert world.at == ("done", "Done")


@pytest.mark.parametrize(
    ("code", "reason", "says"),
    [
        (128, "StartError", 'exec: "/bin/sh": executable file not found'),
        (127, "Error", f"{entry.LACKS_SLEEP}\n"),
    ],
)
def test_a_program_that_the_image_lacks_is_not_the_codes_fault(code: int, reason: str, says: str) -> None:
    world = at_gate()
    world.end_gate(code, reason=reason, tail=says)
    world.rest()
    assert world.gate("tests").result is GateResult.ERROR
    assert says.strip() in world.gate("tests").message
    assert world.status.rework == ()


def test_a_command_that_does_not_exist_is_the_pipelines_or_the_codes_fault() -> None:
    world = at_gate()
    world.end_gate(127, tail="sh: 1: make: not found")
    world.rest()
    assert world.gate("tests").reason == "CommandFailed"
    assert [counted.attempts for counted in world.status.rework] == [1]


@pytest.mark.parametrize("after", [False, True], ids=["before its pod ran", "after its uid was recorded"])
def test_a_gate_job_deleted_by_hand_is_made_again(after: bool) -> None:
    world = build(TESTS)
    world.go(until="build")
    world.end_run(CODE)
    if after:
        world.rest()
    else:
        world.step()
    world.jobs.pop(world.live_gates()[0])
    world.go()
    assert world.at == ("done", "Done")
    assert len(world.tasks) == 1


def test_a_gate_job_made_anew_by_hand_is_stopped_and_the_command_runs_again() -> None:
    world = at_gate()
    (name,) = world.live_gates()
    world.jobs[name] = replace(world.jobs[name], uid="made-by-hand")
    world.rest()
    assert name not in world.jobs
    assert world.gate("tests").reason == "JobDeleted"
    world.go()
    assert world.at == ("done", "Done")


def test_a_gate_pod_stuck_on_its_image_blocks_and_is_deleted() -> None:
    world = at_gate()
    (name,) = world.live_gates()
    waiting = ContainerView(reason="ImagePullBackOff", message='Back-off pulling image "nope"')
    pod = PodView(
        f"{name}-x", "Pending", created=world.now, containers={"runner": ContainerView(exit_code=0), "agent": waiting}
    )
    world.jobs[name].pod = pod
    world.rest()
    assert world.at == ("build", "InProgress")
    assert "ImagePullBackOff" in world.message
    world.pass_time(minutes=3)
    world.rest()
    assert (world.at, world.reason) == (("build", "Blocked"), "ImagePullBackOff")
    assert "retry: {}" in world.message
    assert name not in world.jobs


def test_a_foreign_job_under_the_gates_name_blocks() -> None:
    world = at_gate()
    (name,) = world.live_gates()
    world.jobs[name] = FakeJob(name, "foreign", "somebody", {}, None, None)
    gates = [{k: v for k, v in g.items() if k != "jobUID"} for g in world.item["status"]["gates"]]
    world.item["status"] = {**world.item["status"], "gates": gates}
    world.rest()
    assert (world.at, world.reason) == (("build", "Blocked"), "JobNameTaken")


def test_a_commit_of_documents_does_not_run_the_command_again() -> None:
    world = World()
    world.go()
    assert len([n for n in world.created if "tests-local" in n]) == 1
    assert world.gate("tests-local").commit != world.status.head


def test_a_push_of_code_runs_the_command_and_the_review_again() -> None:
    world = World()
    world.go(until="testing")
    world.branch.push({"src/cart.py": "by a person\n"})
    world.end_run()
    world.rest()
    assert world.at == ("development", "InProgress")
    assert len(world.live_gates()) == 1, "the gate's command first, for the new head"
    world.go(until="review")
    assert world.tasks[-1].attempt == 2
    assert "the code that review-approved judged has changed" in world.tasks[-1].prompt
    assert [(r.gate, r.attempts) for r in world.status.rework] == [("review-approved", 1)]
    world.go()
    assert world.at == ("done", "Done")
    assert [t.stage for t in world.tasks].count("development") == 1


def test_a_push_while_the_agent_works_sets_its_work_aside_and_repeats_the_run() -> None:
    world = World()
    world.go(until="architecture")
    world.branch.push({"src/other.py": "by a person\n"})
    world.end_run()
    world.rest()
    run = world.status.runs[-1]
    assert (run.reason, run.diverted_to) == ("HeadMoved", "workitems/et-12/run-2")
    assert world.at == ("architecture", "InProgress")
    assert world.status.run is not None
    assert (world.status.run.attempt, world.tasks[-1].expected_head) == (1, world.branch.head)
    assert world.status.infra_retries == 0
    assert world.status.usage.runs == 2, "the agent worked: it counts"


def test_a_push_between_two_runs_is_seen_by_the_next_one_before_its_agent_starts() -> None:
    world = World()
    world.go(approve=False)
    world.branch.push({f"{DOCUMENTS}/02-brd.md": "by a person\n"})
    world.approve()
    world.rest()
    world.end_run()
    world.rest()
    assert world.at == ("analysis", "InReview")
    assert world.status.usage.runs == 1, "no agent worked: it does not count"
    world.go()
    assert world.at == ("done", "Done")


def test_reviews_made_void_by_pushes_are_bounded_like_rework() -> None:
    world = World()
    for number in range(3):
        world.go(until="testing")
        world.branch.push({"src/cart.py": f"push {number}\n"})
        world.end_run()
    world.go()
    assert (world.at, world.reason) == (("review", "Blocked"), "ReworkExhausted")
    assert "has used its 3 attempts" in world.message


def test_a_pending_command_before_a_failed_gate_is_run_first() -> None:
    world = build(TESTS, {"name": "other", "files": ["missing.md"]})
    world.go()
    assert world.at == ("build", "Blocked")
    assert world.reason == "FilesMissing"
    assert world.gate("tests").result is GateResult.PASSED


def test_a_command_behind_a_failed_gate_is_not_run() -> None:
    world = build({"name": "other", "files": ["missing.md"]}, TESTS)
    world.go()
    assert world.at == ("build", "Blocked")
    assert not [n for n in world.created if "tests" in n]


def test_an_approval_before_a_failed_gate_is_asked_for_first() -> None:
    world = build(OK, {"name": "other", "files": ["missing.md"]}, TESTS)
    world.go(approve=False)
    assert world.at == ("build", "InReview")
    world.approve("ok")
    world.go()
    assert (world.at, world.reason) == (("build", "Blocked"), "FilesMissing")


def test_commands_run_before_a_person_is_asked() -> None:
    world = build(OK, TESTS)
    world.go(approve=False)
    assert world.at == ("build", "InReview")
    assert world.gate("tests").result is GateResult.PASSED


def test_an_approval_while_the_command_runs_counts() -> None:
    world = at_gate(OK, TESTS)
    name = world.approve("ok")
    world.rest()
    assert world.answer_to(name) == ("Accepted", "Approved")
    world.end_gate(0)
    world.rest()
    assert world.at == ("done", "Done")


def test_a_command_whose_commit_is_no_longer_the_head_is_stopped_before_the_next_one_runs() -> None:
    world = at_gate(OK, TESTS)
    (old,) = world.live_gates()
    pushed = world.branch.push({"src/a.py": "2\n"})
    approve = world.approve("ok", commit=pushed)
    world.rest()
    world.end_run()
    world.rest()
    (new,) = world.live_gates()
    assert new != old
    assert world.answer_to(approve) == ("Accepted", "Approved")
    world.end_gate(0)
    world.rest()
    assert (world.at, world.gate("tests").commit) == (("done", "Done"), pushed)


def test_a_gates_pod_on_a_lost_node_names_the_node() -> None:
    world = at_gate()
    job = world.jobs[world.live_gates()[0]]
    assert job.pod is not None
    job.pod = replace(job.pod, deleted=world.now)
    world.rest()
    assert world.reason == "GateInProgress"
    world.pass_time(minutes=6)
    world.rest()
    assert world.reason == "PodTerminating"
    assert "kubectl taint nodes node-1 node.kubernetes.io/out-of-service" in world.message


def test_a_gates_job_that_does_not_start_says_what_to_look_at() -> None:
    world = at_gate()
    job = world.jobs[world.live_gates()[0]]
    for pod, reason, see in (
        (None, "PodMissing", f"describe job {job.name}"),
        (
            PodView("p", "Pending", created=world.now),
            "PodStarting",
            f"describe pods -l batch.kubernetes.io/job-name={job.name}",
        ),
    ):
        job.pod = pod
        world.pass_time(minutes=1)
        world.rest()
        assert world.reason == reason
        assert f"kubectl -n {NAMESPACE} {see}" in world.message


def test_a_reject_that_holds_leaves_no_gate_job_behind() -> None:
    world = at_gate(OK, TESTS)
    world.say("reject", {"gate": "ok"}, comment="No.")
    world.rest()
    assert (world.at, world.reason) == (("build", "Blocked"), "Rejected")
    assert world.live_gates() == []
    assert not begin.occupies(world.status)
    world.say("retry")
    world.rest()
    assert world.live_gates() == []
    assert len(world.live_runs()) == 1


def test_a_ci_gate_without_a_forge_is_skipped_and_says_why() -> None:
    world = build({"name": "ci", "ci": {}})
    world.go()
    assert (world.gate("ci").result, world.gate("ci").reason) == (GateResult.SKIPPED, "NoForge")
    assert world.at == ("done", "Done")


def test_gates_may_name_files_from_the_repositorys_root_and_use_placeholders() -> None:
    world = build({"name": "log", "files": ["/CHANGELOG.md", "{stage}/{branchTail}.md"]})
    world.scripts["build"] = []
    world.script("build", End(writes={"/CHANGELOG.md": "x\n", "build/et-12-discounts.md": "x\n"}))
    world.go()
    assert world.at == ("done", "Done")


def test_an_unwanted_file_fails_although_the_wanted_ones_are_there() -> None:
    world = build({"name": "done", "files": ["plan.md"], "absent": ["conflict.md"]})
    world.scripts["build"] = []
    world.script("build", End(writes={"plan.md": "x\n", "conflict.md": "no\n"}))
    world.go()
    assert (world.at, world.reason) == (("build", "Blocked"), "FilePresent")
    assert "conflict.md is there" in world.message


def test_a_gate_that_failed_for_two_reasons_tells_the_agent_both() -> None:
    world = World(
        one_stage(
            {"name": "a", "files": ["a.md"], "onFailure": [{"sendBackTo": "build"}]}, {"name": "b", "files": ["b.md"]}
        )
    )
    world.script("build", End())
    world.go(until="build")
    world.end_run(End())
    world.rest()
    assert "- a: a.md is missing" in world.tasks[-1].prompt
    assert "- b: b.md is missing" in world.tasks[-1].prompt


def test_a_stage_without_gates_is_passed() -> None:
    world = build()
    world.go()
    assert world.at == ("done", "Done")


def test_a_gate_is_checked_again_but_its_since_stays_while_it_holds() -> None:
    world = World()
    world.go(until="review")
    before = world.gate("analysis-complete")
    world.script("review", review("REQUEST_CHANGES"), writes())
    world.go()
    assert world.gate("analysis-complete") == before


def test_the_tries_of_a_gate_never_repeat_a_job_name() -> None:
    world = build(TESTS)
    world.gate_scripts["tests"] = [None, 1, None, None, 0]
    world.go()
    assert world.at == ("done", "Done")
    names = [n for n in world.created if "tests" in n]
    assert len(names) == 5
    assert set(world.created.values()) == {1}
    pods = {name: replace(view) for name, view in ((n, world.jobs[n].pod) for n in names) if view is not None}
    assert len(pods) == 5
