"""How many requests a key may make: a window that slides, shared by all who use the key.

Plane counts 60 requests a minute for each API key, whoever sends them; Telegram 20 messages a minute for a group.
Whoever wants to send waits for its turn here, in order; whoever would wait too long is told how long instead, and
does something else meanwhile.
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
"""The longest wait for a turn: longer than a window, shorter than the outbox's patience with one effect."""

BUSY_SECONDS = 2.0
"""How soon a key that has no room for who is in no hurry is asked again."""


class Pace:
    """At most so many requests in any so many seconds; `kept` of them are not for callers that are in no hurry."""

    def __init__(
        self,
        what: str,
        limit: tuple[int, float],
        *,
        kept: int = 0,
        monotonic: Callable[[], float] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Take what is paced, for sentences; the limit; a clock in seconds (default: the loop's), and how to wait."""
        self._what = what
        self._most, self._seconds = limit
        self._monotonic = monotonic or (lambda: asyncio.get_running_loop().time())
        self._sleep = sleep
        self._sent: collections.deque[float] = collections.deque(maxlen=self._most)
        self._closed_until = 0.0
        self._order = asyncio.Lock()
        self._leisurely: collections.deque[float] = collections.deque(maxlen=max(self._most - kept, 1))

    async def turn(self) -> None:
        """Return when the next request may be sent. Raises errors.Transient if that is more than a minute away."""
        # asyncio's lock is fair: who came first goes first.
        async with self._order:
            while (delay := self._delay()) > 0:
                if delay > PATIENCE_SECONDS:
                    message = f"{self._what}: the next request may be sent in {delay:.0f} s"
                    raise errors.Transient(message, delay_seconds=delay)
                await self._sleep(delay)
            self._sent.append(self._monotonic())

    def idle(self) -> bool:
        """Whether one more request that is in no hurry may ask for its turn: `kept` of each window are not for them."""
        now, leisurely = self._monotonic(), self._leisurely
        full = len(leisurely) == leisurely.maxlen and leisurely[0] > now - self._seconds
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
        full = self._sent[0] + self._seconds - now if len(self._sent) == self._most else 0.0
        return max(full, self._closed_until - now)


Learn = Callable[[int, httpx.Headers, bytes], float | None]
"""From code, headers and body: the seconds of silence that an answer asks for."""


class Paced(http.Connections):
    """Connections whose every attempt, the client's own repetitions included, waits for its turn."""

    def __init__(self, inner: http.Connections, pace: Pace, learn: Learn) -> None:
        """Take the process's connections, the pace, and how the other side says that it is too much."""
        super().__init__()
        self._inner = inner
        self._pace = pace
        self._learn = learn

    async def send(
        self, access: http.Access, method: str, url: str, **arguments: Any
    ) -> tuple[int, httpx.Headers, bytes]:
        """One attempt, in its turn. Raises as `http.Connections.send`, and errors.Transient where the turn is far."""
        await self._pace.turn()
        code, headers, content = await self._inner.send(access, method, url, **arguments)
        silence = self._learn(code, headers, content)
        if silence is not None:
            self._pace.pause(silence)
            if code == 429:
                # Where the client looks for it, wherever the other side has put it.
                headers = httpx.Headers(headers)
                headers["Retry-After"] = f"{max(silence, 1.0):.0f}"
        return code, headers, content
