"""What a Job's and a Pod's state mean for a run: not there, waiting, running, or over, and how.

A run is over when its Pod is, which says so one to three seconds before the Job does. The agent's result is its
container's exit code, never a file; the runner's report is hostile input and is parsed, not believed, where it
disagrees with what the task asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import ValidationError

from workitems.agents import entry
from workitems.agents.output import NO_RESULT, RETRYABLE, SUCCEEDED
from workitems.api import MESSAGE_LIMIT, RunReport, RunResult
from workitems.core.facts import ContainerView, JobView, PodView
from workitems.protocol import AGENT_CONTAINER, REPORT_LIMIT, RUNNER_CONTAINER, AgentEnding

HEAD_MOVED = "HeadMoved"
"""The runner's word for a branch that somebody else pushed to."""

REMOTE_AWAY = "RemoteUnreachable"
"""The runner's word for a git server that does not answer."""

POD_DELETED = "PodDeleted"
COMMAND_LOST = "CommandLost"

# The kubelet's words for a container that will not start until a person changes something.
STUCK_REASONS = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "CreateContainerConfigError",
        "CreateContainerError",
        "RunContainerError",
    }
)
# The container runtime's words for a program that is not in the image: nobody's code is to blame.
NOT_RUN_REASONS = frozenset({"StartError", "ContainerCannotRun"})
# The kubelet's and containerd's words for a container of which nothing is left to ask, with an exit code of their own.
UNKNOWN_ENDS = frozenset({"ContainerStatusUnknown", "Unknown"})
STUCK_AFTER = timedelta(minutes=2)
STARTING = ("PodStarting", "PodMissing")
UNSCHEDULABLE = "Unschedulable"
DEADLINE = "DeadlineExceeded"
"""Kubernetes' word for a Job that ran into its activeDeadlineSeconds."""
USUAL_START = timedelta(seconds=40)
"""After it a Job without a pod (quota, Kueue) and a pod that does not start (a missing volume) are worth a sentence."""
RUNNER_LOST = "RunnerLost"
RUNNER_LOST_AFTER = timedelta(seconds=45)
"""An agent that was told to stop, or whose pod is being deleted, ends sooner."""

TERMINATING_NOTE_AFTER = timedelta(minutes=5)


@dataclass(frozen=True)
class Absent:
    """There is no such Job. Whether it is still to be created or was lost is for status to say."""


@dataclass(frozen=True)
class Foreign:
    """A Job of that name belongs to something else."""

    owner: str


@dataclass(frozen=True)
class Waiting:
    """The pod has not started; `stuck`: it will not without a person."""

    reason: str
    message: str
    stuck: bool = False


@dataclass(frozen=True)
class Running:
    """At least one container is at work."""


@dataclass(frozen=True)
class Ended:
    """The run is over."""

    result: RunResult
    reason: str
    message: str
    exit_code: int | None = None
    report: RunReport | None = None

    @property
    def infrastructure(self) -> bool:
        """Whether the machine failed rather than the agent: retried with backoff, never counted as rework."""
        return self.result in (RunResult.LOST, RunResult.EVICTED)


RunState = Absent | Foreign | Waiting | Running | Ended


def state_of(job: JobView | None, uid: str, run: int, now: datetime) -> RunState:
    """The state of run number `run` of the item with this uid."""
    if job is None or not job.exists:
        if job is not None and job.pod is not None and not job.pod.terminal:
            return _terminating(job.pod, now)
        return Absent()
    if job.owner_uid != uid:
        return Foreign(job.owner_uid)
    pod = job.pod
    if pod is None and (job.failed or job.complete):
        # A node that is taken away takes its finished pods along.
        how = f"failed ({job.failed})" if job.failed else "is over"
        message = f"Job {job.name} {how} and its pod is gone, and the report with it"
        return Ended(RunResult.LOST, job.failed or POD_DELETED, message)
    if pod is not None and pod.terminal:
        return _ended(job, pod, uid, run)
    state = _under_way(job, pod, now)
    if pod is not None and pod.deleted is None and isinstance(state, Running):
        return _runner_lost(pod, now) or state
    return state


def starts_as_usual(state: Waiting, since: datetime, now: datetime) -> bool:
    """Whether there is nothing to say about a Job that was made at `since` and does not work yet."""
    return state.reason in STARTING and now - since <= USUAL_START


def _under_way(job: JobView, pod: PodView | None, now: datetime) -> Waiting | Running:
    """Of a Job that is not over."""
    if pod is None:
        return Waiting("PodMissing", f"Job {job.name} has no pod yet")
    if pod.deleted is not None:
        return _terminating(pod, now)
    return _starting(pod, now) or Running()


def _runner_lost(pod: PodView, now: datetime) -> Waiting | None:
    """A runner that died before it said `go` leaves an agent that waits for it until the Job's deadline.

    One that ended with 0 has reported and said `stop`: an agent whose image was long in coming has yet to read it.
    """
    runner = pod.containers.get(RUNNER_CONTAINER, ContainerView())
    if not runner.exit_code or runner.finished_at is None or now - runner.finished_at < RUNNER_LOST_AFTER:
        return None
    if all(container.terminated for container in pod.containers.values()):
        return None
    return Waiting(RUNNER_LOST, f"the runner of pod {pod.name} ended before its agent ({_why(runner)})", stuck=True)


def _why(runner: ContainerView) -> str:
    """How a runner ended that reported nothing; its memory limit is the operator's to raise, in no manifest."""
    code = "no exit code" if runner.exit_code is None else f"exit code {runner.exit_code}"
    more = ": raise its memory limit, WORKITEMS_RUNNER_MEMORY of the operator" if runner.reason == "OOMKilled" else ""
    return f"{code}{', ' + runner.reason if runner.reason else ''}{more}"


def _terminating(pod: PodView, now: datetime) -> Waiting | Running:
    since = pod.deleted or now
    if now - since > TERMINATING_NOTE_AFTER:
        return Waiting(
            "PodTerminating",
            f"pod {pod.name} has been terminating since {since:%H:%M:%S} UTC and may still run on node {pod.node}; "
            f"no new run starts before it is gone: check the node. If it is dead for good, say so to Kubernetes: "
            f"kubectl taint nodes {pod.node} node.kubernetes.io/out-of-service=nodeshutdown:NoExecute, "
            f"or delete the Node. To delete the pod with --force is not enough, its Job holds on to it",
        )
    return Running()


def _starting(pod: PodView, now: datetime) -> Waiting | None:
    """A reason why a container is not running, if there is one that a person should see."""
    for name, container in pod.containers.items():
        if container.running or container.terminated:
            continue
        if container.reason in STUCK_REASONS:
            late = now - _could_start(pod, now) > STUCK_AFTER
            message = f"container {name} of pod {pod.name} cannot start: {container.reason}: {container.message}"
            return Waiting(container.reason, _cut(message), stuck=late or container.reason == "InvalidImageName")
    if pod.unschedulable:
        return Waiting(UNSCHEDULABLE, _cut(f"pod {pod.name} finds no node: {pod.unschedulable}"))
    if not any(container.running or container.terminated for container in pod.containers.values()):
        return Waiting("PodStarting", f"pod {pod.name} is starting")
    return None


def _could_start(pod: PodView, now: datetime) -> datetime:
    """Since when the kubelet may have tried to start a container: it has a node, and those before it have ended."""
    times = (pod.scheduled or pod.created, *(container.finished_at for container in pod.containers.values()))
    return max((time for time in times if time is not None), default=now)


def _ended(job: JobView, pod: PodView, uid: str, run: int) -> Ended:
    runner = pod.containers.get(RUNNER_CONTAINER, ContainerView())
    agent = pod.containers.get(AGENT_CONTAINER, ContainerView())
    report = _report(runner, uid, run)
    if report is None:
        return _unreported(job, pod, runner)
    problem = report.problem
    if problem is not None:
        # A moved branch is nobody's failure: the report describes the new head, and its gates are looked at again.
        lost = problem.retry or problem.reason == HEAD_MOVED
        result = RunResult.LOST if lost else RunResult.FAILED
        # A container that was told not to start the agent ends with 0, which is no agent's exit code.
        code = agent.exit_code if report.agent_started else None
        return Ended(result, problem.reason, problem.message, code, report)
    if AGENT_CONTAINER not in pod.containers:
        return Ended(RunResult.SUCCEEDED, "Looked", "", None, report)
    if not report.agent_started:
        # The agent's container also ends with 0 when it was told not to start.
        message = f"the report of pod {pod.name} names no problem and no agent"
        return Ended(RunResult.LOST, "AgentNotStarted", message, agent.exit_code, report)
    return _agent_ended(pod, agent, report)


def _agent_ended(pod: PodView, agent: ContainerView, report: RunReport) -> Ended:
    code, said = agent.exit_code, report.ending
    # Exit 0 wins over OOMKilled: then only a child of the agent died, and the agent coped.
    if code == 0:
        if said is not None and said.reason != SUCCEEDED:
            return _as_it_said(said, code, report)
        return Ended(RunResult.SUCCEEDED, SUCCEEDED, "", 0, report)
    if pod.disrupted:
        return Ended(RunResult.EVICTED, "Evicted", _cut(f"pod {pod.name}: {pod.disrupted}"), code, report)
    if pod.deleted is not None:
        # The exit code is the signal's. No clock tells an end of its own just before the deletion: the node's and the
        # API server's differ, and the kubelet's own deletion moves the time. That one is repeated, as it is where the
        # pod is gone altogether; the other way round somebody would be asked about a failure that was none.
        return Ended(RunResult.LOST, POD_DELETED, f"pod {pod.name} was deleted while its agent worked", code, report)
    if code is None or agent.reason in UNKNOWN_ENDS:
        message = f"the agent's container of pod {pod.name} left no exit code"
        return Ended(RunResult.LOST, "AgentLost", message, None, report)
    if code == entry.TIMED_OUT:
        return Ended(
            RunResult.TIMED_OUT, "TimedOut", "the agent ran into its timeout; its work so far is kept", code, report
        )
    if agent.reason == "OOMKilled":
        return Ended(RunResult.OUT_OF_MEMORY, "OutOfMemory", "the agent was killed by its memory limit", code, report)
    if said is not None and said.reason not in (SUCCEEDED, NO_RESULT):
        return _as_it_said(said, code, report)
    tail = " ".join(agent.message.split())[-400:]
    message = f"the agent ended with exit code {code}" + (f": {tail}" if tail else "")
    return Ended(RunResult.FAILED, "AgentFailed", _cut(message), code, report)


def _as_it_said(said: AgentEnding, code: int, report: RunReport) -> Ended:
    """What the agent's own output says about a run that did not succeed."""
    result = RunResult.LOST if said.reason in RETRYABLE else RunResult.FAILED
    return Ended(result, said.reason, said.message, code, report)


def _unreported(job: JobView, pod: PodView, runner: ContainerView) -> Ended:
    """Nobody told what became of the work: the next run finds out from the branch."""
    if pod.disrupted:
        return Ended(RunResult.EVICTED, "Evicted", _cut(f"pod {pod.name}: {pod.disrupted}"))
    if job.failed == DEADLINE:
        return Ended(RunResult.LOST, DEADLINE, f"Job {job.name} ran into its deadline before the work was published")
    if pod.deleted is not None:
        return Ended(RunResult.LOST, POD_DELETED, f"pod {pod.name} was deleted before the work was published")
    detail = " ".join(runner.message.split())[-300:]
    message = f"the runner of pod {pod.name} left no usable report ({_why(runner)})"
    return Ended(RunResult.LOST, "ReportLost", _cut(f"{message}: {detail}" if detail else message))


def _report(runner: ContainerView, uid: str, run: int) -> RunReport | None:
    if not runner.terminated or not runner.message:
        return None
    if len(runner.message.encode(errors="replace")) > REPORT_LIMIT:
        return None
    try:
        report = RunReport.strictly(runner.message)
    except ValidationError:
        return None
    # A report of another run (a copied pod, a forged message) says nothing about this one.
    return report if (report.uid, report.run) == (uid, run) else None


@dataclass(frozen=True)
class GateEnded:
    """A command gate's Job is over; `judged` is False where infrastructure failed."""

    judged: bool
    passed: bool
    reason: str
    message: str


def gate_state_of(job: JobView | None, uid: str, now: datetime) -> Absent | Foreign | Waiting | Running | GateEnded:
    """The state of a command gate's Job."""
    if job is None or not job.exists:
        return Absent()
    if job.owner_uid != uid:
        return Foreign(job.owner_uid)
    pod = job.pod
    if pod is not None and pod.terminal:
        return _gate_ended(job, pod)
    if job.failed and pod is None:
        return GateEnded(judged=False, passed=False, reason=job.failed, message=f"Job {job.name}: {job.failed}")
    if job.complete and pod is None:
        # A Job is Complete only where every container of its pod ended with 0.
        message = f"exit code 0, as Job {job.name} says: its pod is gone"
        return GateEnded(judged=True, passed=True, reason="CommandSucceeded", message=message)
    return _under_way(job, pod, now)


def _gate_ended(job: JobView, pod: PodView) -> GateEnded:
    gate = pod.containers.get(AGENT_CONTAINER, ContainerView())
    checkout = pod.containers.get(RUNNER_CONTAINER, ContainerView())
    if gate.exit_code == 0:
        return GateEnded(judged=True, passed=True, reason="CommandSucceeded", message="exit code 0")
    if pod.deleted is not None:
        message = f"pod {pod.name} was deleted while its command ran"
        return GateEnded(judged=False, passed=False, reason=POD_DELETED, message=message)
    not_run = _not_run(gate)
    if pod.disrupted or gate.exit_code is None or not_run:
        reason, said = _checkout_problem(checkout)
        detail = pod.disrupted or not_run or said or job.failed or "the checkout failed"
        return GateEnded(judged=False, passed=False, reason=reason, message=_cut(f"pod {pod.name}: {detail}"))
    tail = gate.message.strip()[-700:]
    if gate.exit_code == entry.TIMED_OUT:
        return GateEnded(judged=True, passed=False, reason="CommandTimedOut", message=_cut(f"timed out: {tail}"))
    why = "killed by its memory limit" if gate.reason == "OOMKilled" else f"exit code {gate.exit_code}"
    return GateEnded(judged=True, passed=False, reason="CommandFailed", message=_cut(f"{why}: {tail}" if tail else why))


def _not_run(gate: ContainerView) -> str:
    """What the image lacks, or the node has lost, where it is not for the command to blame."""
    if gate.reason in NOT_RUN_REASONS | UNKNOWN_ENDS:
        return f"{gate.reason}: {gate.message}"
    said = gate.message.strip()
    return said if (gate.exit_code, said) == (entry.MISSING, entry.LACKS_SLEEP) else ""


def _checkout_problem(checkout: ContainerView) -> tuple[str, str]:
    """Reason and message of a gate whose command never ran."""
    try:
        problem = RunReport.strictly(checkout.message).problem
    except ValidationError:
        killed = f"the checkout was killed ({_why(checkout)})" if checkout.reason == "OOMKilled" else ""
        return COMMAND_LOST, killed or " ".join(checkout.message.split())[-300:]
    if problem is None:
        return COMMAND_LOST, ""
    return REMOTE_AWAY if problem.reason == REMOTE_AWAY else COMMAND_LOST, f"{problem.reason}: {problem.message}"


def _cut(text: str) -> str:
    return text if len(text) <= MESSAGE_LIMIT else text[: MESSAGE_LIMIT - 1] + "…"
