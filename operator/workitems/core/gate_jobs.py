"""Command gates: a program on a fresh checkout of the head, as a Job of its own.

The same discipline as for runs: announced in status, created under a deterministic name, recorded by uid, and a Job
that infrastructure lost is an Error of the gate, repeated with backoff, never a reason to send the item back.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from workitems.api import Gate, GateResult, GateStatus, Phase, Stage
from workitems.core import begin, manifests, outcomes, runs
from workitems.core.draft import DELETE_JOB, Draft
from workitems.core.plan import CreateJob
from workitems.core.start import wait_for

LOOK_AGAIN = timedelta(seconds=60)


def settle(draft: Draft, stage: Stage, gate: Gate, status: GateStatus) -> bool:
    """Look at a pending command gate. True: walk again; False: wait."""
    if status.job is None:
        return _announce(draft, stage, gate, status)
    job = draft.facts.gate_jobs.get(status.job)
    state = runs.gate_state_of(job, draft.facts.uid, draft.now)
    if job is not None and status.job_uid is not None and job.exists and job.uid != status.job_uid:
        # Somebody made it anew: its result is not that of what was announced, and it must not run beside the next try.
        draft.intend(f"stop-{status.job}", DELETE_JOB, status.job)
        state = runs.Absent()
    match state:
        case runs.Absent() if status.job_uid is None:
            _create(draft, stage, gate, status)
            return False
        case runs.Absent():
            return _lost(draft, status, "JobDeleted", f"Job {status.job} was deleted before it ended")
        case runs.Foreign():
            message = f"a Job named {status.job} exists and is not this item's: delete it, then retry"
            _change(draft, status, result=GateResult.ERROR, reason="JobNameTaken", message=message, job=None)
            draft.hold(Phase.BLOCKED, "JobNameTaken", f"{message}: {outcomes.retry_command(draft)}")
            return True
        case runs.GateEnded(judged=False):
            return _lost(draft, status, state.reason, state.message)
        case runs.GateEnded():
            result = GateResult.PASSED if state.passed else GateResult.FAILED
            draft.infrastructure_works()
            _change(
                draft,
                status,
                result=result,
                reason=state.reason,
                message=state.message,
                job_uid=job.uid if job else None,
            )
            draft.note(f"gate {gate.name} {result}")
            return True
        case runs.Waiting(reason=reason, message=message, stuck=True):
            draft.intend(f"stop-{status.job}", DELETE_JOB, status.job)
            retry = outcomes.retry_command(draft)
            _change(draft, status, result=GateResult.ERROR, reason=reason, message=message, job=None, job_uid=None)
            draft.hold(Phase.BLOCKED, reason, f"gate {gate.name}: {message} ({outcomes.PIPELINE_KEPT}). Then: {retry}")
            return True
        case _:
            _under_way(draft, status, state)
            return False


def _under_way(draft: Draft, status: GateStatus, state: runs.Waiting | runs.Running) -> None:
    job = draft.facts.gate_jobs.get(status.job or "")
    if job is not None and job.exists and status.job_uid is None:
        _change(draft, status, job_uid=job.uid, reason="CommandRunning", message=f"Job {job.name} runs the command")
        draft.note(f"gate {status.name} is Job {job.name}")
    namespace = draft.facts.item.metadata.namespace
    if isinstance(state, runs.Waiting) and not runs.starts_as_usual(state, status.checked_at, draft.now):
        see = outcomes.start_command(draft, state, status.job or "")
        draft.wait(Phase.IN_PROGRESS, state.reason, f"the command of gate {status.name}: {state.message}{see}")
    else:
        message = f"gate {status.name} runs its command: kubectl -n {namespace} logs job/{status.job} -c agent -f"
        draft.wait(Phase.IN_PROGRESS, "GateInProgress", message)
    draft.again_in(LOOK_AGAIN)


def _announce(draft: Draft, stage: Stage, gate: Gate, status: GateStatus) -> bool:
    if draft.facts.problem is not None:
        wait_for(draft, draft.facts.problem)
        return False
    if not begin.may_start(draft):
        return False
    tries = status.tries + 1
    name = manifests.gate_job_name(draft.facts.item, status, tries, draft.status.last_run)
    _change(
        draft,
        status,
        result=GateResult.PENDING,
        reason="CommandStarting",
        message=f"Job {name} starts",
        job=name,
        job_uid=None,
        tries=tries,
    )
    draft.set(next_attempt_at=None)
    draft.note(f"announce gate {gate.name}")
    announced = next(g for g in draft.status.gates if (g.stage, g.name) == (status.stage, status.name))
    _create(draft, stage, gate, announced)
    return False


def _create(draft: Draft, stage: Stage, gate: Gate, status: GateStatus) -> None:
    if draft.facts.problem is not None:
        wait_for(draft, draft.facts.problem)
        return
    draft.after.append(CreateJob(manifests.gate_job(draft.facts, draft.status, stage, (gate, status))))
    draft.wait(Phase.IN_PROGRESS, "GateInProgress", f"gate {gate.name} starts its command as Job {status.job}")
    draft.again_in(timedelta(seconds=30))


def _lost(draft: Draft, status: GateStatus, reason: str, message: str) -> bool:
    _change(draft, status, result=GateResult.ERROR, reason=reason, message=message, job=None, job_uid=None)
    draft.note(f"gate {status.name} Error")
    if reason == runs.REMOTE_AWAY:
        draft.remote_is_away()
        return True
    exhausted = draft.infrastructure_failed(f"gate {status.name} could not be judged")
    if exhausted is not None:
        message = f"{exhausted}: {message}"
        draft.hold(Phase.BLOCKED, "InfraRetriesExhausted", f"{message}. Then: {outcomes.retry_command(draft)}")
    return True


def _change(draft: Draft, status: GateStatus, **changes: Any) -> None:
    draft.record_gate(status.model_copy(update={**changes, "checked_at": draft.now, "since": draft.now}))
