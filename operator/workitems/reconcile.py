"""One step of one item: observe, decide, act. The worker that the queue calls for every key.

The ledger of concurrent runs is asked and told here, without an await between the question and the taking, so two
items can never take the same slot. It is a memory of what status says, rebuilt at the start, and no truth of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import structlog

from workitems import act, errors, observe, slots, unreadable
from workitems.api import Phase, WorkItem, WorkItemStatus
from workitems.api.decision import DecisionStatus
from workitems.core import begin, conditions, stages
from workitems.core.decide import decide
from workitems.core.facts import Admission, Facts, JobView, Problem
from workitems.core.plan import Acknowledge, Action, CreateJob, EnsureClaim, EnsureSnapshot, Plan, ReleaseJobs
from workitems.echoes import Echoes
from workitems.outbox import Outbox
from workitems.readings import Readings

log = structlog.get_logger(__name__)

REFUSED_AGAIN_SECONDS = 15.0
"""How soon a create that the API server refused for good is tried again: a person may have mended the reason."""

STEPS_A_LOOK = 3
"""Steps that may follow from one look without another: a run announced, its Job recorded, nothing left to do."""

_ALONE = (EnsureSnapshot, EnsureClaim, ReleaseJobs)
"""Actions that change nothing that a look would find."""


class Witness(Protocol):
    """Who hears of a step once it is written: metrics, Events, the watch's signs of life. Never raises."""

    def clock(self) -> float:
        """Monotonic seconds."""

    def written(self, item: WorkItem, after: WorkItemStatus, began: float) -> None:
        """`after` was written over `item.status`; `began`: the clock before the request."""


@dataclass(frozen=True)
class Outside:
    """Who talks to the world outside, apart from the steps, and who hears of them."""

    outbox: Outbox
    readings: Readings
    witness: Witness
    misread: unreadable.Unreadable
    """Who tells people of what cannot be read."""


class Reconciler:
    """Brings one WorkItem one step on."""

    def __init__(
        self,
        observer: observe.Observer,
        actor: act.Actor,
        ledger: slots.Slots,
        outside: Outside,
        wake: Callable[[str], None],
    ) -> None:
        """Take who reads, who writes, the ledger, who talks to the outside, and how to put a key on the queue."""
        self._observer = observer
        self._actor = actor
        self._ledger = ledger
        self._outbox = outside.outbox
        self._readings = outside.readings
        self._wake = wake
        self._witness = outside.witness
        self._misread = outside.misread
        self._starting = asyncio.Lock()
        self._refused: dict[str, Problem] = {}
        self._echoes = Echoes(wake)
        self.stranded: set[str] = set()
        """Items that wait for a reference: their Repository's or Pipeline's next event is for them."""

    async def __call__(self, key: str) -> float | None:
        """Look, decide, act; the seconds after which to look again. Raises errors.Transient, errors.Permanent."""
        namespace, name = key.split("/", 1)
        try:
            facts = await self._observer.look(namespace, name)
        except unreadable.ItemUnreadableError as error:
            await self._misread.item(key, error)
            raise
        self._misread.forget(key)
        if facts is None:
            self._forget(key)
            await self._answer_nobody(namespace, name)
            return None
        self._misread.decisions(facts.misread)
        if facts.item.status.stage != stages.CREATED or facts.problem is not None:
            seconds, following = await self._step(key, facts)
        else:
            # Between asking who owns the branch and the write that claims it, no other item may start.
            async with self._starting:
                seconds, following = await self._step(key, await self._observer.with_branch(facts))
        for _ in range(STEPS_A_LOOK - 1):
            if following is not None:
                seconds, following = await self._step(key, following)
        return seconds if following is None else 0.0

    def is_echo(self, key: str, version: str) -> bool:
        """Whether an event is about a write of our own, after which we have looked ourselves or will; told once."""
        return self._echoes.is_echo(key, version)

    async def _step(self, key: str, facts: Facts) -> tuple[float | None, Facts | None]:
        """One step; when to look again, and the facts of a next step that needs no look."""
        claim = _claim(key, facts)
        facts = replace(
            facts,
            admission=self._admission(claim),
            outcomes=self._outbox.outcomes(key, facts.uid),
            reading=self._readings.take(key),
        )
        plan = decide(facts)
        if claim is not None and begin.occupies(plan.status):
            self._ledger.take(claim)
        if key in self._refused and plan.status.run == facts.item.status.run:
            plan = await self._try_refused_again(key, facts, plan)
        following = await self._carry_out(key, facts, plan)
        self._settle_slot(key, claim, plan)
        self._remember(key, facts, plan)
        if plan.status.phase in conditions.FINISHED:
            self._readings.forget(key)
            self._observer.forget(key)
        else:
            self._readings.ask(key, facts.item, plan.question)
        return plan.requeue_seconds, following

    async def _carry_out(self, key: str, facts: Facts, plan: Plan) -> Facts | None:
        """Act; the facts as the answers to our own writes tell them, where those are all that has changed.

        An answer is as live as a read, and what is decided next is guarded by the resourceVersion it carries: recording
        the Job of a run that was just created then needs no look of its own. None: nothing was written, or the next
        look, which is on its way then, must read.
        """
        try:
            await self._actor.perform(facts.item, plan.before)
        except errors.WorkItemsError:
            self._not_announced(key, facts)
            raise
        written = facts.item.model_copy(update={"status": plan.status})
        changed = plan.status != facts.item.status
        if changed:
            began = self._witness.clock()
            try:
                with self._echoes.writing(key) as write:
                    written = await self._actor.write_status(facts.item, plan.status)
                    if facts.item.status.phase not in conditions.FINISHED:
                        # Of an item that was over before, the watch, which is of unfinished ones, tells nothing.
                        write.version = written.metadata.resource_version
            except errors.Permanent:
                self._not_announced(key, facts)
                raise
            except errors.Conflict:
                raise
            except errors.Transient:
                self._outbox.perhaps_written(facts.item, written)
                raise
            # After a Transient error, even a conflict (the client repeats a PUT whose answer was lost), the run may be
            # announced: it keeps its slot until the next look tells.
            _log_step(key, facts, plan)
            self._witness.written(facts.item, plan.status, began)
        self._outbox.written(key, facts.item, written, facts.outcomes)
        try:
            created = await self._actor.perform(facts.item, plan.after)
        except errors.Permanent as refusal:
            # The announcement stands; why it cannot be carried out goes into status with the next look.
            log.warning("refused", item=key, reason=refusal.reason, message=str(refusal))
            self._refused[key] = Problem(refusal.reason, str(refusal), blocked=True)
            self._wake(key)
            return None
        if not changed:
            return None
        following = _following(facts, plan, written, created)
        if following is None:
            self._wake(key)
        return following

    async def _try_refused_again(self, key: str, facts: Facts, plan: Plan) -> Plan:
        """What was announced earlier and refused: try before anything is written, so that status does not flap."""
        announced = tuple(action for action in plan.after if _is_announced(facts.item.status, action))
        try:
            await self._actor.perform(facts.item, announced)
        except errors.Permanent as refusal:
            problem = Problem(refusal.reason, str(refusal), blocked=True)
            plan = decide(replace(facts, problem=problem))
            return replace(plan, requeue_seconds=REFUSED_AGAIN_SECONDS)
        del self._refused[key]
        return replace(plan, after=tuple(action for action in plan.after if action not in announced))

    async def _answer_nobody(self, namespace: str, name: str) -> None:
        """Decisions about an item that is not there."""
        decisions, misread = await self._observer.pending_decisions(namespace, name)
        self._misread.decisions(misread)
        for decision in decisions:
            status = DecisionStatus(
                result="Ignored",
                reason="NoSuchItem",
                message=f"there is no WorkItem {name} in namespace {namespace}",
                at=self._observer.now(),
            )
            await self._actor.acknowledge(namespace, Acknowledge(decision.metadata.name, decision.metadata.uid, status))
            log.info("decision ignored", decision=f"{namespace}/{decision.metadata.name}", message=status.message)

    def adopt(self, key: str, facts: Facts) -> None:
        """Register what status says at the operator's start: a holder keeps its slot, who waits its place in line."""
        claim = _claim(key, facts)
        if claim is not None and begin.occupies(facts.item.status):
            self._ledger.adopt(claim)
        elif claim is not None:
            # Nobody is woken: all of them are looked at next.
            self._ledger.wait(claim)

    def _admission(self, claim: slots.Claim | None) -> Admission:
        if claim is None:
            return Admission(granted=True)
        answer = self._ledger.peek(claim)
        if answer.granted:
            return Admission(granted=True)
        message = f"waits for one of {answer.limit} concurrent runs of {answer.pool}, behind {answer.behind}"
        return Admission(granted=False, message=message)

    def _settle_slot(self, key: str, claim: slots.Claim | None, plan: Plan) -> None:
        """After the write: hold, wait, or let go, as the written status says."""
        if begin.occupies(plan.status):
            return
        queued = claim is not None and plan.status.phase is Phase.QUEUED
        woken = self._ledger.wait(claim) if queued and claim is not None else self._ledger.release(key)
        for other in woken:
            self._wake(other)

    def _remember(self, key: str, facts: Facts, plan: Plan) -> None:
        if facts.problem is not None and plan.status.phase not in conditions.FINISHED:
            self.stranded.add(key)
        else:
            self.stranded.discard(key)

    def _forget(self, key: str) -> None:
        self._refused.pop(key, None)
        self._echoes.forget(key)
        self.stranded.discard(key)
        self._outbox.forget(key)
        self._readings.forget(key)
        self._let_go(key)

    def _not_announced(self, key: str, facts: Facts) -> None:
        """What was not announced holds no slot: an item that cannot be written must not keep others waiting."""
        if not begin.occupies(facts.item.status):
            self._let_go(key)

    def _let_go(self, key: str) -> None:
        for other in self._ledger.release(key):
            self._wake(other)


def _is_announced(status: WorkItemStatus, action: Action) -> bool:
    """Whether an action only carries out what status says already: done before that, a kill would lose the reason."""
    match action:
        case CreateJob(manifest):
            jobs = {gate.job for gate in status.gates} | {status.run.job if status.run is not None else None}
            return manifest["metadata"]["name"] in jobs
        case Acknowledge(uid=uid):
            return any(record.uid == uid for record in status.decisions)
        case _:
            return True


def _following(facts: Facts, plan: Plan, written: WorkItem, created: dict[str, JobView]) -> Facts | None:
    """What a look would find now, if a status was written and Jobs were created, and nothing else has happened.

    None where more was involved than that: decisions, effects outside, a forge, a Job that was there before.
    """
    if any((facts.decisions, facts.outcomes, facts.reading, plan.question)):
        return None
    if not all(isinstance(action, _ALONE) for action in plan.before):
        return None
    status = plan.status
    if status.phase in conditions.FINISHED:
        return replace(facts, item=written, repository=None, run_job=None, gate_jobs={}, problem=None)
    if status.run is None:
        return None
    job = created.get(status.run.job)
    if job is None and facts.item.status.run is not None and facts.item.status.run.job == status.run.job:
        job = facts.run_job
    return None if job is None else replace(facts, item=written, run_job=job)


def _log_step(key: str, facts: Facts, plan: Plan) -> None:
    before, after = facts.item.status, plan.status
    changed = [name for name in type(after).model_fields if getattr(before, name) != getattr(after, name)]
    reason = next((c.reason for c in after.conditions if c.type == "Ready"), "")
    # Of the run that is under way, or that this step saw the end of.
    run = after.run or before.run
    where = {"item": key, "stage": after.stage, "phase": after.phase, "run": run.number if run is not None else None}
    log.info("step", **where, reason=reason, changed=changed, plan=str(plan))


def _claim(key: str, facts: Facts) -> slots.Claim | None:
    """The item's claim on a slot; None where its Pipeline or Repository is not known yet."""
    item, pipeline, repository = facts.item, facts.pipeline, facts.repository
    if pipeline is None or repository is None:
        return None
    created = item.metadata.creation_timestamp or facts.now
    pools = (
        (f"Pipeline {pipeline.namespace}/{pipeline.name}", pipeline.spec.limits.max_concurrent_runs),
        (f"Repository {item.metadata.namespace}/{item.spec.repository}", repository.spec.limits.max_concurrent_runs),
    )
    return slots.Claim(key=key, pools=pools, priority=item.spec.priority, created=created)
