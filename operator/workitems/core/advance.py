"""The way through the stages: from wherever the item stands to the next thing that must be waited for.

The walk always begins at the first stage. A stage that is complete and whose gates all hold for the head is passed;
the first one that is not is where the item stands. So an approval that a later commit made void brings the item back
to its stage without a run, and a send-back is nothing but a stage that is no longer complete.
"""

from __future__ import annotations

from workitems.api import Gate, GateResult, GateStatus, Outcome, Phase, Rerun, Stage
from workitems.core import begin, checks, gate_jobs, gates, merging, outcomes, pull_requests, reviews
from workitems.core.draft import Draft
from workitems.core.stages import DONE

_MOST_STEPS = 100
"""More transitions than this in one look mean that the machine does not come to rest: a bug, found by the tests."""


def advance(draft: Draft) -> None:
    """Go on until the item waits or is done."""
    for _ in range(_MOST_STEPS):
        if draft.status.hold is not None:
            hold = draft.status.hold
            draft.wait(hold.phase, hold.reason, hold.message)
            return
        if not _walk(draft):
            return
    raise AssertionError(f"{draft.facts.item.key} does not come to rest: {'; '.join(draft.why[-4:])}")


def _walk(draft: Draft) -> bool:
    """One pass over the stages; True: the status has changed so that another pass is due."""
    for stage in draft.spec.stages:
        if draft.status.stage != stage.name and stage.name not in draft.status.completed:
            draft.set(stage=stage.name)
            draft.note(f"enter {stage.name}")
        if stage.name not in draft.status.completed:
            return begin.begin(draft, stage)
        if stage.pull_request is not None and pull_requests.ensure(draft, stage):
            if draft.status.hold is None or not draft.status.hold.stands:
                draft.set(stage=stage.name)
            return True
        settled = _settle_gates(draft, stage)
        if settled is None and stage.merge is not None:
            settled = merging.settle(draft, stage, stage.merge)
        if settled is not None:
            return settled
    unmerged = merging.settle_unmerged(draft)
    if unmerged is not None:
        return unmerged
    draft.finish(Phase.DONE, DONE)
    return False


def _settle_gates(draft: Draft, stage: Stage) -> bool | None:
    """Look at a complete stage's gates. None: all hold; True: walk again; False: wait."""
    rerun = _refresh(draft, stage)
    if rerun is not None:
        return rerun
    statuses = [(gate, _status(draft, stage, gate)) for gate in stage.gates]
    for gate, status in statuses:
        if status.result is GateResult.FAILED:
            draft.set(stage=stage.name)
            outcomes.gate_failed(draft, stage, gate, status)
            return True
        if status.result not in gates.FINAL:
            break
    pending = [(gate, status) for gate, status in statuses if status.result not in gates.FINAL]
    if not pending:
        return None
    draft.set(stage=stage.name)
    if checks.settle(draft, [(gate, status) for gate, status in pending if gate.ci]):
        return True
    failed = any(status.result is GateResult.FAILED for _, status in statuses)
    commands = [(gate, status) for gate, status in pending if gate.command]
    # A gate that failed already makes the ones behind it not worth starting; those before it come first.
    due = [(gate, status) for gate, status in commands if status.job is not None] or (
        [(gate, status) for gate, status in pending[:1] if gate.command] if failed else commands
    )
    if due:
        return gate_jobs.settle(draft, stage, *due[0])
    gate, status = pending[0]
    if gate.ci is not None:
        checks.wait(draft, gate, status)
    elif not pull_requests.pushed(draft):
        _wait_for_approval(draft, gate, status)
    return False


def _refresh(draft: Draft, stage: Stage) -> bool | None:
    """Look again at gates whose content has changed. None: go on; True: walk again."""
    content = draft.status.content
    if content is None:
        raise AssertionError("a complete stage has a content")
    judge = gates.Judge(stage, draft.paths, content, draft.now, forge=draft.has_forge)
    for gate in stage.gates:
        status = gates.find(draft.status.gates, stage.name, gate.name)
        if status is not None and status.reason != gates.VOID and judge.holds(gate, status):
            continue
        if gate.verdict:
            return _ask_again(draft, stage, gate)
        draft.note(f"look again at {gate.name}")
        attempt = status.attempt if status is not None else draft.status.attempts.get(stage.name, 1)
        if status is not None:
            draft.stop_gate_job(status)
        draft.record_gate(judge.at_head(gate, attempt))
    return None


def _ask_again(draft: Draft, stage: Stage, gate: Gate) -> bool:
    """What a verdict was about has changed: its agent must look again, and that counts as this gate's rework."""
    attempts = draft.rework(gate.name)
    limit = _limit(gate.on_failure)
    why = f"the code that {gate.name} judged has changed"
    draft.reopen(stage.name, why)
    draft.rerun(Rerun(reason=gates.VOID, findings=(f"{gate.name}: {why} since",)))
    draft.note(f"{gate.name} is void")
    if attempts + 1 > limit:
        used = f"{why} {attempts} times, and stage {stage.name} has used its {limit} attempts"
        draft.hold(Phase.BLOCKED, "ReworkExhausted", f"{used}. Then: {outcomes.retry_command(draft)}")
    return True


def _limit(entries: tuple[Outcome, ...]) -> int:
    limits = [outcome.max_attempts for outcome in entries if outcome.max_attempts is not None]
    return limits[0] if limits else outcomes.DEFAULT_ATTEMPTS


def _status(draft: Draft, stage: Stage, gate: Gate) -> GateStatus:
    status = gates.find(draft.status.gates, stage.name, gate.name)
    if status is None:
        raise AssertionError("refresh leaves a status for every gate")
    return status


def _wait_for_approval(draft: Draft, gate: Gate, status: GateStatus) -> None:
    commit = draft.status.head or status.commit or ""
    name = draft.facts.item.metadata.name
    approve = outcomes.decision_command(draft, "approve", f'{{gate: "{gate.name}", commit: "{commit}"}}')
    read = f"read {draft.paths.documents} at {commit[:12]}"
    known = draft.status.pull_request
    there = f"review {known.url}, or " if known is not None and reviews.wanted(draft) else ""
    message = f"{name} waits for a person at gate {gate.name}: {read}, then {there}run: {approve}"
    if not there:
        message = f"{name} waits for a person at gate {gate.name}: {read}, then: {approve}"
    draft.wait(Phase.IN_REVIEW, "WaitingForApproval", message)
