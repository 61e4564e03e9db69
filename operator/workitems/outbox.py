"""The outbox's executor: carries out what items have announced for the world outside, apart from their steps.

A slow or dead forge, tracker or chat must not hold anything up but itself. So every item has a lane for each target:
a lane carries out its effects one by one, in the order in which they were announced; lanes know nothing of each other.
What became of an effect is kept in memory until the item's next step has written it into status; a kill in between
leaves the effect Intended, and it is carried out again, which every kind but one allows because it looks first.
The exception is Notify: a message cannot be looked up, so one that may have been sent is never sent again.
"""

from __future__ import annotations

import asyncio
import random
import weakref
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

import structlog

from workitems import errors
from workitems.api import Effect, WorkItem
from workitems.core import effects
from workitems.core.facts import EffectOutcome

log = structlog.stdlib.get_logger(__name__)

BASE_SECONDS = 5.0
MAX_SECONDS = 300.0
REFUSALS = 24
"""After so many a refusal is final: about an hour and a half, in which a person may mend what is wrong."""
LONGEST_RETRY_AFTER_SECONDS = 3600.0
"""A server that asks for more is asked again then."""
SLOW_SECONDS = 1800.0
"""The wait after so many refusals, where they are never final."""
LANES_A_TARGET = 4
"""Items that talk to the same target of one Repository at the same time."""
PATIENCE_SECONDS = 120.0
"""For one effect, all its requests together."""


@dataclass(frozen=True)
class Result:
    """How carrying out an effect ended, where it got an answer."""

    state: Literal["Done", "Failed"] = "Done"
    ref: str | None = None
    """What it made, as the other side names it."""
    reason: str | None = None
    """Of a failure that trying again does not mend."""
    error: str | None = None
    values: dict[str, str] = field(default_factory=dict)
    """What the core is to learn besides."""


Carrier = Callable[[WorkItem, Effect], Awaitable[Result | None]]
"""Carries out one effect of an item that was read a moment ago; None: not now. Raises Transient and Permanent.

Whatever it does may have been done before: it looks first.
"""

Key = str
Lane = tuple[Key, str]
"""An item's key and a target."""


class Outbox:
    """Effects on their way out, and outcomes on their way back."""

    def __init__(
        self,
        read: Callable[[Key], Awaitable[WorkItem | None]],
        carriers: Mapping[str, Carrier],
        wake: Callable[[Key], None],
        clock: Callable[[], datetime],
    ) -> None:
        """Take who reads an item live, who carries out which kind, whom to tell of an outcome, and the clock."""
        self._read = read
        self._carriers = carriers
        self._wake = wake
        self._clock = clock
        self._since = clock()
        self._items: dict[Key, WorkItem] = {}
        self._outcomes: dict[Key, dict[str, EffectOutcome]] = {}
        self._announced: set[tuple[str, str]] = set()
        """Messages, by item uid and id, that this process announced: nobody else can have sent them."""
        self._unwanted: dict[Key, set[str]] = {}
        """Effects that a live read no longer found Intended, until the item's next step is known."""
        self._lanes: dict[Lane, asyncio.Task[None]] = {}
        # Of those that somebody is in, or waits for.
        self._room: weakref.WeakValueDictionary[tuple[str, str, str], asyncio.Semaphore] = weakref.WeakValueDictionary()

    @property
    def waiting(self) -> int:
        """Items that have something to tell the outside."""
        return len(self._items)

    def begin(self) -> None:
        """From now on this process is at work: what was due before may have been carried out by another one."""
        self._since = self._clock()

    def outcomes(self, key: Key, uid: str) -> tuple[EffectOutcome, ...]:
        """What became of the item's effects and is not in its status yet."""
        item = self._items.get(key)
        if item is None or item.metadata.uid != uid:
            return ()
        return tuple(self._outcomes.get(key, {}).values())

    def written(self, key: Key, before: WorkItem, after: WorkItem, known: tuple[EffectOutcome, ...]) -> None:
        """The item's status is `after` now: `known` stands in it, and what it announces is to be carried out."""
        kept = self._outcomes.get(key, {})
        for outcome in known:
            if kept.get(outcome.id) is outcome:
                del kept[outcome.id]
        self.perhaps_written(before, after)
        self._announced -= {(after.metadata.uid, outcome.id) for outcome in known if outcome.state != "Intended"}
        self._unwanted.pop(key, None)
        waiting = effects.waiting(after.status.effects)
        if not waiting:
            self.forget(key)
            return
        self._items[key] = after
        for target in dict.fromkeys(effect.target for effect in waiting):
            lane = (key, target)
            if lane not in self._lanes and self._next(lane) is not None:
                self._lanes[lane] = asyncio.get_running_loop().create_task(
                    self._run(lane), name=f"outbox {key} {target}"
                )

    def perhaps_written(self, before: WorkItem, after: WorkItem) -> None:
        """The item's status may be `after` now: the messages that it announces are of this process."""
        uid, old = after.metadata.uid, {effect.id for effect in before.status.effects}
        new = (effect for effect in effects.waiting(after.status.effects) if effect.id not in old)
        self._announced |= {(uid, effect.id) for effect in new if effect.kind == effects.NOTIFY}

    def forget(self, key: Key) -> None:
        """The item has nothing to carry out, or is gone."""
        self._outcomes.pop(key, None)
        self._unwanted.pop(key, None)
        item = self._items.pop(key, None)
        if item is not None:
            self._announced = {entry for entry in self._announced if entry[0] != item.metadata.uid}

    async def close(self) -> None:
        """Let go of what is under way; it is Intended still, and found again after the next start."""
        lanes = tuple(self._lanes.values())
        for lane in lanes:
            lane.cancel()
        await asyncio.gather(*lanes, return_exceptions=True)

    # --- one lane

    async def _run(self, lane: Lane) -> None:
        try:
            while (effect := self._next(lane)) is not None:
                if not await self._look_and_carry_out(lane, effect):
                    return
        finally:
            # No await between the last look for an effect and this: whoever comes now starts another lane.
            del self._lanes[lane]

    def _next(self, lane: Lane) -> Effect | None:
        """The first effect that has no outcome yet; None: there is none, or its time has not come."""
        key, target = lane
        item = self._items.get(key)
        over, unwanted = self._outcomes.get(key, {}), self._unwanted.get(key, ())
        for effect in effects.waiting(item.status.effects) if item is not None else ():
            if effect.target != target or effect.id in unwanted:
                continue
            outcome = over.get(effect.id)
            if outcome is None:
                due = effect.next_attempt_at is None or effect.next_attempt_at <= self._clock()
                return effect if due else None
            if outcome.state == "Intended":
                # It failed, and strictly in order means that the others wait for it.
                return None
        return None

    async def _look_and_carry_out(self, lane: Lane, effect: Effect) -> bool:
        """Whether the lane goes on to its next effect."""
        key, target = lane
        before = self._items[key]
        place = (before.metadata.namespace, before.spec.repository, target)
        room = self._room.setdefault(place, asyncio.Semaphore(LANES_A_TARGET))
        async with room:
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    # The item may have been withdrawn from since: what counts is what it wants now.
                    item = await self._read(key)
                    if item is None or item.metadata.uid != before.metadata.uid or item.metadata.deletion_timestamp:
                        self.forget(key)
                        return False
                    live = effects.find(item.status.effects, effect.id)
                    if live is None or live.state != "Intended":
                        self._unwanted.setdefault(key, set()).add(effect.id)
                        return True
                    result = await self._carry_out(item, live)
            except errors.WorkItemsError as error:
                outcome = self._failed(effect, error)
            except TimeoutError:
                outcome = self._broken(effect, errors.Transient(f"no end within {PATIENCE_SECONDS:.0f} s"))
            except Exception:
                # Our bug: it must not end the process, nor be repeated without a pause.
                log.exception("bug", item=key, effect=effect.id)
                outcome = self._broken(effect, errors.Permanent("OperatorBug", "see the operator's log"))
            else:
                if result is None:
                    return False
                outcome = result if isinstance(result, EffectOutcome) else _answered(effect, result)
        self._outcomes.setdefault(key, {})[effect.id] = outcome
        words = {"state": outcome.state, "reason": outcome.reason, "error": outcome.error, "ref": outcome.ref}
        log.info("effect", item=key, effect=effect.id, **{name: word for name, word in words.items() if word})
        self._wake(key)
        return outcome.state != "Intended"

    async def _carry_out(self, item: WorkItem, effect: Effect) -> Result | EffectOutcome | None:
        if effect.kind == effects.NOTIFY and not self._surely_not_sent(item, effect):
            return _unknown(effect, "it may have been sent by an operator that was stopped")
        carrier = self._carriers.get(effect.kind)
        if carrier is None:
            raise errors.Permanent("EffectUnknown", f"this version cannot carry out a {effect.kind}")
        return await carrier(item, effect)

    def _surely_not_sent(self, item: WorkItem, effect: Effect) -> bool:
        if (item.metadata.uid, effect.id) in self._announced:
            return True
        # It failed for sure, and its next try was not due while another process may have run.
        return effect.next_attempt_at is not None and effect.next_attempt_at > self._since

    def _broken(self, effect: Effect, error: errors.WorkItemsError) -> EffectOutcome:
        """It ended in the middle: a message may be out."""
        return _unknown(effect, str(error)) if effect.kind == effects.NOTIFY else self._failed(effect, error)

    def _failed(self, effect: Effect, error: errors.WorkItemsError) -> EffectOutcome:
        attempts = effect.attempts + 1
        reason = error.reason if isinstance(error, errors.Permanent) else None
        refusals = effect.refusals + isinstance(error, errors.Permanent | errors.Undecided)
        refused = reason is not None and refusals >= REFUSALS
        patient = effect.kind in effects.PATIENT and reason in effects.MENDABLE
        if refused and not patient:
            return EffectOutcome(effect.id, "Failed", attempts, reason=reason, error=str(error), refusals=refusals)
        full = SLOW_SECONDS if refused else min(BASE_SECONDS * 2 ** min(attempts - 1, 16), MAX_SECONDS)
        delay = full * (0.5 + 0.5 * random.random())  # noqa: S311 - spreads load, guards nothing
        if isinstance(error, errors.Transient) and error.delay_seconds is not None:
            delay = max(delay, min(error.delay_seconds, LONGEST_RETRY_AFTER_SECONDS))
        return EffectOutcome(
            effect.id,
            "Intended",
            attempts,
            next_attempt_at=self._clock() + timedelta(seconds=delay),
            reason=reason,
            error=str(error),
            refusals=refusals,
        )


def _unknown(effect: Effect, why: str) -> EffectOutcome:
    error = f"{why}, and a second message would be worse"
    return EffectOutcome(effect.id, "Unknown", effect.attempts, reason="MaybeSent", error=error)


def _answered(effect: Effect, result: Result) -> EffectOutcome:
    return EffectOutcome(
        effect.id,
        result.state,
        effect.attempts + 1,
        ref=result.ref,
        reason=result.reason,
        error=result.error,
        values=result.values,
    )
