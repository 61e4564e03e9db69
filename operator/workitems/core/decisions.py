"""What people said: each Decision is applied once, in order, and told what became of it.

Accepted changed something. Ignored changed nothing: too late, too early, the wrong item or gate. Void was meant for
content that is no longer (or never was) at the head. A Reject beats an Approve of the same content, and a Decision
older than the item was said to another item of the same name.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from workitems.api import (
    DECISIONS_KEPT,
    MESSAGE_LIMIT,
    Acknowledgement,
    Decision,
    DecisionRecord,
    DecisionSpec,
    GateResult,
    GateStatus,
    Phase,
    Rerun,
)
from workitems.api.decision import DecisionStatus
from workitems.core import begin, gates, pull_requests, stages
from workitems.core.conditions import FINISHED
from workitems.core.draft import DELETE_JOB, Draft
from workitems.core.plan import Acknowledge
from workitems.core.stages import CREATED

Answer = tuple[Acknowledgement, str, str]
"""Result, reason, message."""


def apply(draft: Draft) -> None:
    """Apply the Decisions that are not acknowledged yet, as many as status can remember until they are."""
    recorded = {record.uid for record in draft.status.decisions}
    ordered = _in_order(draft.facts.decisions)
    rejected: set[str] = set()
    """Gates with a Reject that waits for a look at the branch."""
    room = DECISIONS_KEPT - sum(decision.metadata.uid in recorded for decision in ordered)
    for decision in ordered:
        if decision.metadata.uid not in recorded and room <= 0:
            draft.again_in(timedelta(0))
            continue
        known = next((r for r in draft.status.decisions if r.uid == decision.metadata.uid), None)
        if known is None:
            approve, reject = decision.spec.approve, decision.spec.reject
            answer = None if approve is not None and approve.gate in rejected else _judge(draft, decision)
            if answer is None:
                draft.look = True
                rejected |= {reject.gate} if reject is not None else set()
                continue
            room -= 1
            known = _record(draft, decision, answer)
        status = DecisionStatus(result=known.result, reason=known.reason, message=known.message, at=known.at)
        draft.after.append(Acknowledge(decision.metadata.name, decision.metadata.uid, status))


def _record(draft: Draft, decision: Decision, answer: Answer) -> DecisionRecord:
    """What became of a Decision, remembered in status."""
    result, reason, message = answer
    record = DecisionRecord(
        name=decision.metadata.name,
        uid=decision.metadata.uid,
        action=decision.spec.action,
        by=decision.spec.by,
        result=result,
        reason=reason,
        message=message[:1024],
        at=draft.now,
    )
    draft.set(decisions=_remembered(draft, record))
    draft.note(f"{record.action} {record.name} {record.result}")
    return record


def _remembered(draft: Draft, new: DecisionRecord) -> tuple[DecisionRecord, ...]:
    """The newest records, and those whose acknowledgement may still be lost: forgotten, they would count twice."""
    open_uids = {decision.metadata.uid for decision in draft.facts.decisions}
    records = (*draft.status.decisions, new)
    closed = [record for record in records if record.uid not in open_uids]
    surplus = {record.uid for record in closed[: max(len(records) - DECISIONS_KEPT, 0)]}
    return tuple(record for record in records if record.uid not in surplus)


def _in_order(decisions: tuple[Decision, ...]) -> list[Decision]:
    """By creation, then name; but a Reject that is already there goes before the Approves of its gate."""
    ordered = sorted(decisions, key=lambda d: (_created(d), d.metadata.name))
    rejected = {d.spec.reject.gate for d in ordered if d.spec.reject is not None}
    return sorted(ordered, key=lambda d: d.spec.approve is not None and d.spec.approve.gate in rejected)


def _created(decision: Decision) -> float:
    created = decision.metadata.creation_timestamp
    return created.timestamp() if created is not None else 0.0


def _judge(draft: Draft, decision: Decision) -> Answer | None:
    """What becomes of a Decision; None: nobody can tell before the branch has been looked at."""
    item, spec = draft.facts.item, decision.spec
    created = item.metadata.creation_timestamp
    said = decision.metadata.creation_timestamp
    if created is not None and said is not None and said < created:
        return "Ignored", "OlderThanItem", f"said before this WorkItem {item.metadata.name} was created"
    if draft.status.phase in FINISHED:
        return "Ignored", "ItemFinished", f"{item.metadata.name} is already {draft.status.phase}"
    if spec.abort is not None:
        return _abort(draft)
    if draft.status.stage == CREATED:
        if spec.retry is not None and draft.status.phase is Phase.BLOCKED:
            return "Accepted", "Retried", "looked again at what keeps the item from starting"
        return "Ignored", "NotStarted", f"{item.metadata.name} has not started"
    if draft.facts.pipeline is None:
        problem = draft.facts.problem
        if problem is None:
            raise AssertionError("observe reports a problem where a reference is missing")
        return "Ignored", problem.reason, f"the item's copy of its Pipeline cannot be used: {problem.message}"
    if spec.approve is not None:
        return _approve(draft, decision)
    if spec.reject is not None:
        return _reject(draft, decision)
    if spec.answer is not None:
        return _answer(draft, spec)
    if spec.retry is not None:
        return _retry(draft, spec)
    return _send_back(draft, spec)


def _abort(draft: Draft) -> Answer:
    run = draft.status.run
    jobs = [run.job] if run is not None else []
    jobs += [g.job for g in draft.status.gates if g.job is not None and g.result is GateResult.PENDING]
    for job in jobs:
        draft.intend(f"stop-{job}", DELETE_JOB, job)
    stage = draft.status.stage
    draft.set(run=None)
    pull_requests.close(draft)
    draft.finish(Phase.ABORTED, stage)
    return "Accepted", "Aborted", f"stopped in stage {stage}; the branch is kept"


def _awaited(draft: Draft, gate_name: str) -> GateStatus | Answer:
    """The approval gate of that name, if it is being waited for."""
    for stage in draft.spec.stages:
        for gate in stage.gates:
            if gate.name != gate_name or gate.approval is None:
                continue
            status = gates.find(draft.status.gates, stage.name, gate.name)
            run = draft.status.run
            live = stage.name in draft.status.completed and (run is None or run.kind == "Look")
            if status is not None and status.result is GateResult.PENDING and live and draft.status.hold is None:
                return status
            now = f"it is {status.result} ({status.reason})" if status is not None else "it has not been reached"
            if draft.status.hold is not None:
                now = f"the item is {draft.status.hold.phase} ({draft.status.hold.reason})"
            return "Ignored", "NotAwaited", f"gate {gate_name} does not wait for a decision: {now}"
    names = ", ".join(g.name for s in draft.spec.stages for g in s.gates if g.approval) or "none"
    return "Ignored", "NoSuchGate", f"the Pipeline has no approval gate {gate_name!r} (there are: {names})"


def _approve(draft: Draft, decision: Decision) -> Answer | None:
    spec = decision.spec
    if spec.approve is None:
        raise AssertionError("only Approve comes here")
    status = _awaited(draft, spec.approve.gate)
    if not isinstance(status, GateStatus):
        return status
    if (waits := _what_waits(draft, decision, status, spec.approve.commit)) is not True:
        return waits
    approved = status.model_copy(
        update={
            "result": GateResult.PASSED,
            "reason": "Approved",
            "message": _said(f"approved by {spec.by}", spec.comment)[:MESSAGE_LIMIT],
            "commit": spec.approve.commit,
            "since": draft.now,
            "checked_at": draft.now,
        }
    )
    draft.record_gate(approved)
    return "Accepted", "Approved", f"gate {status.name} passed for {spec.approve.commit[:12]}"


def _what_waits(draft: Draft, decision: Decision, status: GateStatus, commit: str) -> Answer | Literal[True] | None:
    """True: `commit` has what waits at the gate; else what becomes of the Decision; None: nobody can tell yet."""
    content = draft.status.content
    stage = stages.stage_named(draft.spec, status.stage)
    if content is None or stage is None:
        raise AssertionError("an awaited gate has a stage and a content")
    gate = next(g for g in stage.gates if g.name == status.name)
    same = gates.Judge(stage, draft.paths, content, draft.now).holds(gate, status)
    known = commit in (status.commit, draft.status.head)
    if not known and not _looked_since(draft, decision):
        # Perhaps the person improved the documents and pushed: the branch is looked at before the answer.
        return None
    if known and same:
        return True
    message = (
        f"{commit[:12]} is not what waits for approval: read {draft.paths.documents} at "
        f"{draft.status.head} and say it about that commit"
    )
    return "Void", "OtherContent", message


def _looked_since(draft: Draft, decision: Decision) -> bool:
    looked, said = draft.status.looked_at, decision.metadata.creation_timestamp
    return looked is not None and (said is None or said <= looked)


def _reject(draft: Draft, decision: Decision) -> Answer | None:
    spec = decision.spec
    if spec.reject is None:
        raise AssertionError("only Reject comes here")
    status = _awaited(draft, spec.reject.gate)
    if not isinstance(status, GateStatus):
        return status
    if draft.status.run is not None:
        # What the look finds may make the gate new: a Reject of the old one would be accepted and come to nothing.
        return None
    if spec.reject.commit is not None:
        waits = _what_waits(draft, decision, status, spec.reject.commit)
        if waits is not True:
            return waits
    rejected = status.model_copy(
        update={
            "result": GateResult.FAILED,
            "reason": "Rejected",
            "message": _said(f"rejected by {spec.by}", spec.comment)[:MESSAGE_LIMIT],
            "since": draft.now,
            "checked_at": draft.now,
        }
    )
    draft.record_gate(rejected)
    if len(rejected.message) < len(_said("", spec.comment)):
        # The gate's message is cut; the agent reads all that was said.
        draft.rerun(Rerun(reason="Rejected", answers=(spec.comment,)))
    return "Accepted", "Rejected", f"gate {status.name} failed for {(status.commit or '')[:12]}"


def _answer(draft: Draft, spec: DecisionSpec) -> Answer:
    hold = draft.status.hold
    if hold is None or hold.phase is not Phase.NEEDS_INPUT:
        return "Ignored", "NoQuestion", f"the item does not wait for an answer: it is {draft.status.phase}"
    before = draft.status.rerun or Rerun(reason="Answered")
    draft.set(hold=None)
    draft.reopen(draft.status.stage, "answered")
    draft.rerun(before.model_copy(update={"reason": "Answered", "answers": (*before.answers, spec.comment)[-16:]}))
    return "Accepted", "Answered", f"stage {draft.status.stage} runs again with the answer"


def _retry(draft: Draft, spec: DecisionSpec) -> Answer:
    status = draft.status
    if status.hold is None:
        if status.phase is Phase.BLOCKED and draft.facts.item.status.hold is None:
            return "Accepted", "Retried", "looked again at what blocks the item"
        return "Ignored", "NotBlocked", f"the item is not Blocked: it is {status.phase}"
    if status.hold.reason in begin.LIMIT_REASONS:
        limit = begin.limit_reached(draft)
        if limit is not None:
            return "Ignored", limit[0], limit[1]
    before = status.rerun or Rerun(reason="Retried")
    draft.set(hold=None)
    draft.reset_counters()
    # A limit stops the item between two runs, as a merge that failed does: nothing has to be done again.
    if status.hold.reason not in begin.LIMIT_REASONS and not status.hold.stands:
        draft.reopen(status.stage, "retried")
    words = (*before.answers, spec.comment)[-16:] if spec.comment else before.answers
    draft.rerun(before.model_copy(update={"answers": words}))
    if status.hold.stands:
        return "Accepted", "Retried", f"stage {status.stage} goes on from where it stands"
    return "Accepted", "Retried", f"stage {status.stage} runs afresh"


def _send_back(draft: Draft, spec: DecisionSpec) -> Answer:
    if spec.send_back is None:
        raise AssertionError("only SendBack comes here")
    target = spec.send_back.stage
    names = [stage.name for stage in draft.spec.stages]
    if target not in names:
        return "Ignored", "NoSuchStage", f"the Pipeline has no stage {target!r} (there are: {', '.join(names)})"
    if names.index(target) > stages.index_of(draft.spec, draft.status.stage):
        return "Ignored", "StageAhead", f"{target} comes after {draft.status.stage}: an item is only sent back"
    if draft.status.run is not None:
        run = draft.status.run
        message = f"run {run.number} is under way: say it again when it is over, or abort"
        return "Ignored", "RunInProgress", message
    # What somebody said a moment ago, or what no run has been told yet, goes along.
    rejected = (g for g in draft.status.gates if g.reason == "Rejected" and g.stage in draft.status.completed)
    before = draft.status.rerun or Rerun(reason="SentBack")
    findings = (*before.findings, *(f"{gate.name}: {gate.message}" for gate in rejected))
    draft.set(hold=None)
    draft.reset_counters()
    said = _said(f"sent back by {spec.by}", spec.comment)
    draft.reopen(target, said[:MESSAGE_LIMIT])
    short = len(said) <= MESSAGE_LIMIT
    update = {
        "reason": "SentBack",
        "merge_base": False,
        "findings": (*findings, said if short else f"sent back by {spec.by}"),
        "answers": before.answers if short else (*before.answers, spec.comment)[-16:],
    }
    draft.rerun(before.model_copy(update=update))
    return "Accepted", "SentBack", f"continues at stage {target}"


def _said(what: str, comment: str) -> str:
    return f"{what}: {comment}" if comment else what
