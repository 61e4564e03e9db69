"""What Kubernetes says of a run's Job and pods when things happen late or in another order than usual.

JSON as kubelet, Job controller and API server write it; where in their sources (1.34) stands with each case.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from workitems import views
from workitems.api import RunReport
from workitems.core import runs
from workitems.protocol import Problem

JSON = dict[str, Any]

NOW = datetime(2026, 11, 27, 12, 0, 0, tzinfo=UTC)
UID, JOB_UID = "item-uid", "job-uid"
PUBLISHED = RunReport(run=1, uid=UID, agent_started=True).dumps()


def at(seconds: float) -> str:
    return (NOW + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def ended(code: int, reason: str = "", message: str = "", finished: float | None = -1) -> JSON:
    said = {"exitCode": code, "reason": reason or ("Error" if code else "Completed"), "message": message}
    return {"terminated": said | ({} if finished is None else {"finishedAt": at(finished)})}


def pod(phase: str, states: dict[str, JSON], name: str = "pod-1", created: float = -60, **more: JSON) -> JSON:
    statuses = [{"name": container, "state": state} for container, state in states.items()]
    owner = {"uid": JOB_UID, "controller": True}
    metadata = {"name": name, "creationTimestamp": at(created), "ownerReferences": [owner], **more.get("metadata", {})}
    status = {"phase": phase, "containerStatuses": statuses, **more.get("status", {})}
    return {"metadata": metadata, "spec": {"nodeName": "node-1"}, "status": status}


def of_run(*pods: JSON, conditions: tuple[JSON, ...] = ()) -> runs.RunState:
    return runs.state_of(views.job("job-1", job(conditions), list(pods)), UID, 1, NOW)


def of_gate(*pods: JSON, conditions: tuple[JSON, ...] = ()) -> object:
    return runs.gate_state_of(views.job("job-1", job(conditions), list(pods)), UID, NOW)


def job(conditions: tuple[JSON, ...] = ()) -> JSON:
    owner = {"uid": UID, "controller": True}
    return {"metadata": {"uid": JOB_UID, "ownerReferences": [owner]}, "status": {"conditions": list(conditions)}}


def reason(state: object) -> str:
    assert isinstance(state, runs.Ended | runs.GateEnded)
    return state.reason


# kubelet.go, SyncTerminatingPod, sends what the containers' ends were while it is still at it; status_manager.go,
# mergePodStatus, keeps phase, reason and DisruptionTarget back until no container can run any more. Where the sandbox
# takes several attempts to stop, that is minutes.
EVICTED = {
    "reason": "Evicted",
    "message": "The node was low on resource: memory. ",
    "conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet"}],
}


@pytest.mark.parametrize("code", [143, 137, 1])
def test_how_a_killed_container_ended_is_not_judged_before_its_pod_says_why(code: int) -> None:
    killed = {"runner": ended(0, message=PUBLISHED), "agent": ended(code)}
    assert of_run(pod("Running", killed)) == runs.Running()
    assert reason(of_run(pod("Failed", killed, status=EVICTED))) == "Evicted"
    assert of_gate(pod("Running", {"runner": ended(0), "agent": ended(code)})) == runs.Running()
    lost = of_gate(pod("Failed", {"runner": ended(0), "agent": ended(code)}, status=EVICTED))
    assert isinstance(lost, runs.GateEnded)
    assert not lost.judged


def test_what_ended_well_ended_well_before_its_pod_says_so() -> None:
    assert reason(of_run(pod("Running", {"runner": ended(0, message=PUBLISHED), "agent": ended(0)}))) == "Succeeded"


def test_a_pod_that_is_slow_to_say_why_it_ended_has_not_lost_its_runner() -> None:
    states = {"runner": ended(0, message=PUBLISHED, finished=-90), "agent": ended(1, finished=-91)}
    assert of_run(pod("Running", states)) == runs.Running()
    assert of_run(pod("Running", {"runner": ended(1, finished=-90)})) == runs.Running()


# Exit codes that nobody's program ended with: the kubelet's for a container that it does not find any more
# (kubelet_pods.go, convertToAPIContainerStatuses; status_manager.go, TerminatePod) and containerd's for one that ran
# when the node went down (cri/server/restart.go, loadContainer).
@pytest.mark.parametrize(("code", "said"), [(137, "ContainerStatusUnknown"), (255, "Unknown")])
def test_an_exit_code_that_was_made_up_for_a_container_that_is_gone_is_none(code: int, said: str) -> None:
    gone = ended(code, said, finished=None)
    run = of_run(pod("Failed", {"runner": ended(0, message=PUBLISHED), "agent": gone}))
    assert isinstance(run, runs.Ended)
    assert (run.result, run.reason, run.exit_code) == ("Lost", "AgentLost", None)
    gate = of_gate(pod("Failed", {"runner": ended(0), "agent": gone}))
    assert isinstance(gate, runs.GateEnded)
    assert (gate.judged, gate.reason) == (False, "CommandLost")
    assert said in gate.message


DEADLINE = {"type": "FailureTarget", "status": "True", "reason": "DeadlineExceeded"}


def test_a_deadline_is_named_before_its_job_has_failed() -> None:
    """The condition Failed comes after the last pod's end (job_controller.go, enactJobFinished), and after the look."""
    asked = {"deletionTimestamp": at(30), "deletionGracePeriodSeconds": 60}
    killed = {"runner": ended(137), "agent": ended(137)}
    assert reason(of_run(pod("Failed", killed, metadata=asked), conditions=(DEADLINE,))) == "DeadlineExceeded"
    assert reason(of_run(conditions=(DEADLINE,))) == "DeadlineExceeded"


def test_a_gates_pod_that_still_ends_is_waited_for_when_its_job_is_about_to_fail() -> None:
    asked = {"deletionTimestamp": at(30), "deletionGracePeriodSeconds": 60}
    at_work = pod("Running", {"agent": {"running": {}}}, metadata=asked)
    assert of_gate(at_work, conditions=(DEADLINE,)) == runs.Running()


@pytest.mark.parametrize("clock", [-20, -1, 0, 20])
def test_how_far_a_nodes_clock_is_off_does_not_make_a_deletion_a_failure(clock: float) -> None:
    """finishedAt is the node's time, deletionTimestamp the API server's (apiserver, rest/delete.go, BeforeDelete)."""
    asked = {"deletionTimestamp": at(-10 + 60), "deletionGracePeriodSeconds": 60}
    finished = -9 + clock
    states = {"runner": ended(0, message=PUBLISHED, finished=finished), "agent": ended(143, finished=finished)}
    assert reason(of_run(pod("Failed", states, metadata=asked))) == "PodDeleted"
    assert reason(of_gate(pod("Failed", {"agent": states["agent"]}, metadata=asked))) == "PodDeleted"


def test_of_two_pods_of_a_job_the_one_that_is_taken_back_is_not_the_runs_end() -> None:
    """A Job controller that has just started may make a second one, and takes back the younger (ActivePods.Less)."""
    at_work = pod("Running", {"runner": {"running": {}}, "agent": {"running": {}}})
    taken_back = {"deletionTimestamp": at(-1), "deletionGracePeriodSeconds": 0}
    second = pod("Failed", {"runner": ended(143), "agent": ended(143)}, "pod-2", created=-58, metadata=taken_back)
    assert of_run(at_work, second) == runs.Running()
    assert of_run(second, at_work) == runs.Running()
    gone = views.job("job-1", None, [at_work, second])
    assert runs.state_of(gone, UID, 1, NOW) == runs.Running(), "nor does the Job's own end bring the next run beside it"


PULLS = {"waiting": {"reason": "ErrImagePull", "message": "no route to host"}}


@pytest.mark.parametrize(
    ("scheduled", "checked_out", "stuck"), [(-5, None, False), (-121, None, True), (-400, -5, False)]
)
def test_an_image_has_its_time_from_when_the_kubelet_could_pull_it(
    scheduled: float, checked_out: float | None, stuck: bool
) -> None:
    """A pod may wait for its node for long, and a gate's command for its checkout; a failure then is the first one."""
    bound = {"type": "PodScheduled", "status": "True", "lastTransitionTime": at(scheduled)}
    states = {"agent": PULLS} if checked_out is None else {"runner": ended(0, finished=checked_out), "agent": PULLS}
    state = of_gate(pod("Pending", states, created=-600, status={"conditions": [bound]}))
    assert isinstance(state, runs.Waiting)
    assert state.stuck is stuck


def test_a_runner_that_ended_while_its_agents_image_was_pulled_is_not_lost() -> None:
    """Containers are started one after the other, each once its image is there (kuberuntime_manager.go, SyncPod)."""
    problem = Problem(reason="PromptFileNotFound", message="analyst.md is not a file")
    reported = ended(0, message=RunReport(run=1, uid=UID, problem=problem).dumps(), finished=-90)
    assert of_run(pod("Running", {"runner": reported, "agent": {"running": {}}})) == runs.Running()
    assert reason(of_run(pod("Succeeded", {"runner": reported, "agent": ended(0)}))) == "PromptFileNotFound"
    lost = of_run(pod("Running", {"runner": ended(1, finished=-90), "agent": {"running": {}}}))
    assert isinstance(lost, runs.Waiting)
    assert lost.reason == "RunnerLost"
