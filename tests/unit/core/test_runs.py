"""Runs that do not go as they should: infrastructure, strange pods, strange Jobs, strange reports, limits."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.unit.core.world import DOCUMENTS, EVICTED, START, End, FakeJob, Killed, World, one_stage, writes
from workitems import views
from workitems.api import GateResult, RunKind, RunResult
from workitems.core import conditions, runs
from workitems.core.facts import Admission, ContainerView, JobView, PodView
from workitems.core.facts import Problem as Missing
from workitems.protocol import Problem

LOST = End(reported=False, exit_code=None)


def running() -> World:
    world = World()
    world.go(until="analysis")
    return world


AWAY = Problem(reason="RemoteUnreachable", message="https://git.example.com does not answer", retry=True)
INFRASTRUCTURE = {
    "the pod was evicted": (End(disrupted=EVICTED, reported=False, exit_code=None), "Evicted", "Evicted"),
    "the pod was evicted and its work was published": (End(disrupted=EVICTED, exit_code=143), "Evicted", "Evicted"),
    "the runner left no report": (LOST, "Lost", "ReportLost"),
    "the Job ran into its deadline": (End(deadline=True), "Lost", "DeadlineExceeded"),
    "the agent's container left no exit code": (End(exit_code=None), "Lost", "AgentLost"),
    "the volume failed for a moment": (
        End(problem=Problem(reason="VolumeBroken", message="an I/O error", retry=True)),
        "Lost",
        "VolumeBroken",
    ),
    "the remote was away for longer than the push waits": (
        End(problem=AWAY, worked=True),
        "Lost",
        "RemoteUnreachable",
    ),
}


@pytest.mark.parametrize(("end", "result", "reason"), INFRASTRUCTURE.values(), ids=INFRASTRUCTURE)
def test_infrastructure_is_repeated_after_a_while_as_the_same_attempt_and_never_counted(
    end: End, result: str, reason: str
) -> None:
    world = running()
    world.end_run(end)
    plan = world.rest()
    run = world.status.runs[-1]
    assert (str(run.result), run.reason) == (result, reason)
    assert (world.at, world.reason) == (("analysis", "InProgress"), "Backoff")
    assert plan.requeue_seconds == 10
    assert world.status.infra_retries == 1
    assert world.status.usage.runs == 0
    world.pass_time(seconds=9)
    world.rest()
    assert len(world.created) == 1
    world.pass_time(seconds=2)
    world.rest()
    assert (world.tasks[-1].run, world.tasks[-1].attempt) == (2, 1)
    assert f"again after {reason}" in world.message
    world.go()
    assert world.at == ("done", "Done")
    assert world.status.infra_retries == 0
    assert world.status.rework == ()
    assert world.status.usage.runs == 6


def test_a_runner_that_was_killed_by_its_memory_limit_says_what_to_raise() -> None:
    world = running()
    world.end_run(End(reported=False, exit_code=None, runner_reason="OOMKilled"))
    world.rest()
    run = world.status.runs[-1]
    assert (str(run.result), run.reason) == ("Lost", "ReportLost")
    assert run.message is not None
    assert "(exit code 137, OOMKilled: raise its memory limit, WORKITEMS_RUNNER_MEMORY of the operator)" in run.message


def test_backoff_grows_to_its_limit_and_then_a_person_is_asked() -> None:
    world = World()
    world.script("analysis", *[LOST] * 4)
    delays = []
    for _ in range(4):
        world.go(until="analysis")
        world.end_run(LOST)
        plan = world.rest()
        if plan.requeue_seconds is not None:
            delays.append(plan.requeue_seconds)
            world.pass_time(seconds=plan.requeue_seconds + 1)
    assert delays == [10, 20, 40]
    assert (world.at, world.reason) == (("analysis", "Blocked"), "InfraRetriesExhausted")
    assert "infrastructure failed 4 times in a row" in world.message
    assert "retry: {}" in world.message
    world.scripts.clear()
    world.say("retry")
    world.go()
    assert world.at == ("done", "Done")


def test_a_git_server_that_is_away_is_tried_until_it_answers_and_costs_nothing_but_time() -> None:
    world = World()
    delays = []
    for _ in range(14):
        world.go(until="analysis")
        world.end_run(End(problem=AWAY))
        plan = world.rest()
        assert (world.at, world.reason) == (("analysis", "InProgress"), "RemoteUnreachable")
        assert "the git server has not answered since 2026-11-22 14:00:40 UTC, trying again at" in world.message
        assert "https://git.example.com does not answer" in world.message
        since = world.status.remote_away_since
        assert since is not None
        long = world.now - since >= timedelta(minutes=10)
        hint = "check spec.url of Repository shop (its host, its port), and that pods of namespace team-a may reach it"
        assert (hint in world.message) is long, "a server that is restarted is nobody's mistake"
        assert plan.requeue_seconds is not None
        delays.append(plan.requeue_seconds)
        world.pass_time(seconds=plan.requeue_seconds)
    assert delays[0] == 10
    assert delays == sorted(delays), "it waits as long as it has been away"
    assert delays[-1] == 300
    assert world.now - START > timedelta(hours=1)
    status = world.status
    assert (status.infra_retries, status.usage.runs, status.attempts["analysis"]) == (0, 0, 1)
    world.go()
    assert world.at == ("done", "Done")
    assert world.status.remote_away_since is None
    assert world.status.usage.runs == 6


def test_the_longest_duration_ends_the_wait_for_a_git_server() -> None:
    world = World(limits={"maxDuration": "30m"})
    world.script("analysis", *[End(problem=AWAY)] * 40)
    world.go()
    assert (world.at, world.reason) == (("analysis", "Blocked"), "MaxDurationReached")


def test_a_look_waits_for_its_git_server_too() -> None:
    world = World()
    world.go(approve=False)
    head = world.branch.push({f"{DOCUMENTS}/02-brd.md": "better\n"})
    world.approve(commit=head)
    world.rest()
    for _ in range(8):
        assert world.run_job().task.kind is RunKind.LOOK  # type: ignore[union-attr]
        world.end_run(End(problem=AWAY))
        plan = world.rest()
        assert plan.requeue_seconds is not None
        world.pass_time(seconds=plan.requeue_seconds)
        world.rest()
    world.end_run(End())
    world.rest()
    assert [d["status"]["result"] for d in world.decisions.values()] == ["Accepted"]
    assert world.status.infra_retries == 0


@pytest.mark.slow
def test_sixty_retries_do_not_overflow() -> None:
    world = World(one_stage())
    assert world.pipeline is not None
    world.pipeline["limits"] = {"maxInfraRetries": 60}
    world.script("build", *[LOST] * 60)
    world.go()
    assert world.at == ("done", "Done")
    assert len(world.status.runs) == 20
    assert world.status.last_run == 61


def test_a_report_resets_the_count_of_infrastructure_failures() -> None:
    world = World()
    world.script("analysis", LOST, LOST, writes())
    world.script("architecture", LOST, LOST)
    world.go()
    assert world.at == ("done", "Done")


ENDS = {
    "it ran into its timeout": (
        End(exit_code=124),
        RunResult.TIMED_OUT,
        "TimedOut",
        "ran into its timeout; its work so far is kept",
    ),
    "it ran out of memory": (
        End(exit_code=137, reason="OOMKilled"),
        RunResult.OUT_OF_MEMORY,
        "OutOfMemory",
        "resources.limits.memory of agent analyst in the Pipeline is not set: the default is 4Gi",
    ),
    "it failed": (End(exit_code=2), RunResult.FAILED, "AgentFailed", "exit code 2"),
    "the runner found a problem that waiting does not mend": (
        End(problem=Problem(reason="PromptFileNotFound", message=".openclaw/agents/analyst.md is not a file")),
        RunResult.FAILED,
        "PromptFileNotFound",
        "analyst.md is not a file",
    ),
}


@pytest.mark.parametrize(("end", "result", "reason", "says"), ENDS.values(), ids=ENDS)
def test_blocks_with_what_to_read_and_what_continues(end: End, result: RunResult, reason: str, says: str) -> None:
    world = running()
    job = world.run_job().name
    world.end_run(end)
    world.rest()
    assert (world.at, world.reason) == (("analysis", "Blocked"), reason)
    assert world.status.runs[-1].result is result
    assert says in world.message
    assert f"logs job/{job}" in world.message
    assert "retry: {}" in world.message
    assert world.status.usage.runs == 1
    world.say("retry")
    world.go()
    assert world.at == ("done", "Done")


def test_what_no_run_gets_of_the_branch_is_said_while_it_is_missing() -> None:
    def said(world: World) -> list[tuple[str, str]]:
        return [(c.status, c.message) for c in world.status.conditions if c.type == conditions.FETCHED]

    world = World()
    world.branch.not_fetched = ("submodules", "lfs")
    world.go(until="architecture")
    ((value, message),) = said(world)
    assert value == "False"
    assert message.endswith(
        "lacks submodules, whose folders are empty and files in Git LFS, of which there are only the pointers"
    )
    world.branch.not_fetched = ()
    world.go(until="development")
    assert said(world) == []


def test_out_of_memory_names_the_limit() -> None:
    world = World()
    assert world.pipeline is not None
    world.pipeline["agents"]["analyst"]["resources"] = {"limits": {"memory": "4Gi"}}
    world.script("analysis", End(exit_code=137, reason="OOMKilled"))
    world.go()
    assert "resources.limits.memory of agent analyst in the Pipeline is 4Gi" in world.message
    assert "create the WorkItem anew" in world.message


def test_exit_0_wins_over_the_memory_killer() -> None:
    world = World(one_stage())
    world.script("build", End(exit_code=0, reason="OOMKilled"))
    world.go()
    assert world.at == ("done", "Done")


def broken(**changes: Any) -> Callable[[str], str]:
    """A report with other values, as text."""

    def change(report: str) -> str:
        data = json.loads(report)
        for path, value in changes.items():
            *above, last = path.split("__")
            place = data
            for key in above:
                place = place.setdefault(key, {})
            place[last] = value
        return json.dumps(data)

    return change


REPORTS = {
    "empty": (lambda _: "", "ReportLost"),
    "not JSON": (lambda _: "Traceback (most recent call last):", "ReportLost"),
    "JSON, but no object": (lambda _: "[]", "ReportLost"),
    "truncated": (lambda r: r[:-9], "ReportLost"),
    "half a surrogate": (lambda r: r.replace('"run"', '"\\ud800": 1, "run"'), None),
    "larger than a termination message": (lambda r: r + " " * 4096, "ReportLost"),
    "of another run": (broken(run=99), "ReportLost"),
    "of another item": (broken(uid="another"), "ReportLost"),
    "without a head": (broken(head=None), "ReportIncomplete"),
    "without a tree": (broken(tree=None), "ReportIncomplete"),
    "a head that is no commit": (broken(head="HEAD"), "ReportLost"),
    "too few documents": (broken(blobs=[]), "ReportIncomplete"),
    "a blob that is no hash": (broken(blobs=["x"]), "ReportLost"),
    "without an agent": (broken(agentStarted=False), "AgentNotStarted"),
    "a problem without a known form": (broken(problem={"reason": "a b", "message": "x"}), "ReportLost"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("change", "reason"), REPORTS.values(), ids=REPORTS)
def test_a_report_that_cannot_be_used_is_a_lost_run(change: Callable[[str], str], reason: str | None) -> None:
    world = running()
    world.end_run()
    job = world.run_job()
    assert job.pod is not None
    runner = job.pod.containers["runner"]
    changed = replace(runner, message=change(runner.message))
    job.pod = replace(job.pod, containers={**job.pod.containers, "runner": changed})
    world.rest()
    run = world.status.runs[-1]
    if reason is not None:
        assert (run.result, run.reason) == (RunResult.LOST, reason)
        assert world.status.content is None or reason == "AgentNotStarted"
    world.go()
    assert world.at == ("done", "Done")


USAGES = {
    "no number": ("abc", "0"),
    "not a number": ("NaN", "0"),
    "infinite": ("Infinity", "0"),
    "negative": ("-5", "0"),
    "more than there is": ("1e30", "0"),
    "a float's text": ("2.5e-05", "0.000025"),
    "many digits": ("0.0024312999999999", "0.002431"),
    "zero with an exponent": ("0e999999", "0"),
    "usual": ("1.10", "1.1"),
}


@pytest.mark.parametrize(("cost", "counted"), USAGES.values(), ids=USAGES)
def test_usage_is_taken_as_far_as_it_can_be_true(cost: str, counted: str) -> None:
    world = running()
    world.end_run(replace(End(), cost=cost))
    world.rest()
    assert world.status.usage.cost_usd == counted


@pytest.mark.parametrize("tokens", [-1, 10**400])
def test_tokens_beyond_reason_are_cut(tokens: int) -> None:
    world = running()
    world.end_run()
    job = world.run_job()
    assert job.pod is not None
    runner = job.pod.containers["runner"]
    text = runner.message.replace('"inputTokens": 3', f'"inputTokens": {tokens}')
    job.pod = replace(job.pod, containers={**job.pod.containers, "runner": replace(runner, message=text)})
    world.rest()
    assert 0 <= world.status.usage.input_tokens <= 10**12


@pytest.mark.parametrize("recorded", [False, True], ids=["before it was seen", "after it was seen"])
def test_a_job_deleted_by_hand_is_run_again(recorded: bool) -> None:
    world = World()
    world.step()
    if recorded:
        world.rest()
    assert world.status.run is not None
    world.jobs.pop(world.status.run.job)
    world.go()
    assert world.at == ("done", "Done")
    assert [r.reason for r in world.status.runs].count("JobDeleted") == int(recorded)


def test_a_foreign_job_under_the_runs_name_blocks_without_touching_it() -> None:
    world = World()
    plan = world.step()
    assert world.status.run is not None
    name = world.status.run.job
    world.jobs[name] = FakeJob(name, "foreign-uid", "somebody-else", {}, None, None)
    world.rest()
    assert (world.at, world.reason) == (("analysis", "Blocked"), "JobNameTaken")
    assert name in world.message
    assert "retry: {}" in world.message
    assert name in world.jobs
    assert plan.status.run is not None
    world.say("retry")
    world.go()
    assert world.at == ("done", "Done")


def test_a_job_made_anew_under_the_runs_name_is_stopped_before_the_run_is_repeated() -> None:
    world = running()
    job = world.run_job()
    world.jobs[job.name] = replace(job, uid="made-by-hand")
    world.rest()
    assert job.name not in world.jobs
    assert world.status.runs[-1].reason == "JobReplaced"
    world.go()
    assert world.at == ("done", "Done")


def stuck(world: World, reason: str, message: str) -> None:
    job = world.run_job()
    waiting = ContainerView(reason=reason, message=message)
    containers = {"runner": ContainerView(running=True), "agent": waiting}
    job.pod = PodView("pod-1", "Pending", created=world.now, containers=containers)


@pytest.mark.parametrize("reason", ["ImagePullBackOff", "CreateContainerConfigError", "ErrImagePull"])
def test_a_pod_that_cannot_start_is_told_at_once_and_stopped_after_a_while(reason: str) -> None:
    world = running()
    stuck(world, reason, 'pulling "registry.example.com/nope:1"')
    world.rest()
    assert (world.at, world.reason) == (("analysis", "InProgress"), reason)
    assert "container agent of pod pod-1 cannot start" in world.message
    job = world.run_job().name
    world.pass_time(minutes=3)
    world.rest()
    assert (world.at, world.reason) == (("analysis", "Blocked"), reason)
    assert job not in world.jobs
    assert "nope:1" in world.message
    assert "logs job/" not in world.message, "the Job is gone, and its log"
    assert "the item keeps its Pipeline as it was at the start" in world.message
    world.say("retry")
    world.go()
    assert world.at == ("done", "Done")


def test_a_job_without_a_pod_is_worth_a_sentence_after_a_while() -> None:
    world = running()
    world.run_job().pod = None
    world.rest()
    assert world.reason == "RunInProgress"
    world.pass_time(minutes=1)
    world.rest()
    assert world.reason == "PodMissing"
    assert f"kubectl -n team-a describe job {world.run_job().name}" in world.message


def test_a_pod_that_finds_no_node_or_does_not_start_says_why() -> None:
    world = running()
    world.run_job().pod = PodView("pod-1", "Pending", created=world.now, unschedulable="0/3 nodes: insufficient cpu")
    world.rest()
    assert "insufficient cpu" in world.message
    world.run_job().pod = PodView("pod-1", "Pending", created=world.now)
    world.pass_time(minutes=1)
    world.rest()
    assert "describe pods -l batch.kubernetes.io/job-name=" in world.message


def test_a_pod_that_never_started_ends_by_its_deadline_and_the_cause_is_told() -> None:
    world = running()
    world.run_job().pod = PodView("pod-1", "Pending", created=world.now, unschedulable="0/3 nodes: insufficient cpu")
    world.rest()
    world.run_job().pod = None
    world.run_job().failed = "DeadlineExceeded"
    world.rest()
    run = world.status.runs[-1]
    assert (run.result, run.reason) == ("Lost", "DeadlineExceeded")
    assert "0/3 nodes: insufficient cpu" in (run.message or "")
    assert "0/3 nodes: insufficient cpu" in world.message


def test_no_new_run_starts_before_the_old_pod_is_gone_and_after_five_minutes_its_node_is_named() -> None:
    world = running()
    job = world.run_job()
    assert job.pod is not None
    job.pod = replace(job.pod, deleted=world.now)
    world.rest()
    assert world.reason == "RunInProgress"
    world.pass_time(minutes=6)
    world.rest()
    assert world.reason == "PodTerminating"
    assert "node node-1" in world.message
    assert "kubectl taint nodes node-1 node.kubernetes.io/out-of-service=nodeshutdown:NoExecute" in world.message
    assert len(world.created) == 1


@pytest.mark.parametrize("seconds", [-5, 5])
def test_an_agent_whose_pod_was_deleted_has_not_failed(seconds: int) -> None:
    world = running()
    world.end_run(End(exit_code=143))
    job = world.run_job()
    assert job.pod is not None
    ended = job.pod.containers["agent"].finished_at
    assert ended is not None
    # Later than the end: by the kubelet's own deletion, or by another machine's clock.
    job.pod = replace(job.pod, deleted=ended + timedelta(seconds=seconds))
    world.rest()
    assert world.status.runs[-1].result == "Lost"
    assert world.reason == "Backoff"


@pytest.mark.parametrize(
    ("phase", "said", "disrupted"),
    [
        ("Failed", {"reason": "OutOfcpu", "message": "Node didn't have enough resource: cpu"}, "OutOfcpu: Node didn't"),
        (
            "Failed",
            {"reason": "Terminated", "message": "Pod was terminated by a node shutdown."},
            "Terminated: Pod was",
        ),
        ("Failed", {"reason": "UnexpectedAdmissionError"}, "UnexpectedAdmissionError"),
        ("Running", {"reason": "NodeLost", "message": "Node n1 is unresponsive"}, "NodeLost: Node n1"),
        ("Failed", {}, ""),
    ],
)
def test_what_the_node_says_of_a_pod_is_told(phase: str, said: dict[str, str], disrupted: str) -> None:
    pod = views.pod({"metadata": {"name": "p"}, "status": {"phase": phase, **said}})
    assert pod.disrupted.startswith(disrupted)
    assert bool(pod.disrupted) is bool(disrupted)


def test_a_pods_deletion_was_asked_for_before_its_grace_period() -> None:
    metadata = {"name": "p", "deletionTimestamp": "2026-11-22T12:01:00Z", "deletionGracePeriodSeconds": 60}
    assert views.pod({"metadata": metadata}).deleted == datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def test_a_pod_that_outlives_its_job_still_holds_the_next_run_back() -> None:
    pod = PodView("pod-1", "Running", deleted=START, containers={"agent": ContainerView(running=True)})
    state = runs.state_of(JobView("job", pod=pod), "uid", 1, START + timedelta(seconds=5))
    assert state == runs.Running()
    gone = replace(pod, phase="Failed")
    assert runs.state_of(JobView("job", pod=gone), "uid", 1, START) == runs.Absent()


def test_a_head_that_is_said_to_have_moved_and_has_not_is_repeated_with_backoff() -> None:
    world = running()
    world.end_run(LOST)
    world.branch.commit({"README.md": "x"}, ours=True)
    world.go(until="analysis")
    world.end_run()
    world.go(until="architecture")
    world.end_run(End(problem=Problem(reason="HeadMoved", message="somebody pushed")))
    world.rest()
    assert world.status.runs[-1].reason == "HeadNotMoved"
    assert world.reason == "Backoff"


def test_a_run_whose_report_was_lost_is_found_again_by_the_next_one() -> None:
    world = World()
    world.script("development", writes(reported=False))
    world.go()
    assert world.at == ("done", "Done")
    assert [t.stage for t in world.tasks].count("development") == 2


def test_suspend_before_the_start() -> None:
    world = World(suspend=True)
    world.rest()
    assert world.at == ("created", "Suspended")
    assert "set it to false" in world.message
    world.item["spec"]["suspend"] = False
    world.go()
    assert world.at == ("done", "Done")


def test_suspend_lets_a_live_run_finish_and_starts_no_other() -> None:
    world = running()
    world.item["spec"]["suspend"] = True
    world.end_run()
    world.rest()
    assert world.at == ("analysis", "InReview"), "a person may still read and decide"
    world.approve()
    world.rest()
    assert world.at == ("architecture", "Suspended")
    assert world.gate("analysis-approved").result is GateResult.PASSED
    world.item["spec"]["suspend"] = False
    world.go()
    assert world.at == ("done", "Done")


def test_suspend_starts_no_gates_job_and_keeps_a_hold() -> None:
    world = World()
    world.go(until="development")
    world.item["spec"]["suspend"] = True
    world.end_run()
    world.rest()
    assert world.at == ("development", "Suspended")
    assert world.live_gates() == []
    blocked = World()
    blocked.script("analysis", End(exit_code=1))
    blocked.go()
    blocked.item["spec"]["suspend"] = True
    blocked.rest()
    assert blocked.at == ("analysis", "Blocked")
    blocked.say("abort")
    blocked.rest()
    assert blocked.at == ("analysis", "Aborted")


def test_suspend_during_the_backoff() -> None:
    world = running()
    world.end_run(LOST)
    world.item["spec"]["suspend"] = True
    world.rest()
    world.pass_time(minutes=1)
    world.rest()
    assert world.at == ("analysis", "Suspended")


def test_a_full_pipeline_queues_and_says_behind_what() -> None:
    world = World()
    world.admission = Admission(granted=False, message="10 of 10 runs of Pipeline default are taken")
    world.rest()
    assert (world.at, world.reason) == (("analysis", "Queued"), "Queued")
    assert "10 of 10 runs" in world.message
    world.admission = Admission(granted=True)
    world.go()
    assert world.at == ("done", "Done")


def test_a_missing_repository_heals_by_itself() -> None:
    world = World()
    saved, world.repository = world.repository, None
    plan = world.rest()
    assert (world.at, world.reason) == (("created", "Pending"), "RepositoryNotFound")
    assert plan.requeue_seconds == 15
    world.repository = saved
    world.go()
    assert world.at == ("done", "Done")


def test_a_missing_pipeline_heals_by_itself() -> None:
    world = World()
    saved, world.pipeline = world.pipeline, None
    world.rest()
    assert (world.at, world.reason) == (("created", "Pending"), "PipelineNotFound")
    world.pipeline = saved
    world.go()
    assert world.at == ("done", "Done")


def test_a_repository_deleted_on_the_way_waits_and_heals() -> None:
    world = running()
    saved, world.repository = world.repository, None
    world.end_run()
    world.rest()
    assert world.at == ("analysis", "InReview")
    world.approve()
    world.rest()
    assert (world.at, world.reason) == (("architecture", "Pending"), "RepositoryNotFound")
    world.repository = saved
    world.go()
    assert world.at == ("done", "Done")


def test_a_problem_between_announcement_and_creation_waits_and_heals() -> None:
    world = World()
    world.kill_at = frozenset({4})
    with pytest.raises(Killed):
        world.step()
    assert world.status.run is not None
    assert world.jobs == {}
    world.problem = Missing("SecretNotFound", "Secret shop-git does not exist", blocked=True)
    world.rest()
    assert (world.at, world.reason) == (("analysis", "Blocked"), "SecretNotFound")
    assert world.jobs == {}
    world.problem = None
    world.go()
    assert world.at == ("done", "Done")


def test_the_copy_of_the_pipeline_counts_and_not_its_edits() -> None:
    world = running()
    world.pipeline = one_stage()
    world.go()
    assert len(world.tasks) == 6


def test_a_lost_copy_of_the_pipeline_is_a_condition_even_while_a_run_ends() -> None:
    world = running()
    world.revisions, saved = {}, world.revisions
    world.end_run()
    plan = world.rest()
    assert (world.at[1], world.reason) == ("Blocked", "SnapshotMissing")
    assert plan.requeue_seconds == 15
    world.revisions = saved
    world.go()
    assert world.at == ("done", "Done")


START_PROBLEMS: dict[str, tuple[dict[str, Any], dict[str, Any], str, str]] = {
    "the branch is the base branch": ({"branch": "main"}, {}, "BranchIsBase", "another spec.branch"),
}


@pytest.mark.parametrize(("spec", "repository", "reason", "says"), START_PROBLEMS.values(), ids=START_PROBLEMS)
def test_what_cannot_work_is_said_before_anything_runs(
    spec: dict[str, Any], repository: dict[str, Any], reason: str, says: str
) -> None:
    world = World(repository=repository, **spec)
    world.rest()
    assert (world.at, world.reason) == (("created", "Blocked"), reason)
    assert says in world.message
    assert world.jobs == {}


def test_a_finished_item_does_nothing_whatever_happens() -> None:
    world = World()
    world.go()
    before = world.item["status"]
    world.pass_time(days=400)
    world.pipeline, world.repository, world.revisions = None, None, {}
    plan = world.rest()
    assert world.item["status"] == before
    assert (plan.before, plan.after, plan.requeue_seconds) == ((), (), None)


def test_an_edit_after_the_end_needs_nobody_to_observe_it() -> None:
    world = World()
    world.go()
    before = world.status
    assert {before.observed_generation, *(c.observed_generation for c in before.conditions)} == {None}
    world.item["metadata"]["generation"] = 2
    world.rest()
    assert world.status == before


def test_an_item_that_is_being_deleted_is_left_alone() -> None:
    world = running()
    world.item["metadata"]["deletionTimestamp"] = "2026-11-22T15:00:00Z"
    world.say("abort")
    plan = world.step()
    assert (plan.before, plan.after, plan.status) == ((), (), world.status)


def test_a_task_that_no_annotation_can_hold_is_a_condition_that_heals() -> None:
    world = World(description="\x01" * 65_536)
    world.rest()
    assert (world.at, world.reason) == (("analysis", "Blocked"), "TaskTooLarge")
    assert "shorten spec.description" in world.message
    assert world.jobs == {}
    world.item["spec"]["description"] = "short"
    world.go()
    assert world.at == ("done", "Done")


def test_an_agent_whose_runner_died_is_stopped_and_its_run_repeated() -> None:
    world = running()
    agent = ContainerView(running=True)
    died = ContainerView(exit_code=137, reason="OOMKilled", finished_at=world.now)
    world.run_job().pod = PodView("pod-1", "Running", created=world.now, containers={"runner": died, "agent": agent})
    world.rest()
    assert world.reason == "RunInProgress"
    world.pass_time(minutes=1)
    world.rest()
    assert (world.status.runs[-1].result, world.status.runs[-1].reason) == (RunResult.LOST, "RunnerLost")
    world.pass_time(minutes=1)
    world.rest()
    assert world.status.run is not None
    assert (world.status.run.number, world.status.run.attempt) == (2, 1)
