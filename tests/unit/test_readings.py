"""Asking a forge apart from the steps: an answer counts once, an error until it may be asked again."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from tests.fake_forge import FakeForge
from tests.unit.core.world import Branch, World
from workitems import errors, readings
from workitems.api import WorkItem
from workitems.core.forge import Check, Question
from workitems.readings import Readings

KEY = "team-a/et-12"
QUESTION = Question(None, "c" * 40)


class Desk:
    """Somebody who asks, on a clock that is moved by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(random, "random", lambda: 1.0)
        monkeypatch.setattr(readings, "log", _Silent())
        branch = Branch()
        self.forge = FakeForge(lambda _name: branch)
        self.now = 0.0
        self.woken = asyncio.Event()
        self.asked = 0
        self.readings = Readings(self._forge_of, lambda _key: self.woken.set(), lambda: self.now)
        self.item = WorkItem.parse(World().item)

    async def _forge_of(self, _namespace: str, _name: str) -> FakeForge:
        self.asked += 1
        return self.forge

    async def ask(self, question: Question = QUESTION) -> None:
        self.woken.clear()
        self.readings.ask(KEY, self.item, question)
        await self.woken.wait()


class _Silent:
    def warning(self, *_: Any, **__: Any) -> None:
        pass

    exception = warning


async def test_an_answer_is_given_once(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(monkeypatch)
    desk.forge.report("c" * 40, build="success")
    await desk.ask()
    reading = desk.readings.take(KEY)
    assert reading is not None
    assert reading.question == QUESTION
    assert [check.context for check in reading.checks.contexts] == ["build"]
    assert desk.readings.take(KEY) is None


async def test_an_error_stands_until_the_forge_may_be_asked_again_and_the_wait_grows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desk = Desk(monkeypatch)
    desk.forge.away = "no answer"
    waits = []
    for _ in range(7):
        await desk.ask()
        reading = desk.readings.take(KEY)
        assert reading is not None
        assert (reading.error, reading.reason) == ("no answer", "")
        assert desk.readings.take(KEY) == reading, "whoever looks meanwhile is told the same, and nobody is asked"
        waits.append(reading.again_seconds)
        desk.now += reading.again_seconds
        assert desk.readings.take(KEY) is None
    assert waits == [10, 20, 40, 80, 160, 300, 300]
    desk.forge.away = ""
    await desk.ask()
    assert desk.readings.take(KEY) is not None
    desk.forge.refuses = errors.Permanent("Unauthorized", "no such token")
    await desk.ask()
    reading = desk.readings.take(KEY)
    assert reading is not None
    assert (reading.reason, reading.again_seconds) == ("Unauthorized", 10), "it counts from the last answer on"


async def test_a_forge_that_hangs_is_asked_once_and_holds_up_nobody_who_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(monkeypatch)
    reached, never = asyncio.Event(), asyncio.Event()

    async def hangs(_commit: str) -> Any:
        reached.set()
        await never.wait()

    monkeypatch.setattr(desk.forge, "checks", hangs)
    desk.readings.ask(KEY, desk.item, QUESTION)
    await reached.wait()
    desk.readings.ask(KEY, desk.item, QUESTION)
    assert desk.asked == 1
    await desk.readings.close()
    assert desk.readings.take(KEY) is None


async def test_a_bug_leaves_nobody_waiting_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(monkeypatch)

    def broken(_commit: str) -> list[Check]:
        raise ZeroDivisionError

    desk.forge.reports = broken
    await desk.ask()
    reading = desk.readings.take(KEY)
    assert reading is not None
    assert reading.reason == "OperatorBug"


async def test_a_forge_that_wants_to_be_left_alone_for_days_is_asked_again_after_an_hour(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desk = Desk(monkeypatch)

    async def busy(_commit: str) -> Any:
        raise errors.Transient("busy", delay_seconds=5_000_000)

    monkeypatch.setattr(desk.forge, "checks", busy)
    await desk.ask()
    reading = desk.readings.take(KEY)
    assert reading is not None
    assert reading.again_seconds == 3600
