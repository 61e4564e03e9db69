"""How many requests a key may make: a window that slides, shared by all who use the key.

Plane counts 60 requests a minute for each API key, whoever sends them; Telegram one message a second for a chat, 20 a
minute for a group and 30 a second for a bot. Whoever wants to send waits for its turn here, in order; whoever would
wait too long is told how long instead, and does something else meanwhile.
"""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Awaitable, Callable
from typing import Any

import httpx

from workitems import errors
from workitems.integrations import http

PATIENCE_SECONDS = 75.0
"""The longest wait for a turn, the wait for those who came before included: longer than a window of a minute."""

BUSY_SECONDS = 2.0
"""How soon a key that has no room for who is in no hurry is asked again."""


Limit = tuple[int, float]
"""At most so many requests in any so many seconds."""


class Pace:
    """Keeps all of some limits; `kept` requests of the first one are not for callers that are in no hurry."""

    def __init__(
        self,
        what: str,
        *limits: Limit,
        kept: int = 0,
        patience_seconds: float = PATIENCE_SECONDS,
        monotonic: Callable[[], float] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Take what is paced, for sentences; the limits; a clock in seconds (default: the loop's), and how to wait."""
        self._what = what
        self._limits = limits
        self._patience_seconds = patience_seconds
        self._monotonic = monotonic or (lambda: asyncio.get_running_loop().time())
        self._sleep = sleep
        self._sent: collections.deque[float] = collections.deque(maxlen=max(most for most, _ in limits))
        self._closed_until = 0.0
        self._order = asyncio.Lock()
        self._leisurely: collections.deque[float] = collections.deque(maxlen=max(limits[0][0] - kept, 1))

    async def turn(self) -> None:
        """Return when the next request may be sent. Raises errors.Transient if that takes longer than its patience."""
        until = self._monotonic() + self._patience_seconds
        # asyncio's lock is fair: who came first goes first, and gives up first.
        async with self._order:
            while (delay := self._delay()) > 0:
                if self._monotonic() + delay > until:
                    message = f"{self._what}: the next request may be sent in {delay:.0f} s"
                    raise errors.Transient(message, delay_seconds=delay)
                await self._sleep(delay)
            self._sent.append(self._monotonic())

    def idle(self) -> bool:
        """Whether one more request that is in no hurry may ask for its turn: `kept` of each window are not for them."""
        now, leisurely = self._monotonic(), self._leisurely
        full = len(leisurely) == leisurely.maxlen and leisurely[0] > now - self._limits[0][1]
        return self._closed_until <= now and not full

    async def quiet(self) -> None:
        """Return when it is idle, for one request more; whoever is in a hurry has its own part of the window."""
        while not self.idle():
            await self._sleep(BUSY_SECONDS)
        self._leisurely.append(self._monotonic())

    def pause(self, seconds: float) -> None:
        """The other side asks for silence."""
        self._closed_until = max(self._closed_until, self._monotonic() + seconds)

    def _delay(self) -> float:
        now = self._monotonic()
        waits = [self._sent[-most] + seconds - now for most, seconds in self._limits if len(self._sent) >= most]
        return max(*waits, self._closed_until - now, 0.0)


Learn = Callable[[int, httpx.Headers, bytes], float | None]
"""From code, headers and body: the seconds of silence that an answer asks for."""


class Paced(http.Connections):
    """Connections whose every attempt, the client's own repetitions included, waits for its turn."""

    def __init__(self, inner: http.Connections, learn: Learn, *paces: Pace) -> None:
        """Take the process's connections, how the other side says that it is too much, and the paces to keep.

        The first pace is the one that the other side slows down.
        """
        super().__init__()
        self._inner = inner
        self._paces = paces
        self._learn = learn

    async def send(
        self, access: http.Access, method: str, url: str, **arguments: Any
    ) -> tuple[int, httpx.Headers, bytes]:
        """One attempt, in its turn. Raises as `http.Connections.send`, and errors.Transient where the turn is far."""
        for pace in self._paces:
            await pace.turn()
        code, headers, content = await self._inner.send(access, method, url, **arguments)
        silence = self._learn(code, headers, content)
        if silence is not None:
            self._paces[0].pause(silence)
            if code == 429:
                # Where the client looks for it, wherever the other side has put it.
                headers = httpx.Headers(headers)
                headers["Retry-After"] = f"{max(silence, 1.0):.0f}"
        return code, headers, content
