"""The queue of keys to reconcile: many reasons to look at an item become one look, and never two at once.

Events, webhooks and the sweep only say "look at this key". What that must mean: a key waits once however often it is
added; one worker has it at a time; a key that is added while it is being worked on is looked at once more, since the
news may have come after the look; and a key that fails waits longer each time, so that one broken item costs nothing.

The rules about time, one timer per key:
- A look that succeeds says when the next is due, and that replaces what an earlier one said: it has seen everything
  that the earlier one saw. `add` leaves the timer alone.
- A failure replaces the key's timer by its backoff, and takes in what was added during the failed work: otherwise an
  item whose own writes cause events would fail in a tight loop. An `add` from outside is still served at once:
  a person has done something.

There are two lines. Whoever looks at everything, at the start and now and then, says so (`add_behind`): thousands of
items that wait for people then keep nobody waiting who has news.

For one event loop: nothing here is safe to call from another thread.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog

from workitems import errors

log = structlog.stdlib.get_logger(__name__)

Worker = Callable[[str], Awaitable[float | None]]
"""Looks at one key; returns the seconds after which to look again, or None."""

BASE_SECONDS = 0.5
MAX_SECONDS = 60.0
CONFLICTS_AT_ONCE = 5
"""Consecutive conflicts of one key that are answered without a pause; after that two writers are fighting."""
PASSED_OVER = 4
"""Keys with news that are served before one without, where both wait."""


class Timer(Protocol):
    """What `Clock.call_at` returns; `asyncio.TimerHandle` is one."""

    def cancel(self) -> None:
        """Do not call."""

    def when(self) -> float:
        """The moment, on the clock's scale."""


class Clock(Protocol):
    """The part of an event loop that knows time, so that tests can move it."""

    def time(self) -> float:
        """Now, in seconds, on a monotonic scale."""

    def call_at(self, when: float, callback: Callable[[str], object], key: str, /) -> Timer:
        """Call `callback(key)` at that moment."""


class Queue:
    """Keys `namespace/name` on their way to workers."""

    def __init__(self, clock: Clock | None = None, jitter: Callable[[], float] = random.random) -> None:
        """Take the clock (default: the running loop) and a source of numbers in [0, 1) for the backoff."""
        self._clock: Clock = clock or asyncio.get_running_loop()
        self._jitter = jitter
        self._ready: dict[str, float] = {}  # key -> since when; in the order of arrival
        self._working: set[str] = set()
        self._behind: dict[str, float] = {}  # as _ready, for keys without news
        self._again: dict[str, float] = {}  # as _ready, for keys that are being worked on
        self._passed_over = 0
        self._timers: dict[str, Timer] = {}
        self._failures: dict[str, int] = {}
        self._conflicts: dict[str, int] = {}
        self._changed = asyncio.Event()
        self._stopping = False

    # --- for whoever has news

    def add(self, key: str) -> None:
        """Look at this key as soon as a worker is free."""
        if key in self._working:
            self._again.setdefault(key, self._clock.time())
        elif key not in self._ready:
            self._behind.pop(key, None)
            self._ready[key] = self._clock.time()
            self._changed.set()

    def add_behind(self, key: str) -> None:
        """Look at this key when a worker has nothing better to do: nobody says that there is news."""
        if key in self._working:
            self.add(key)
        elif key not in self._ready and key not in self._behind:
            self._behind[key] = self._clock.time()
            self._changed.set()

    def forget(self, key: str) -> None:
        """Drop the key's timer and its history of failures: its object is gone. News that waits stays."""
        self._drop_timer(key)
        self._failures.pop(key, None)
        self._conflicts.pop(key, None)

    # --- for metrics

    @property
    def depth(self) -> int:
        """Keys that wait for a worker."""
        return len(self._ready) + len(self._behind) + len(self._again)

    @property
    def working(self) -> int:
        """Keys that a worker has."""
        return len(self._working)

    @property
    def delayed(self) -> int:
        """Keys that wait for a moment."""
        return len(self._timers)

    @property
    def failing(self) -> int:
        """Keys whose last look failed."""
        return len(self._failures.keys() | self._conflicts.keys())

    @property
    def oldest_age_seconds(self) -> float:
        """How long the key with news that waits longest for a worker has waited; 0 if none does."""
        since = (*self._ready.values(), *self._again.values())
        return self._clock.time() - min(since) if since else 0.0

    # --- the workers

    async def run(self, worker: Worker, workers: int = 8) -> None:
        """Work until `stop`. Cancellation reaches the workers at once; `stop` lets them finish."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(workers):
                    tasks.create_task(self._work(worker))
        finally:
            for key in tuple(self._timers):
                self._drop_timer(key)

    def stop(self) -> None:
        """Let the workers finish what they have in hand; `run` then returns, and what waits is left."""
        self._stopping = True
        self._changed.set()

    async def _work(self, worker: Worker) -> None:
        while (key := await self._next()) is not None:
            try:
                with structlog.contextvars.bound_contextvars(item=key):
                    await self._look(worker, key)
            finally:
                self._working.discard(key)
                if key in self._again:
                    self._ready[key] = self._again.pop(key)
                    self._changed.set()

    async def _next(self) -> str | None:
        """The key that has waited longest, marked as being worked on; None once the queue stops."""
        while not self._stopping:
            if self._ready or self._behind:
                key = self._take()
                self._working.add(key)
                return key
            self._changed.clear()
            await self._changed.wait()
        return None

    def _take(self) -> str:
        """The next key. Those without news come last, and every so often all the same: news may never end."""
        self._passed_over = self._passed_over + 1 if self._ready and self._behind else 0
        behind = not self._ready or self._passed_over > PASSED_OVER
        if behind:
            self._passed_over = 0
        waiting = self._behind if behind else self._ready
        key = next(iter(waiting))
        del waiting[key]
        return key

    async def _look(self, worker: Worker, key: str) -> None:
        try:
            seconds = await worker(key)
        except errors.Conflict as conflict:
            self._retry_conflict(key, conflict)
        except errors.Transient as error:
            delay = self._back_off(key, floor_seconds=error.delay_seconds)
            log.warning("retry", error=str(error), seconds=round(delay, 1))
        except errors.Permanent as error:
            delay = self._back_off(key, longest=True)
            log.error("refused", reason=error.reason, error=str(error), seconds=round(delay, 1))  # noqa: TRY400 - no bug
        except Exception:  # any other is our bug, and one poisonous item must not stop the others
            delay = self._back_off(key, longest=True)
            log.exception("bug", seconds=round(delay, 1))
        else:
            self._failures.pop(key, None)
            self._conflicts.pop(key, None)
            self._look_after(key, seconds)

    def _retry_conflict(self, key: str, conflict: errors.Conflict) -> None:
        count = self._conflicts[key] = self._conflicts.get(key, 0) + 1
        if count <= CONFLICTS_AT_ONCE:
            log.debug("conflict", error=str(conflict))
            self.add(key)
        else:
            delay = self._back_off(key, floor_seconds=conflict.delay_seconds)
            log.warning("retry", error=str(conflict), seconds=round(delay, 1), conflicts=count)

    def _back_off(self, key: str, *, floor_seconds: float | None = None, longest: bool = False) -> float:
        """Look again after an exponential delay with jitter (half to all of it), which is returned."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        # 2 ** 16 is far beyond the maximum: the exponent is bounded because a key may fail for weeks.
        full = MAX_SECONDS if longest else min(MAX_SECONDS, BASE_SECONDS * 2 ** min(failures - 1, 16))
        delay = max(full * (0.5 + 0.5 * self._jitter()), floor_seconds or 0.0)
        self._again.pop(key, None)
        self._set_timer(key, self._clock.time() + delay)
        return delay

    # --- timers

    def _look_after(self, key: str, seconds: float | None) -> None:
        self._drop_timer(key)
        if seconds is None:
            return
        if seconds > 0:
            self._set_timer(key, self._clock.time() + seconds)
        else:
            self.add(key)

    def _set_timer(self, key: str, when: float) -> None:
        self._drop_timer(key)
        self._timers[key] = self._clock.call_at(when, self._ring, key)

    def _drop_timer(self, key: str) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()

    def _ring(self, key: str) -> None:
        del self._timers[key]
        self.add(key)
