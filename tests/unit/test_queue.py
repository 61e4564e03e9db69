"""The queue with a clock that only the test moves: no test here waits for real time."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from workitems import errors
from workitems.queue import CONFLICTS_AT_ONCE, Queue


@dataclass
class Bell:
    moment: float
    callback: Callable[[str], object]
    key: str
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True

    def when(self) -> float:
        return self.moment


@dataclass
class FakeClock:
    now: float = 1000.0
    bells: list[Bell] = field(default_factory=list)

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[str], object], key: str, /) -> Bell:
        bell = Bell(when, callback, key)
        self.bells.append(bell)
        return bell

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while due := [bell for bell in self.bells if not bell.cancelled and bell.moment <= end]:
            bell = min(due, key=Bell.when)
            self.bells.remove(bell)
            self.now = max(self.now, bell.moment)
            bell.callback(bell.key)
        self.now = end

    @property
    def pending(self) -> list[float]:
        return sorted(round(bell.moment - self.now, 6) for bell in self.bells if not bell.cancelled)


Answer = float | Exception | Callable[[], Awaitable[float | None]] | None


@dataclass
class Script:
    """A worker that answers from a list (then None) and remembers what it was given."""

    answers: list[Answer] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)

    async def __call__(self, key: str) -> float | None:
        self.seen.append(key)
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, Exception):
            raise answer
        return await answer() if callable(answer) else answer


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def queue(clock: FakeClock) -> Queue:
    return Queue(clock, jitter=lambda: 1.0)


async def settle() -> None:
    """Let every task run until all wait; enough turns for any chain in these tests."""
    for _ in range(50):
        await asyncio.sleep(0)


@asynccontextmanager
async def running(
    queue: Queue, worker: Callable[[str], Awaitable[float | None]], workers: int = 2
) -> AsyncIterator[None]:
    task = asyncio.create_task(queue.run(worker, workers))
    await settle()
    yield
    queue.stop()
    async with asyncio.timeout(5):
        await task


# --- keys


async def test_a_key_added_often_is_worked_on_once(queue: Queue) -> None:
    worker = Script()
    for key in ("team/a", "team/b", "team/a", "team/a"):
        queue.add(key)
    assert queue.depth == 2
    async with running(queue, worker):
        await settle()
    assert worker.seen == ["team/a", "team/b"]


async def test_a_key_added_while_worked_on_is_worked_on_once_more_and_never_by_two(queue: Queue) -> None:
    go = asyncio.Event()

    async def slow() -> None:
        await go.wait()

    worker = Script([slow])
    async with running(queue, worker, workers=4):
        queue.add("a")
        await settle()
        queue.add("a")
        queue.add("a")
        await settle()
        assert worker.seen == ["a"]
        assert (queue.depth, queue.working) == (1, 1)
        go.set()
        await settle()
    assert worker.seen == ["a", "a"]


async def test_who_has_news_goes_before_those_who_have_none_but_not_for_ever(queue: Queue) -> None:
    for number in range(3):
        queue.add_behind(f"idle-{number}")
    for number in range(7):
        queue.add(f"news-{number}")
    queue.add_behind("news-6")
    queue.add("idle-2")
    seen: list[str] = []

    async def worker(key: str) -> None:
        seen.append(key)
        if len(seen) == 10:
            queue.stop()

    assert queue.depth == 10
    await queue.run(worker, workers=1)
    assert seen == [
        *(f"news-{number}" for number in range(4)),
        "idle-0",
        *(f"news-{number}" for number in range(4, 7)),
        "idle-2",
        "idle-1",
    ]


async def test_a_key_without_news_does_not_make_the_queue_old(queue: Queue, clock: FakeClock) -> None:
    queue.add_behind("idle")
    clock.advance(1000)
    assert (queue.depth, queue.oldest_age_seconds) == (1, 0)


async def test_workers_work_side_by_side_up_to_their_number(queue: Queue) -> None:
    go = asyncio.Event()

    async def slow() -> None:
        await go.wait()

    worker = Script([slow] * 5)
    async with running(queue, worker, workers=3):
        for key in "abcde":
            queue.add(key)
        await settle()
        assert worker.seen == ["a", "b", "c"]
        go.set()
        await settle()
    assert worker.seen == list("abcde")


# --- timers


async def test_the_workers_answer_brings_the_key_back_after_so_many_seconds(queue: Queue, clock: FakeClock) -> None:
    worker = Script([30.0])
    async with running(queue, worker):
        queue.add("a")
        await settle()
        clock.advance(29.9)
        await settle()
        assert worker.seen == ["a"]
        clock.advance(0.1)
        await settle()
    assert worker.seen == ["a", "a"]


async def test_zero_seconds_is_at_once(queue: Queue) -> None:
    worker = Script([0.0])
    async with running(queue, worker):
        queue.add("a")
        await settle()
    assert worker.seen == ["a", "a"]


@pytest.mark.parametrize(
    ("first", "second", "left"), [(5.0, 60.0, [60]), (60.0, 5.0, [5]), (5.0, None, [])], ids=["later", "sooner", "none"]
)
async def test_what_the_last_look_said_replaces_what_an_earlier_one_did(
    queue: Queue, clock: FakeClock, first: float, second: float | None, left: list[float]
) -> None:
    worker = Script([first, second])
    async with running(queue, worker):
        queue.add("a")
        await settle()
        queue.add("a")
        await settle()
        assert worker.seen == ["a", "a"]
        assert clock.pending == left
        assert queue.delayed == len(left)


async def test_an_immediate_add_leaves_the_timer_alone(queue: Queue, clock: FakeClock) -> None:
    worker = Script([5.0])
    async with running(queue, worker):
        queue.add("a")
        await settle()
        queue.add("a")
        assert clock.pending == [5]
        await settle()
    assert worker.seen == ["a", "a"]


async def test_forget_drops_the_timer_but_not_the_news(queue: Queue, clock: FakeClock) -> None:
    async with running(queue, Script([5.0])):
        queue.add("a")
        await settle()
        assert clock.pending == [5]
        queue.add("a")
        queue.forget("a")
        assert clock.pending == []
        assert queue.depth == 1


# --- failures


async def test_transient_failures_double_the_delay_up_to_a_minute(queue: Queue, clock: FakeClock) -> None:
    worker = Script([errors.Transient("down")] * 10)
    delays = []
    async with running(queue, worker):
        queue.add("a")
        await settle()
        for _ in range(9):
            delays += clock.pending
            clock.advance(clock.pending[0])
            await settle()
    assert delays == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]


async def test_a_success_starts_the_delays_anew(queue: Queue, clock: FakeClock) -> None:
    down = errors.Transient("down")
    worker = Script([down, down, None, down])
    async with running(queue, worker):
        queue.add("a")
        await settle()
        for _ in range(2):
            clock.advance(60)
            await settle()
        assert (queue.failing, clock.pending) == (0, [])
        queue.add("a")
        await settle()
        assert (queue.failing, clock.pending) == (1, [0.5])


async def test_the_delay_that_the_other_side_asked_for_is_a_floor(queue: Queue, clock: FakeClock) -> None:
    worker = Script([errors.Transient("slow down", delay_seconds=300)])
    async with running(queue, worker):
        queue.add("a")
        await settle()
        assert clock.pending == [300]


async def test_a_failure_replaces_an_earlier_timer_and_takes_in_what_came_meanwhile(
    queue: Queue, clock: FakeClock
) -> None:
    async def fail_with_news() -> None:
        queue.add("a")
        raise errors.Transient("down", delay_seconds=20)

    worker = Script([5.0, fail_with_news])
    async with running(queue, worker):
        queue.add("a")
        await settle()
        queue.add("a")
        await settle()
        assert worker.seen == ["a", "a"]
        assert clock.pending == [20]


async def test_news_from_outside_is_served_at_once_even_during_a_backoff(queue: Queue, clock: FakeClock) -> None:
    worker = Script([errors.Transient("down", delay_seconds=300)])
    async with running(queue, worker):
        queue.add("a")
        await settle()
        queue.add("a")
        await settle()
    assert worker.seen == ["a", "a"]


async def test_a_conflict_is_retried_at_once_and_endless_ones_back_off(queue: Queue, clock: FakeClock) -> None:
    worker = Script([errors.Conflict("stale")] * (CONFLICTS_AT_ONCE + 2))
    async with running(queue, worker):
        queue.add("a")
        await settle()
        assert len(worker.seen) == CONFLICTS_AT_ONCE + 1
        assert clock.pending == [0.5]
        clock.advance(0.5)
        await settle()
        assert clock.pending == [1]
        clock.advance(1)
        await settle()
        assert queue.failing == 0


async def test_a_permanent_error_is_logged_as_an_error_and_tried_again_late(queue: Queue, clock: FakeClock) -> None:
    worker = Script([errors.Permanent("Forbidden", "no right to do this")])
    with capture_logs() as logs:
        async with running(queue, worker):
            queue.add("a")
            await settle()
            assert clock.pending == [60]
    assert [(entry["log_level"], entry["reason"], entry["error"]) for entry in logs] == [
        ("error", "Forbidden", "no right to do this")
    ]


@pytest.mark.parametrize("bug", [KeyError("spec"), TimeoutError(), ValueError("x"), RecursionError()])
async def test_a_bug_is_logged_with_its_traceback_and_stops_nobody_else(
    queue: Queue, clock: FakeClock, bug: Exception
) -> None:
    worker = Script([bug])
    with capture_logs() as logs:
        async with running(queue, worker, workers=1):
            queue.add("poison")
            queue.add("b")
            await settle()
            assert worker.seen == ["poison", "b"]
            assert clock.pending == [60]
    assert [(entry["log_level"], entry["event"], entry["exc_info"]) for entry in logs] == [("error", "bug", True)]


async def test_jitter_takes_away_at_most_half(clock: FakeClock) -> None:
    queue = Queue(clock, jitter=lambda: 0.0)
    async with running(queue, Script([errors.Transient("down")])):
        queue.add("a")
        await settle()
        assert clock.pending == [0.25]


# --- stopping


async def test_stop_lets_the_work_in_hand_finish_and_leaves_the_rest(queue: Queue, clock: FakeClock) -> None:
    go = asyncio.Event()
    finished = []

    async def slow() -> float:
        await go.wait()
        finished.append("a")
        return 5

    worker = Script([slow])
    task = asyncio.create_task(queue.run(worker, 1))
    queue.add("a")
    queue.add("b")
    await settle()
    queue.stop()
    await settle()
    assert not task.done()
    go.set()
    await task
    assert finished == ["a"]
    assert worker.seen == ["a"]
    assert clock.pending == []


async def test_a_queue_stopped_before_it_ran_returns_at_once(queue: Queue) -> None:
    queue.add("a")
    queue.stop()
    await asyncio.wait_for(queue.run(Script()), 5)


async def test_cancellation_reaches_the_workers(queue: Queue) -> None:
    cancelled = asyncio.Event()

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    task = asyncio.create_task(queue.run(Script([forever])))
    queue.add("a")
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cancelled.is_set()
    assert queue.working == 0


# --- metrics and the real clock


async def test_the_oldest_age_is_that_of_the_key_that_waits_longest(queue: Queue, clock: FakeClock) -> None:
    assert queue.oldest_age_seconds == 0
    queue.add("a")
    clock.advance(3)
    queue.add("b")
    queue.add("a")
    clock.advance(4)
    assert queue.oldest_age_seconds == 7


async def test_the_running_loop_is_the_default_clock() -> None:
    queue = Queue()
    looked = asyncio.Event()

    looks = 0

    async def worker(_key: str) -> float | None:
        nonlocal looks
        looks += 1
        if looks == 2:
            looked.set()
        return 0.001 if looks == 1 else None

    queue.add("a")
    async with running(queue, worker):
        async with asyncio.timeout(5):
            await looked.wait()


# --- in general


def in_a_loop(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scenario)


added: dict[str, Callable[[Queue, str], None]] = {
    "add": Queue.add,
    "behind": Queue.add_behind,
}
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from("abc")),
        st.tuples(st.just("behind"), st.sampled_from("abc")),
        st.tuples(st.just("finish"), st.sampled_from(["ok", "again", "transient", "conflict", "bug"])),
        st.tuples(st.just("advance"), st.sampled_from(["1", "61"])),
    ),
    max_size=40,
)


@given(STEPS)
def test_no_news_is_lost_and_no_key_is_in_two_hands(steps: list[tuple[str, str]]) -> None:
    async def scenario() -> None:
        clock = FakeClock()
        queue = Queue(clock, jitter=lambda: 0.5)
        hands: dict[str, asyncio.Future[str]] = {}
        owed: set[str] = set()

        async def worker(key: str) -> float | None:
            assert key not in hands, "two workers on one key"
            owed.discard(key)
            hands[key] = asyncio.get_running_loop().create_future()
            try:
                end = await hands[key]
            finally:
                del hands[key]
            failures = {"transient": errors.Transient("x"), "conflict": errors.Conflict("x"), "bug": KeyError("x")}
            if end in failures:
                owed.add(key)
                raise failures[end]
            return 30.0 if end == "again" else None

        with capture_logs():
            async with running(queue, worker):
                for what, value in steps:
                    if what in added:
                        owed.add(value)
                        added[what](queue, value)
                    elif what == "advance":
                        clock.advance(float(value))
                    elif hands:
                        next(iter(hands.values())).set_result(value)
                    await settle()
                # Whatever happened: let all end well, and everything that was owed a look has had it.
                for _ in range(20):
                    for hand in list(hands.values()):
                        hand.set_result("ok")
                    await settle()
                    clock.advance(61)
                    await settle()
                for hand in list(hands.values()):
                    hand.set_result("ok")
        assert not owed

    in_a_loop(scenario())
