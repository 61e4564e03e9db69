"""The beginning of a run: everything that may stand in its way, then its announcement.

The announcement is the status write that names the run's number and its Job; the Job is created after it, under a
name that the number alone decides. So a kill between the two leaves an announcement that the next look completes.
"""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

from workitems.api import CurrentRun, GateResult, Phase, RunResult, Stage, WorkItemStatus, duration
from workitems.core import launch, manifests, outcomes, runs
from workitems.core.conditions import FINISHED, WAITS_FOR_PEOPLE
from workitems.core.draft import Draft
from workitems.core.facts import Problem
from workitems.core.plan import CreateJob, EnsureClaim
from workitems.core.start import wait_for

LOOKER = "look"
"""What stands in an agent's place for a Job that only looks at the branch."""

AWAY_FOR_LONG = timedelta(minutes=10)
"""A git server that is away for longer is perhaps none: the address may be mistyped."""

LIMIT_REASONS = ("MaxRunsReached", "MaxCostReached", "MaxDurationReached")


def occupies(status: WorkItemStatus) -> bool:
    """Whether the item takes one of the concurrent runs: a run or a gate's Job is announced or under way."""
    if status.phase in FINISHED:
        return False
    return status.run is not None or any(
        gate.job is not None and gate.result is GateResult.PENDING for gate in status.gates
    )


def begin(draft: Draft, stage: Stage) -> bool:
    """Announce a run of `stage`, or say what it waits for. True: walk again (a hold was set)."""
    if draft.facts.problem is not None:
        wait_for(draft, draft.facts.problem)
        return False
    limit = limit_reached(draft)
    if limit is not None:
        draft.hold(Phase.BLOCKED, *limit)
        return True
    if not may_start(draft):
        return False
    status = draft.status
    number = status.last_run + 1
    attempt = _attempt(status, stage.name)
    run = CurrentRun(
        number=number,
        agent=stage.agent,
        stage=stage.name,
        attempt=attempt,
        job=manifests.run_job_name(draft.facts.item, stage.name, attempt, number),
        started_at=draft.now,
    )
    size = manifests.task_bytes(draft.facts, status, run)
    if size > manifests.TASK_LIMIT:
        wait_for(draft, _too_large(draft, size))
        return False
    draft.set(run=run, last_run=number, attempts={**status.attempts, stage.name: attempt}, next_attempt_at=None)
    draft.note(f"announce run {number} of {stage.agent}")
    create_job(draft, run)
    return False


def look(draft: Draft) -> None:
    """Announce a Job that only reports what the branch's head is now; no agent, and no run against maxRuns."""
    if draft.facts.problem is not None:
        wait_for(draft, draft.facts.problem)
        return
    if not may_start(draft):
        return
    status = draft.status
    number = status.last_run + 1
    run = CurrentRun(
        number=number,
        agent=LOOKER,
        stage=status.stage,
        attempt=status.attempts.get(status.stage, 1),
        job=manifests.run_job_name(draft.facts.item, LOOKER, 1, number),
        started_at=draft.now,
        kind="Look",
    )
    draft.set(run=run, last_run=number, next_attempt_at=None)
    draft.note(f"announce look {number}")
    create_job(draft, run)


def _too_large(draft: Draft, size: int) -> Problem:
    message = (
        f"the task of {draft.facts.item.metadata.name} has {size} bytes as JSON, and a pod's annotations have room for "
        f"{manifests.TASK_LIMIT}: shorten spec.description (control characters take six bytes each)"
    )
    return Problem("TaskTooLarge", message, blocked=True)


def may_look(draft: Draft) -> bool:
    """Whether a look at the branch may start now; nothing is said where it may not."""
    again = draft.status.next_attempt_at
    waits = draft.facts.item.spec.suspend or (again is not None and again > draft.now)
    return not waits and draft.facts.admission.granted and draft.facts.problem is None


def may_try(draft: Draft) -> bool:
    """Whether the wait after an infrastructure failure is over; else the draft says so."""
    status = draft.status
    if status.next_attempt_at is not None and status.next_attempt_at > draft.now:
        last, away = status.runs[-1] if status.runs else None, status.remote_away_since
        again = f"trying again at {status.next_attempt_at:%H:%M:%S} UTC"
        if away is None:
            reason, message = "Backoff", f"{again} after an infrastructure failure"
        else:
            reason = runs.REMOTE_AWAY
            message = f"the git server has not answered since {away:%Y-%m-%d %H:%M:%S} UTC, {again}"
        if last is not None and last.message and (away is None or last.reason == reason):
            message = f"{message}: {last.message}"
        if away is not None and draft.now - away >= AWAY_FOR_LONG:
            message = f"{message}. After so long, {_what_to_check(draft)}"
        draft.wait(Phase.IN_PROGRESS, reason, message)
        draft.again_in(status.next_attempt_at - draft.now)
        return False
    return True


def _what_to_check(draft: Draft) -> str:
    meta, name = draft.facts.item.metadata, draft.facts.item.spec.repository
    return (
        f"check spec.url of Repository {name} (its host, its port), and that pods of namespace {meta.namespace} may "
        "reach it (DNS, NetworkPolicies, a proxy)"
    )


def may_start(draft: Draft) -> bool:
    """Whether one more Job may start now; else the draft says what it waits for."""
    if draft.facts.item.spec.suspend:
        draft.wait(Phase.SUSPENDED, "Suspended", "spec.suspend is true: no new run starts; set it to false to go on")
        return False
    if not may_try(draft):
        return False
    if not draft.facts.admission.granted:
        draft.wait(Phase.QUEUED, "Queued", draft.facts.admission.message)
        return False
    return True


def create_job(draft: Draft, run: CurrentRun) -> bool:
    """Create the announced run's Job; always False: the run has not ended."""
    facts = draft.facts
    if facts.problem is not None or facts.repository is None or facts.pipeline is None:
        if facts.problem is not None:
            wait_for(draft, facts.problem)
        return False
    claim = manifests.claim(facts.item, facts.repository)
    if claim is not None:
        draft.after.append(EnsureClaim(claim))
    draft.after.append(CreateJob(manifests.run_job(facts, draft.status, run)))
    draft.wait(
        Phase.IN_PROGRESS,
        "RunStarting",
        "looks at the branch"
        if run.kind == "Look"
        else f"{run.agent} run {run.number} (attempt {run.attempt} of stage {run.stage}) starts",
    )
    draft.again_in(timedelta(seconds=30))
    return False


def _attempt(status: WorkItemStatus, stage: str) -> int:
    """A repetition of what infrastructure lost is the same attempt."""
    last = status.runs[-1] if status.runs else None
    lost = last is not None and last.stage == stage and last.result in (RunResult.LOST, RunResult.EVICTED)
    return status.attempts.get(stage, 0) + (0 if lost and stage in status.attempts else 1)


def limit_reached(draft: Draft) -> tuple[str, str] | None:
    """The reason and message of the limit that forbids another run, if one does."""
    own, shared, status = draft.facts.item.spec.limits, draft.spec.limits, draft.status
    most = own.max_runs or shared.max_runs
    if status.usage.runs >= most:
        return _limit(draft, "MaxRunsReached", f"{status.usage.runs} of at most {most} runs are used", "maxRuns")
    cost = launch.cost_limit(draft.facts)
    if cost is not None and Decimal(status.usage.cost_usd) >= cost:
        used = f"{status.usage.cost_usd} of at most {cost} USD are used"
        return _limit(draft, "MaxCostReached", used, "maxCostUSD")
    longest = own.max_duration or shared.max_duration
    if longest is not None and status.started_at is not None and _worked(draft) >= duration(longest):
        return _limit(draft, "MaxDurationReached", f"the item has been worked on for {longest}", "maxDuration")
    return None


def _worked(draft: Draft) -> timedelta:
    """Time since the start without the time spent waiting for people."""
    status = draft.facts.item.status
    started = draft.status.started_at or draft.now
    waited = timedelta(seconds=status.waited_seconds)
    if status.phase in WAITS_FOR_PEOPLE and status.phase_since is not None:
        waited += draft.now - status.phase_since
    return draft.now - started - waited


def _limit(draft: Draft, reason: str, used: str, field: str) -> tuple[str, str]:
    meta = draft.facts.item.metadata
    value = "MORE" if field == "maxRuns" else '"MORE"'
    raise_it = (
        f"kubectl -n {meta.namespace} patch workitem {meta.name} --type merge "
        f'-p \'{{"spec": {{"limits": {{"{field}": {value}}}}}}}\''
    )
    return reason, f"{used}. Raise it: {raise_it}. Then: {outcomes.retry_command(draft)}"
