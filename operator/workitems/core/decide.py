"""The door of core/: one look at one item in, one step out.

decide() is pure: the same facts give the same plan, and a plan that has been carried out and is decided again comes
to rest. It reads as the order in which things matter: an item that is over does nothing more, what people said comes
first, then the run that is under way, then the way through the stages.
"""

from __future__ import annotations

from workitems.api import Phase, WorkItemStatus
from workitems.core import (
    advance,
    announce,
    begin,
    conditions,
    decisions,
    effects,
    manifests,
    pull_requests,
    reviews,
    settle,
    start,
)
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
    learn_outcomes(draft)
    carry_out_effects(draft)
    decisions.apply(draft)
    if draft.status.phase not in conditions.FINISHED:
        _go_on(draft)
    if item.status.phase not in conditions.FINISHED and draft.status.phase is not Phase.ABORTED:
        pull_requests.describe(draft)
        if reviews.wanted(draft) and draft.status.content is not None:
            reviews.settle(draft, pull_requests.question(draft))
    if not draft.merging:
        # Whatever the item does instead, nothing is merged meanwhile.
        draft.withdraw(pull_requests.MERGE, pull_requests.UPDATE_BRANCH)
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


def learn_outcomes(draft: Draft) -> None:
    """Write down what became of the effects outside the cluster."""
    for outcome in draft.facts.outcomes:
        before = draft.status.effects
        draft.set(effects=effects.folded(before, outcome))
        pull_requests.learn(draft, outcome.values)
        if draft.status.effects != before:
            draft.note(f"{outcome.id} {outcome.reason or outcome.state}")


def carry_out_effects(draft: Draft) -> None:
    """Do what an earlier write announced within the cluster: before the write that records it, harmless to repeat."""
    for effect in draft.status.effects:
        if effect.state != "Intended" or effect.target:
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
    generation = draft.facts.item.metadata.generation
    if reason:
        status = conditions.apply(status, reason, message, generation, draft.now)
    status = announce.announced(draft.facts, status)
    status = effects.described(status, generation, draft.now)
    return Plan(
        why="; ".join(draft.why),
        status=status,
        before=tuple(draft.before),
        after=tuple(draft.after),
        requeue_seconds=_requeue(draft, status),
        question=draft.question if status.phase not in conditions.FINISHED else None,
    )


def _words(draft: Draft, before: WorkItemStatus) -> tuple[str, str]:
    """What the Ready condition says; empty: leave it as it is."""
    status = draft.status
    if status.phase in conditions.FINISHED and before.phase not in conditions.FINISHED:
        if status.phase is Phase.ABORTED:
            by = next((d.by for d in status.decisions if (d.action, d.result) == ("Abort", "Accepted")), "a person")
            kept = f"the branch {status.branch} is kept" if status.branch else "it had not started"
            return "Aborted", f"aborted by {by}; {kept}"
        return "Done", f"{_result(status)}: every gate has passed"
    if draft.waiting is not None:
        return draft.waiting.reason, draft.waiting.message
    return "", ""


def _result(status: WorkItemStatus) -> str:
    """What an item that is done leaves behind."""
    merged = status.pull_request
    if merged is not None and merged.state == "merged":
        into = f" as {merged.merge_commit[:12]}" if merged.merge_commit else ""
        return f"pull request {merged.number} is merged into {merged.base or status.base_branch}{into} ({merged.url})"
    ready = f"branch {status.branch} is ready at {(status.head or '')[:12]}"
    return f"{ready} in pull request {merged.number} ({merged.url})" if merged is not None else ready


def _requeue(draft: Draft, status: WorkItemStatus) -> float | None:
    # What was announced is looked at again at once: after a kill this is how it gets done.
    if any(effect.state == "Intended" and not effect.target for effect in status.effects):
        return 0.0
    again = effects.next_attempt(status.effects, draft.now)
    if again is not None:
        draft.again_in(again - draft.now)
    return draft.requeue_seconds
