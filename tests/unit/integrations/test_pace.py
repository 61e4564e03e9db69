"""Whose turn it is, with a clock that only waiting moves."""

from __future__ import annotations

import asyncio

import pytest

from workitems import errors
from workitems.integrations.pace import Pace


class Clock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def monotonic(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds

    async def slowly(self, seconds: float) -> None:
        """As `sleep`, and others have their turn meanwhile."""
        await asyncio.sleep(0)
        self.seconds += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pace(clock: Clock) -> Pace:
    return Pace("it", (3, 10.0), kept=1, monotonic=clock.monotonic, sleep=clock.sleep)


async def test_the_window_slides(pace: Pace, clock: Clock) -> None:
    turns = []
    for _ in range(7):
        await pace.turn()
        turns.append(clock.seconds - 100)
        clock.seconds += 1
    assert turns == [0, 1, 2, 10, 11, 12, 20]


async def test_of_several_limits_all_are_kept(clock: Clock) -> None:
    pace, turns = Pace("it", (1, 1.0), (3, 10.0), monotonic=clock.monotonic, sleep=clock.sleep), []
    for _ in range(5):
        await pace.turn()
        turns.append(clock.seconds - 100)
    assert turns == [0, 1, 2, 10, 11]


async def test_who_would_wait_too_long_for_those_before_gives_up_and_sends_nothing(clock: Clock) -> None:
    pace = Pace("it", (1, 10.0), patience_seconds=25.0, monotonic=clock.monotonic, sleep=clock.slowly)
    ends = await asyncio.gather(*(pace.turn() for _ in range(6)), return_exceptions=True)
    assert [type(end) for end in ends] == [type(None)] * 3 + [errors.Transient] * 3
    assert clock.seconds == 120
    assert "the next request may be sent in 10 s" in str(ends[-1])


async def test_who_is_in_no_hurry_leaves_some_of_each_window_to_the_others(pace: Pace, clock: Clock) -> None:
    for _ in range(2):
        await pace.quiet()
    assert clock.seconds == 100
    await pace.quiet()
    assert clock.seconds == 110


async def test_who_is_in_no_hurry_has_its_part_however_much_the_others_send(pace: Pace, clock: Clock) -> None:
    for _ in range(3):
        await pace.turn()
    await pace.quiet()
    assert clock.seconds == 100


async def test_silence_that_was_asked_for_is_kept_by_all(pace: Pace, clock: Clock) -> None:
    pace.pause(30)
    assert not pace.idle()
    await pace.turn()
    assert clock.seconds == 130


async def test_a_turn_that_is_far_away_is_told(pace: Pace, clock: Clock) -> None:
    pace.pause(600)
    with pytest.raises(errors.Transient, match="it: the next request may be sent in 600 s") as caught:
        await pace.turn()
    assert caught.value.delay_seconds == 600
    assert clock.seconds == 100
