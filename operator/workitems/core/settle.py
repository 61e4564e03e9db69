"""The run that is under way: created if it was only announced, waited for, and at its end turned into facts.

Whatever happens to a run, it ends as one FinishedRun in the history, and in exactly one of four ways: its stage is
complete and its gates decide; infrastructure failed and it is repeated after a while; a person's push is to be looked
at; or the Pipeline's onRunFailure (by default: wait for a person) applies.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from workitems.agents import output
from workitems.api import (
    MESSAGE_LIMIT,
    Condition,
    Content,
    CurrentRun,
    Document,
    Phase,
    Rerun,
    RunReport,
    RunResult,
)
from workitems.api.status import Stopping
from workitems.core import begin, conditions, gates, history, launch, outcomes, resources, runs, stages
from workitems.core.draft import DELETE_JOB, Draft
from workitems.protocol import AGENT_CONTAINER, RUNNER_CONTAINER

LOOK_AGAIN = timedelta(seconds=60)
"""How often a run is looked at whose pod is on its way to an end."""
LOOK_AGAIN_IN_HEALTH = timedelta(minutes=5)
"""And one whose containers are at work, should every event about its pod, and the sweep, be lost."""
LOOK_AGAIN_AT_START = timedelta(seconds=20)
"""And one whose pod has not started, once that is worth a sentence; sooner, an event tells what there is to tell."""
_A_MOMENT = timedelta(seconds=1)
LOST_REASONS = ("JobReplaced", runs.RUNNER_LOST)
"""Why a run is stopped that infrastructure has lost: repeated, not held."""

IN_THE_PIPELINE = runs.STUCK_REASONS | {
    output.MODEL_NOT_FOUND,
    output.MAX_TURNS,
    output.MAX_BUDGET,
    output.TOOLS_DENIED,
}
"""Reasons whose cause is in the item's copy of the Pipeline."""


def settle_run(draft: Draft) -> bool:
    """Look at the current run; True: it is over and the item can go on."""
    run = draft.status.run
    if run is None:
        return True
    job = draft.facts.run_job
    state = runs.state_of(job, draft.facts.uid, run.number, draft.now)
    if job is not None and run.job_uid is not None and job.exists and job.uid != run.job_uid:
        state = _replaced(run, state)
    if run.stopping is not None and isinstance(state, runs.Absent | runs.Ended):
        stopping = run.stopping
        finish(draft, run, runs.Ended(stopping.result, stopping.reason, stopping.message))
        return True
    match state:
        case runs.Absent() if run.job_uid is None:
            return begin.create_job(draft, run)
        case runs.Absent():
            message = f"Job {run.job} was deleted before its result was recorded"
            finish(draft, run, runs.Ended(RunResult.LOST, "JobDeleted", message))
        case runs.Foreign():
            message = f"a Job named {run.job} exists and is not this item's: delete it, then retry"
            finish(draft, run, runs.Ended(RunResult.FAILED, "JobNameTaken", message))
        case runs.Ended():
            finish(draft, run, state)
        case runs.Waiting() | runs.Running():
            _under_way(draft, run, state)
            return False
    return True


def _replaced(run: CurrentRun, state: runs.RunState) -> runs.RunState:
    """Somebody made the run's Job anew: the run is lost, but a second one must not start beside what runs there."""
    message = f"Job {run.job} is not the one that this run started"
    if isinstance(state, runs.Running | runs.Waiting):
        return runs.Waiting("JobReplaced", message, stuck=True)
    return runs.Ended(RunResult.LOST, "JobReplaced", message)


def _under_way(draft: Draft, run: CurrentRun, state: runs.Waiting | runs.Running) -> None:
    job = draft.facts.run_job
    if job is not None and job.exists and run.job_uid is None:
        run = run.model_copy(update={"job_uid": job.uid, "state": "Running"})
        draft.note(f"run {run.number} is Job {job.name}")
    if isinstance(state, runs.Waiting) and state.stuck and run.stopping is None:
        run = run.model_copy(
            update={
                "stopping": Stopping(
                    result=RunResult.LOST if state.reason in LOST_REASONS else RunResult.FAILED,
                    reason=state.reason,
                    message=state.message,
                )
            }
        )
        draft.intend(f"stop-{run.job}", DELETE_JOB, run.job)
        draft.note(f"stop run {run.number}: {state.reason}")
    if run is not draft.status.run:
        draft.set(run=run)
    where = f"{run.agent} run {run.number} (attempt {run.attempt} of stage {run.stage}{_again(draft)})"
    if run.kind == "Look":
        where = f"a look at branch {draft.status.branch}"
    kubectl = f"kubectl -n {draft.facts.item.metadata.namespace}"
    container = AGENT_CONTAINER if run.kind == "Agent" else RUNNER_CONTAINER
    starts = isinstance(state, runs.Waiting)
    if not isinstance(state, runs.Waiting) or runs.starts_as_usual(state, run.started_at, draft.now):
        # The same words for a pod that starts as usual: the second between is not worth a write.
        draft.wait(
            Phase.IN_PROGRESS, "RunInProgress", f"{where} is under way: {kubectl} logs job/{run.job} -c {container} -f"
        )
        healthy = job is not None and job.pod is not None and job.pod.healthy
        at_start = run.started_at + runs.USUAL_START + _A_MOMENT - draft.now
        draft.again_in(at_start if starts else LOOK_AGAIN_IN_HEALTH if healthy else LOOK_AGAIN)
    else:
        see = outcomes.start_command(draft, state, run.job)
        draft.wait(Phase.IN_PROGRESS, state.reason, f"{where}: {state.message}{see}")
        draft.again_in(LOOK_AGAIN_AT_START)


def finish(draft: Draft, run: CurrentRun, ended: runs.Ended) -> None:
    """Turn a run that is over into history, content and what follows from it."""
    content = _content(draft, ended.report)
    if run.kind == "Look":
        _looked(draft, run, ended, content)
        return
    ended = _with_what_it_waited_for(draft, _plausible(draft, ended, content))
    history.record(draft, run, ended)
    stage = stages.stage_named(draft.spec, run.stage)
    if stage is None:
        raise AssertionError("a run's stage is a stage of the snapshot")
    draft.note(f"run {run.number} {ended.result}")
    if content is not None:
        draft.set(content=content, head=content.commit, conditions=_fetched(draft, ended.report))
    if ended.report is not None and ended.report.base_commit is not None and draft.status.base_commit is None:
        draft.set(base_commit=ended.report.base_commit)

    # A person pushed: what the report says about the new head lets the gates be looked at again.
    if ended.reason == runs.HEAD_MOVED and content is not None:
        draft.infrastructure_works()
        return
    if ended.infrastructure:
        _retry_later(draft, ended)
        return
    draft.infrastructure_works()
    if ended.result is RunResult.SUCCEEDED and ended.report is not None and content is not None:
        draft.complete(stage.name)
        draft.set(rerun=None)
        judge = gates.Judge(stage, draft.paths, content, draft.now, forge=draft.has_forge)
        for gate in stage.gates:
            draft.record_gate(judge.after_run(gate, run.attempt, ended.report))
        return
    message = f"{run.agent} run {run.number} in stage {stage.name}: {ended.message}"
    message += _where_to_mend(draft, run, ended)
    if draft.facts.run_job is not None and draft.facts.run_job.owner_uid == draft.facts.uid:
        message += f". See: {_log_command(draft, run)}"
    if ended.report is None or ended.report.problem is not None:
        draft.hold(Phase.BLOCKED, ended.reason, f"{message}. Then: {outcomes.retry_command(draft)}")
        return
    outcomes.run_failed(draft, stage, ended.reason, message)


def _looked(draft: Draft, run: CurrentRun, ended: runs.Ended, content: Content | None) -> None:
    """Take what a look at the branch found; whoever asked for it is answered by the next step, from what is known."""
    draft.note(f"look {run.number} {ended.result}")
    draft.set(run=None)
    draft.again_in(timedelta(0))
    # It is compared with when a Decision was said, which is a time of the API server's too; ours may differ.
    pod = draft.facts.run_job.pod if draft.facts.run_job is not None else None
    looked = run.started_at if pod is None or pod.created is None else pod.created
    if content is not None:
        draft.set(content=content, head=content.commit, conditions=_fetched(draft, ended.report))
        draft.set(looked_at=looked)
        draft.infrastructure_works()
    elif ended.reason == runs.REMOTE_AWAY:
        draft.remote_is_away()
    elif ended.infrastructure and draft.infrastructure_failed("looking at the branch failed") is None:
        draft.note("look again later")
    else:
        # It cannot be told: the Decision is judged by what is known, and says so.
        draft.set(looked_at=looked)
        draft.infrastructure_works()


def _plausible(draft: Draft, ended: runs.Ended, content: Content | None) -> runs.Ended:
    """The end of a run, or infrastructure's failure where its report contradicts itself or what is known."""
    if ended.result is RunResult.SUCCEEDED and content is None:
        message = "the report of a finished run does not describe the branch's head"
        return runs.Ended(RunResult.LOST, "ReportIncomplete", message, ended.exit_code, ended.report)
    if ended.reason == runs.HEAD_MOVED and content is not None and content.commit == draft.status.head:
        # Said to have moved and has not: without the backoff of a failure this would go round for ever.
        message = f"{ended.message}, but the branch is where it was"
        return runs.Ended(RunResult.LOST, "HeadNotMoved", message[:MESSAGE_LIMIT], ended.exit_code, ended.report)
    return ended


def _with_what_it_waited_for(draft: Draft, ended: runs.Ended) -> runs.Ended:
    """A pod that never started ends by its Job's deadline, which is not the cause: that was said all the while."""
    said = next((c for c in draft.facts.item.status.conditions if c.type == "Ready"), None)
    if ended.reason != runs.DEADLINE or said is None or said.reason not in (*runs.STARTING, runs.UNSCHEDULABLE):
        return ended
    return replace(ended, message=f"{ended.message}; until then, {said.message}"[:MESSAGE_LIMIT])


def _again(draft: Draft) -> str:
    """Why there is another run at all: without it the cause would be hidden whenever a repetition is under way."""
    last = draft.status.runs[-1] if draft.status.runs else None
    lost = last is not None and last.result in (RunResult.LOST, RunResult.EVICTED)
    return f", again after {last.reason or last.result}" if last is not None and lost else ""


def _log_command(draft: Draft, run: CurrentRun) -> str:
    return f"kubectl -n {draft.facts.item.metadata.namespace} logs job/{run.job} --all-containers"


def _where_to_mend(draft: Draft, run: CurrentRun, ended: runs.Ended) -> str:
    if ended.result is RunResult.OUT_OF_MEMORY:
        return f" ({_memory_limit(draft, run)}; {outcomes.PIPELINE_KEPT})"
    if ended.reason in (output.KEY_REFUSED, output.OUT_OF_CREDIT):
        credentials = launch.credentials_of(draft.facts.defaults, stages.agent_of(draft.spec, run.agent))
        if credentials is None:
            return f" (agent {run.agent} has its key from its own env or envFrom, so it was given no other)"
        return f" (Secret {credentials.secret_name} of this namespace)"
    return f" ({outcomes.PIPELINE_KEPT})" if ended.reason in IN_THE_PIPELINE else ""


def _memory_limit(draft: Draft, run: CurrentRun) -> str:
    """What to raise, and where."""
    agent = stages.agent_of(draft.spec, run.agent)
    where = f"resources.limits.memory of agent {run.agent} in the Pipeline"
    own = (agent.resources.limits or {}).get("memory") if agent.resources is not None else None
    if own is not None:
        return f"{where} is {own}"
    default = resources.of(agent).get("limits", {}).get("memory")
    limit = f"the default is {default}" if default is not None else "the limit is the namespace's or node's"
    return f"{where} is not set: {limit}"


def _content(draft: Draft, report: RunReport | None) -> Content | None:
    """What the head contains, where the report describes it completely."""
    if report is None or report.head is None or report.tree is None or report.code is None:
        return None
    watched = draft.paths.watched()
    if len(report.blobs) != len(watched):
        return None
    documents = tuple(Document(path=path, blob=blob) for path, blob in zip(watched, report.blobs, strict=True))
    return Content(commit=report.head, tree=report.tree, code=report.code, documents=documents)


def _fetched(draft: Draft, report: RunReport | None) -> tuple[Condition, ...]:
    missing = report.not_fetched if report is not None else ()
    return conditions.fetched(draft.status, missing, draft.facts.item.metadata.generation, draft.now)


def _retry_later(draft: Draft, ended: runs.Ended) -> None:
    if ended.reason == runs.REMOTE_AWAY and ended.report is not None and not ended.report.agent_started:
        draft.remote_is_away()
    elif (exhausted := draft.infrastructure_failed("infrastructure failed")) is not None:
        message = f"{exhausted}: {ended.message}"
        draft.hold(Phase.BLOCKED, "InfraRetriesExhausted", f"{message}. Then: {outcomes.retry_command(draft)}")
        return
    if draft.status.rerun is None:
        draft.rerun(Rerun(reason="Infrastructure"))
