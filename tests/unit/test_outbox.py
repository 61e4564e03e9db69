"""The executor: lanes that know nothing of each other, outcomes that are kept until they stand in status."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import structlog

from tests.unit.core.world import World
from workitems import errors, outbox
from workitems.api import Effect, WorkItem
from workitems.core import effects
from workitems.core.facts import EffectOutcome
from workitems.outbox import Outbox, Result

KEY = "team-a/et-12"


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    before = structlog.get_config()
    structlog.configure(processors=[_drop])
    yield
    structlog.configure(**before)


def _drop(*_: Any) -> Any:
    raise structlog.DropEvent


@dataclass
class Outside:
    """Channels that answer when they are told to, and an item that is written by hand."""

    now: datetime = datetime(2026, 11, 25, 1, tzinfo=UTC)
    carried: list[str] = field(default_factory=list)
    fails: dict[str, list[Exception]] = field(default_factory=dict)
    holds: dict[str, asyncio.Event] = field(default_factory=dict)
    woken: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.item: WorkItem | None = WorkItem.parse(World().item)
        self.changed = asyncio.Event()
        self.start()

    def start(self) -> None:
        """A new process."""
        carriers = dict.fromkeys(("Merge", "TrackerState", effects.NOTIFY), self.carry_out)
        self.outbox = Outbox(self.read, carriers, self.wake, lambda: self.now)

    async def read(self, _key: str) -> WorkItem | None:
        return self.item

    def wake(self, key: str) -> None:
        self.woken[key] += 1
        self.changed.set()

    async def carry_out(self, _item: WorkItem, effect: Effect) -> Result | None:
        if effect.id in self.holds:
            await self.holds[effect.id].wait()
        if self.fails.get(effect.id):
            raise self.fails[effect.id].pop(0)
        self.carried.append(effect.id)
        return Result(ref=f"ref-{effect.id}")

    def write(self, *new: Effect) -> None:
        """A step: what is known of effects goes into status, and new ones are announced."""
        assert self.item is not None
        known = self.outbox.outcomes(KEY, self.item.metadata.uid)
        now = self.item.status.effects
        for outcome in known:
            now = effects.folded(now, outcome)
        for effect in new:
            now = effects.intended(now, effect)
        before = self.item
        self.item = before.model_copy(update={"status": before.status.model_copy(update={"effects": now})})
        self.outbox.written(KEY, before, self.item, known)

    async def outcomes(self, count: int = 1) -> dict[str, EffectOutcome]:
        """Once there are so many."""
        while True:
            found = self.outbox.outcomes(KEY, self.item.metadata.uid) if self.item is not None else ()
            if len(found) >= count:
                return {outcome.id: outcome for outcome in found}
            self.changed.clear()
            await self.changed.wait()

    @property
    def states(self) -> dict[str, str]:
        assert self.item is not None
        return {effect.id: effect.state for effect in self.item.status.effects}


def effect(name: str, target: str = "forge", kind: str = "Merge") -> Effect:
    return Effect(id=name, kind=kind, target=target)


async def settle() -> None:
    """Let every task go on as far as it can."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_effects_of_a_target_go_out_in_order_and_what_came_of_them_is_forgotten_once_it_is_written() -> None:
    outside = Outside()
    outside.write(effect("a"), effect("b"))
    found = await outside.outcomes(2)
    assert outside.carried == ["a", "b"]
    assert (found["a"].state, found["a"].ref, found["a"].attempts) == ("Done", "ref-a", 1)
    assert outside.woken[KEY] == 2
    outside.write()
    assert outside.states == {"a": "Done", "b": "Done"}
    assert outside.item is not None
    assert outside.outbox.outcomes(KEY, outside.item.metadata.uid) == ()


async def test_a_dead_target_holds_up_itself_alone() -> None:
    outside = Outside()
    outside.holds["slow"] = asyncio.Event()
    outside.write(effect("slow", "tracker"), effect("behind", "tracker"), effect("a"), effect("b", "notify-0"))
    await outside.outcomes(2)
    assert sorted(outside.carried) == ["a", "b"]
    outside.holds["slow"].set()
    await outside.outcomes(4)
    assert outside.carried[2:] == ["slow", "behind"]


async def test_a_failure_keeps_the_order_and_is_tried_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "random", lambda: 1.0)
    outside = Outside()
    outside.fails["a"] = [errors.Transient("away"), errors.Transient("busy", delay_seconds=700)]
    outside.write(effect("a"), effect("b"))
    found = await outside.outcomes()
    assert (found["a"].state, found["a"].error, found["a"].reason) == ("Intended", "away", None)
    assert found["a"].next_attempt_at == outside.now + timedelta(seconds=5)
    outside.write()
    await settle()
    assert outside.carried == [], "b waits for a, and a for its time"
    outside.now += timedelta(seconds=5)
    outside.write()
    found = await outside.outcomes()
    assert found["a"].attempts == 2
    assert found["a"].next_attempt_at == outside.now + timedelta(seconds=700), "Retry-After wins"
    outside.write()
    outside.now += timedelta(seconds=700)
    outside.write()
    await outside.outcomes(2)
    assert outside.carried == ["a", "b"]


async def test_the_wait_doubles_up_to_five_minutes_and_a_refusal_is_final_after_an_hour_and_a_half(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(random, "random", lambda: 1.0)
    outside = Outside()
    outside.fails["a"] = [errors.Permanent("Unauthorized", "no such token") for _ in range(outbox.REFUSALS)]
    outside.write(effect("a"), effect("b"))
    waits = []
    while not outside.carried:
        found = (await outside.outcomes())["a"]
        assert found.reason == "Unauthorized"
        if found.state == "Failed":
            break
        assert found.next_attempt_at is not None
        waits.append((found.next_attempt_at - outside.now).total_seconds())
        outside.write()
        outside.now = found.next_attempt_at
        outside.write()
    assert waits[:7] == [5, 10, 20, 40, 80, 160, 300]
    assert sum(waits) > 5400
    await outside.outcomes(2)
    assert outside.carried == ["b"], "what was refused for good holds up nothing"


@pytest.mark.parametrize(
    ("kind", "reason", "last"),
    [
        ("TrackerState", "TokenRefused", "Intended"),
        ("TrackerState", "StateNotFound", "Intended"),
        ("TrackerState", "NotFoundInTracker", "Failed"),
        ("PullRequest", "TokenRefused", "Failed"),
    ],
)
async def test_what_a_tracker_refuses_is_told_once_somebody_has_mended_the_access(
    kind: str, reason: str, last: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(random, "random", lambda: 1.0)
    outside = Outside()
    outside.fails["a"] = [errors.Permanent(reason, "no") for _ in range(outbox.REFUSALS + 20)]
    outside.write(effect("a", kind=kind))
    for _ in range(outbox.REFUSALS + 20):
        found = (await outside.outcomes())["a"]
        if found.next_attempt_at is None:
            break
        waited = (found.next_attempt_at - outside.now).total_seconds()
        outside.write()
        outside.now = found.next_attempt_at
        outside.write()
    assert found.state == last
    if last == "Intended":
        assert waited == outbox.SLOW_SECONDS
        await settle()
        assert outside.carried == ["a"]


async def test_what_was_withdrawn_meanwhile_is_not_carried_out() -> None:
    outside = Outside()
    outside.holds["a"] = asyncio.Event()
    outside.write(effect("a"), effect("b"), effect("c"))
    await settle()
    assert outside.item is not None
    # Another step took b back; the executor has not heard of it.
    kept = tuple(e for e in outside.item.status.effects if e.id != "b")
    outside.item = outside.item.model_copy(update={"status": outside.item.status.model_copy(update={"effects": kept})})
    outside.holds["a"].set()
    await outside.outcomes(2)
    assert outside.carried == ["a", "c"]


async def test_after_a_restart_everything_but_a_message_is_carried_out_again() -> None:
    outside = Outside()
    outside.holds = {"a": asyncio.Event(), "m": asyncio.Event()}
    outside.write(effect("a"), effect("m", "notify-0", effects.NOTIFY))
    await settle()
    await outside.outbox.close()
    outside.holds.clear()
    outside.start()
    outside.write()
    found = await outside.outcomes(2)
    assert outside.carried == ["a"]
    assert (found["a"].state, found["m"].state) == ("Done", "Unknown")
    outside.write()
    assert outside.states["m"] == "Unknown"


async def test_a_message_that_surely_was_not_sent_is_sent_after_a_restart() -> None:
    outside = Outside()
    outside.fails["m"] = [errors.Transient("no connection")]
    outside.write(effect("m", "notify-0", effects.NOTIFY))
    again = (await outside.outcomes())["m"].next_attempt_at
    assert again is not None
    outside.write()
    await outside.outbox.close()
    outside.start()
    outside.now = again
    outside.write()
    assert (await outside.outcomes())["m"].state == "Done"


async def test_a_message_whose_second_try_was_due_before_the_restart_is_not_sent_again() -> None:
    outside = Outside()
    outside.fails["m"] = [errors.Transient("no connection")]
    outside.write(effect("m", "notify-0", effects.NOTIFY))
    again = (await outside.outcomes())["m"].next_attempt_at
    assert again is not None
    outside.write()
    await outside.outbox.close()
    outside.now = again + timedelta(seconds=1)
    outside.start()
    outside.write()
    assert (await outside.outcomes())["m"].state == "Unknown"
    assert outside.carried == []


async def test_an_operator_that_stood_by_begins_when_it_leads_and_not_when_it_started() -> None:
    outside = Outside()
    outside.fails["m"] = [errors.Transient("no connection")]
    outside.write(effect("m", "notify-0", effects.NOTIFY))
    again = (await outside.outcomes())["m"].next_attempt_at
    assert again is not None
    outside.write()
    await outside.outbox.close()
    outside.start()
    outside.now = again + timedelta(seconds=1)
    outside.outbox.begin()
    outside.write()
    assert (await outside.outcomes())["m"].state == "Unknown"


async def test_a_message_whose_announcement_got_no_answer_is_of_this_process() -> None:
    outside = Outside()
    before = outside.item
    assert before is not None
    status = before.status.model_copy(update={"effects": (effect("m", "notify-0", effects.NOTIFY),)})
    outside.item = before.model_copy(update={"status": status})
    outside.outbox.perhaps_written(before, outside.item)
    outside.write()
    assert (await outside.outcomes())["m"].state == "Done"


async def test_a_bug_in_a_message_does_not_send_it_twice_and_one_elsewhere_is_tried_again() -> None:
    outside = Outside()
    outside.fails = {"m": [ZeroDivisionError()], "a": [ZeroDivisionError()]}
    outside.write(effect("m", "notify-0", effects.NOTIFY), effect("a"))
    found = await outside.outcomes(2)
    assert found["m"].state == "Unknown"
    assert (found["a"].state, found["a"].reason) == ("Intended", "OperatorBug")


async def test_an_item_that_is_gone_or_made_anew_is_let_go() -> None:
    outside = Outside()
    assert outside.item is not None
    outside.holds["a"] = asyncio.Event()
    outside.write(effect("a"), effect("b"))
    await settle()
    meta = outside.item.metadata
    outside.item = outside.item.model_copy(update={"metadata": meta.model_copy(update={"uid": "another"})})
    outside.holds["a"].set()
    await settle()
    assert outside.carried == ["a"]
    assert outside.outbox.outcomes(KEY, "another") == ()


def test_the_list_is_bounded_and_of_what_waits_only_the_newest_is_left_out() -> None:
    kept: tuple[Effect, ...] = ()
    for number in range(400):
        kept = effects.intended(kept, effect(f"n-{number}", f"notify-{number % 2}", effects.NOTIFY))
        if number % 2:
            kept = effects.folded(kept, EffectOutcome(f"n-{number}", "Done", 1))
    waiting = [e for e in kept if e.state == "Intended"]
    # The other chat's last message took the place of one that the dead chat had too many.
    assert [e.id for e in waiting] == [f"n-{n}" for n in range(0, 298, 2)]
    assert sum(e.state == "Done" for e in kept) == 50


def test_the_newest_state_of_the_tracker_displaces_one_that_waits() -> None:
    kept = effects.intended((), effect("state-1", "tracker", "TrackerState"))
    kept = effects.intended(kept, effect("comment-1", "tracker", "TrackerComment"))
    kept = effects.intended(kept, effect("state-2", "tracker", "TrackerState"))
    assert [e.id for e in kept] == ["comment-1", "state-2"]


async def test_failures_without_an_answer_do_not_make_a_refusal_final(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "random", lambda: 1.0)
    outside = Outside()
    away = [errors.Transient("away") for _ in range(outbox.REFUSALS + 10)]
    outside.fails["a"] = [*away, errors.Permanent("Unauthorized", "the token is not loaded yet")]
    outside.write(effect("a"))
    while not outside.carried:
        found = (await outside.outcomes())["a"]
        assert found.state != "Failed"
        outside.write()
        outside.now = found.next_attempt_at or outside.now
        outside.write()
        await settle()
    assert outside.fails["a"] == []


async def test_a_server_that_wants_to_be_left_alone_for_days_is_asked_again_after_an_hour() -> None:
    outside = Outside()
    outside.fails["a"] = [errors.Transient("busy", delay_seconds=5_000_000)]
    outside.write(effect("a"))
    found = (await outside.outcomes())["a"]
    assert found.next_attempt_at == outside.now + timedelta(hours=1)


async def test_nothing_is_kept_of_targets_that_nobody_talks_to() -> None:
    outside = Outside()
    for number in range(20):
        outside.write(effect(f"a{number}", f"notify-{number}"))
    await outside.outcomes(20)
    outside.write()
    await settle()
    assert len(outside.outbox._room) == 0
