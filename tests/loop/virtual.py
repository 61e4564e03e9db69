"""An event loop whose clock stands still while anything happens and jumps to the next timer when nothing does.

The whole operator, the API server and the kubelet of a test live in one loop and talk over real sockets. An hour of
backoff then costs a millisecond, a timeout happens exactly when nothing else can, and every timestamp is the same in
every run: a test never sleeps for timing, and two runs can be compared byte for byte.
"""

from __future__ import annotations

import asyncio
import selectors
import signal
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

EPOCH = datetime(2026, 11, 22, 14, 0, 0, tzinfo=UTC)
GRACE_SECONDS = 0.001
"""Real time to wait for a socket before the clock jumps: what was sent over loopback has arrived by then."""
THREAD_SECONDS = 30.0
STANDSTILL = 100_000
"""Turns of the loop without a jump of the clock: work that goes round for ever. The busiest tests need a tenth."""


class _Selector(selectors.DefaultSelector):
    """Asks the sockets first and moves the clock instead of waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.threads = 0
        self._turns = 0

    def select(self, timeout: float | None = None) -> Any:
        self._turns += 1
        if self._turns > STANDSTILL:
            self._turns = 0
            raise RuntimeError("something goes round for ever: the clock no longer gets a chance to move")
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        events = super().select(THREAD_SECONDS if self.threads else GRACE_SECONDS)
        if not events and not self.threads:
            self.now += timeout
            self._turns = 0
        return events


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its `time()` begins at `start`; 0 is EPOCH on the wall."""

    def __init__(self, start: float = 0.0) -> None:
        self._virtual = _Selector()
        self._virtual.now = start
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """The clock stands still while a thread works."""
        self._virtual.threads += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(self._thread_done)
        return future

    def _thread_done(self, _future: asyncio.Future[Any]) -> None:
        self._virtual.threads -= 1

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> Any:
        if callback is signal.pthread_kill:
            # kopf's last resort ten minutes after its end; here they are over at once, and we are the process.
            return super().call_later(0, lambda: None)
        return super().call_later(delay, callback, *args, context=context)


def now() -> datetime:
    """The running loop's time as the time of day."""
    return EPOCH + timedelta(seconds=asyncio.get_running_loop().time())
