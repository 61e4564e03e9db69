"""The door of core/: one look at one item in, one step out.

decide() is pure: the same facts give the same plan, and a plan that has been carried out and is decided again comes
to rest. It reads as the order in which things matter: an item that is over does nothing more, what people said comes
first, then the run that is under way, then the way through the stages.
"""

from __future__ import annotations

from workitems.api import Phase, WorkItemStatus
from workitems.core import advance, begin, conditions, decisions, manifests, settle, start
from workitems.core.draft import DELETE_JOB, RELEASE_JOBS, Draft
from workitems.core.facts import Facts
from workitems.core.plan import DeleteJob, Plan, ReleaseJobs
from workitems.core.stages import CREATED


def decide(facts: Facts) -> Plan:
    """The next step of one WorkItem."""
    item = facts.item
    draft = Draft(facts)
    if item.metadata.deletion_timestamp is not None:
        # Everything the item made carries its ownerReference: the garbage collector does the rest, with or without us.
        return Plan("deleted", item.status)
    carry_out_effects(draft)
    decisions.apply(draft)
    if draft.status.phase not in conditions.FINISHED:
        _go_on(draft)
    return _plan(draft)


def _go_on(draft: Draft) -> None:
    if draft.status.stage == CREATED and not start.start(draft):
        return
    if draft.facts.pipeline is None:
        # The item's copy is gone: nothing can be judged, not even the end of a run, until it is restored.
        if draft.facts.problem is not None:
            start.wait_for(draft, draft.facts.problem)
        return
    if draft.status.run is not None and not settle.settle_run(draft):
        return
    if draft.look and draft.status.run is None and draft.status.looked_at == draft.facts.item.status.looked_at:
        begin.look(draft)
        return
    advance.advance(draft)


def carry_out_effects(draft: Draft) -> None:
    """Do what an earlier write announced; done before the write that records it, and harmless to repeat."""
    for effect in draft.status.effects:
        if effect.state != "Intended":
            continue
        if effect.kind == DELETE_JOB and effect.ref:
            draft.before.append(DeleteJob(effect.ref))
        elif effect.kind == RELEASE_JOBS:
            ttl = (
                draft.facts.pipeline.spec.ttl_seconds_after_finished if draft.facts.pipeline else manifests.DEFAULT_TTL
            )
            draft.before.append(ReleaseJobs(ttl))
        else:
            continue
        draft.effect_done(effect.id)
        draft.note(f"carry out {effect.id}")


def _plan(draft: Draft) -> Plan:
    before = draft.facts.item.status
    status = draft.status
    reason, message = _words(draft, before)
    if draft.waiting is not None and status.phase not in conditions.FINISHED:
        status = status.model_copy(update={"phase": draft.waiting.phase})
    status = conditions.waited(before, status, draft.now)
    if reason:
        generation = draft.facts.item.metadata.generation
        status = conditions.apply(status, reason, message, generation, draft.now)
    return Plan(
        why="; ".join(draft.why),
        status=status,
        before=tuple(draft.before),
        after=tuple(draft.after),
        requeue_seconds=_requeue(draft, status),
    )


def _words(draft: Draft, before: WorkItemStatus) -> tuple[str, str]:
    """What the Ready condition says; empty: leave it as it is."""
    status = draft.status
    if status.phase in conditions.FINISHED and before.phase not in conditions.FINISHED:
        if status.phase is Phase.ABORTED:
            by = next((d.by for d in status.decisions if (d.action, d.result) == ("Abort", "Accepted")), "a person")
            kept = f"the branch {status.branch} is kept" if status.branch else "it had not started"
            return "Aborted", f"aborted by {by}; {kept}"
        return "Done", f"branch {status.branch} is ready at {(status.head or '')[:12]}: every gate has passed"
    if status.phase in conditions.FINISHED and before.observed_generation != draft.facts.item.metadata.generation:
        # An edit after the end changes nothing, and kstatus must not wait for it for ever.
        ready = next((c for c in before.conditions if c.type == "Ready"), None)
        return (ready.reason, ready.message) if ready is not None else ("", "")
    if draft.waiting is not None:
        return draft.waiting.reason, draft.waiting.message
    return "", ""


def _requeue(draft: Draft, status: WorkItemStatus) -> float | None:
    # What was announced is looked at again at once: after a kill this is how it gets done.
    if any(effect.state == "Intended" for effect in status.effects):
        return 0.0
    return draft.requeue_seconds
