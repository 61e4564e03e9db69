"""The run that is under way: created if it was only announced, waited for, and at its end turned into facts.

Whatever happens to a run, it ends as one FinishedRun in the history, and in exactly one of four ways: its stage is
complete and its gates decide; infrastructure failed and it is repeated after a while; a person's push is to be looked
at; or the Pipeline's onRunFailure (by default: wait for a person) applies.
"""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

from workitems.api import (
    MESSAGE_LIMIT,
    RUNS_KEPT,
    Content,
    CurrentRun,
    Document,
    FinishedRun,
    Phase,
    Rerun,
    RunReport,
    RunResult,
    TotalUsage,
)
from workitems.api.workitem import Stopping
from workitems.core import begin, gates, outcomes, runs, stages
from workitems.core.draft import DELETE_JOB, Draft

LOOK_AGAIN = timedelta(seconds=60)
"""How often a run is looked at should every event about its pod be lost."""


def settle_run(draft: Draft) -> bool:
    """Look at the current run; True: it is over and the item can go on."""
    run = draft.status.run
    if run is None:
        return True
    job = draft.facts.run_job
    state = runs.state_of(job, draft.facts.uid, run.number, draft.now)
    if job is not None and run.job_uid is not None and job.exists and job.uid != run.job_uid:
        state = runs.Ended(RunResult.LOST, "JobReplaced", f"Job {run.job} is not the one that this run started")
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


def _under_way(draft: Draft, run: CurrentRun, state: runs.Waiting | runs.Running) -> None:
    job = draft.facts.run_job
    if job is not None and job.exists and run.job_uid is None:
        run = run.model_copy(update={"job_uid": job.uid, "state": "Running"})
        draft.note(f"run {run.number} is Job {job.name}")
    if isinstance(state, runs.Waiting) and state.stuck and run.stopping is None:
        run = run.model_copy(
            update={"stopping": Stopping(result=RunResult.FAILED, reason=state.reason, message=state.message)}
        )
        draft.intend(f"stop-{run.job}", DELETE_JOB, run.job)
        draft.note(f"stop run {run.number}: {state.reason}")
    if run is not draft.status.run:
        draft.set(run=run)
    where = f"{run.agent} run {run.number} (attempt {run.attempt} of stage {run.stage})"
    if isinstance(state, runs.Waiting) and state.reason not in ("PodStarting", "PodMissing"):
        draft.wait(Phase.IN_PROGRESS, state.reason, f"{where}: {state.message}")
    else:
        draft.wait(Phase.IN_PROGRESS, "RunInProgress", f"{where} is running: kubectl logs job/{run.job} -c agent -f")
    draft.again_in(LOOK_AGAIN)


def finish(draft: Draft, run: CurrentRun, ended: runs.Ended) -> None:
    """Turn a run that is over into history, content and what follows from it."""
    content = _content(draft, ended.report)
    if ended.result is RunResult.SUCCEEDED and content is None:
        message = "the report of a finished run does not describe the branch's head"
        ended = runs.Ended(RunResult.LOST, "ReportIncomplete", message, ended.exit_code, ended.report)
    _record(draft, run, ended)
    stage = stages.stage_named(draft.spec, run.stage)
    if stage is None:
        raise AssertionError("a run's stage is a stage of the snapshot")
    draft.note(f"run {run.number} {ended.result}")
    if content is not None:
        draft.set(content=content, head=content.commit)
    if ended.report is not None and ended.report.base_commit is not None and draft.status.base_commit is None:
        draft.set(base_commit=ended.report.base_commit)

    # A person pushed: what the report says about the new head lets the gates be looked at again.
    if ended.reason == runs.HEAD_MOVED and content is not None:
        draft.set(infra_retries=0, next_attempt_at=None)
        return
    if ended.infrastructure:
        _retry_later(draft, ended)
        return
    draft.set(infra_retries=0, next_attempt_at=None)
    if ended.result is RunResult.SUCCEEDED and ended.report is not None and content is not None:
        draft.complete(stage.name)
        draft.set(rerun=None)
        judge = gates.Judge(stage, draft.paths, content, draft.now)
        for gate in stage.gates:
            draft.record_gate(judge.after_run(gate, run.attempt, ended.report))
        return
    message = f"{run.agent} run {run.number} in stage {stage.name}: {ended.message}"
    message += f". See: {_log_command(draft, run)}"
    if ended.report is None or ended.report.problem is not None:
        draft.hold(Phase.BLOCKED, ended.reason, f"{message}. Then: {outcomes.retry_command(draft)}")
        return
    outcomes.run_failed(draft, stage, ended.reason, message)


def _log_command(draft: Draft, run: CurrentRun) -> str:
    return f"kubectl -n {draft.facts.item.metadata.namespace} logs job/{run.job} --all-containers"


def _record(draft: Draft, run: CurrentRun, ended: runs.Ended) -> None:
    report = ended.report
    pod = draft.facts.run_job.pod if draft.facts.run_job is not None else None
    ends = [c.finished_at for c in pod.containers.values() if c.finished_at is not None] if pod is not None else []
    finished = max([*ends, run.started_at]) if ends else draft.now
    record = FinishedRun(
        number=run.number,
        agent=run.agent,
        stage=run.stage,
        attempt=run.attempt,
        job=run.job,
        result=ended.result,
        reason=ended.reason,
        message=ended.message[:MESSAGE_LIMIT] or None,
        exit_code=ended.exit_code,
        started_at=run.started_at,
        finished_at=finished,
        commit=report.head if report is not None else None,
        pushed=report.pushed if report is not None else False,
        diverted_to=report.diverted_to if report is not None else None,
        left_out=report.left_out if report is not None else (),
        usage=report.usage if report is not None else None,
    )
    draft.record_run(record, RUNS_KEPT)
    total = draft.status.usage
    used = record.usage
    # Infrastructure's failures are no runs of the agent: they count in infraRetries, not against maxRuns.
    counts = (
        0 if ended.infrastructure and not (ended.reason == runs.HEAD_MOVED and report and report.agent_started) else 1
    )
    draft.set(
        usage=TotalUsage(
            runs=total.runs + counts,
            input_tokens=total.input_tokens + (used.input_tokens if used else 0),
            output_tokens=total.output_tokens + (used.output_tokens if used else 0),
            cost_usd=str(Decimal(total.cost_usd) + Decimal(used.cost_usd if used else "0")),
            run_seconds=total.run_seconds + max(int((finished - run.started_at).total_seconds()), 0),
        )
    )


def _content(draft: Draft, report: RunReport | None) -> Content | None:
    """What the head contains, where the report describes it completely."""
    if report is None or report.head is None or report.tree is None or report.code is None:
        return None
    watched = draft.paths.watched()
    if len(report.blobs) != len(watched):
        return None
    documents = tuple(Document(path=path, blob=blob) for path, blob in zip(watched, report.blobs, strict=True))
    return Content(commit=report.head, tree=report.tree, code=report.code, documents=documents)


def _retry_later(draft: Draft, ended: runs.Ended) -> None:
    tries = draft.status.infra_retries + 1
    limit = draft.spec.limits.max_infra_retries
    if tries > limit:
        draft.set(next_attempt_at=None)
        message = f"infrastructure failed {tries} times in a row, the last time: {ended.message}"
        draft.hold(Phase.BLOCKED, "InfraRetriesExhausted", f"{message}. Then: {outcomes.retry_command(draft)}")
        return
    defaults = draft.facts.defaults
    delay = min(defaults.infra_backoff * 2 ** (tries - 1), defaults.infra_backoff_limit)
    draft.set(infra_retries=tries, next_attempt_at=draft.now + delay)
    if draft.status.rerun is None:
        draft.rerun(Rerun(reason="Infrastructure"))
