"""Whether the operator does its work, for the kubelet and for Prometheus: /healthz, /readyz and /metrics.

A process that answers is not yet one that works. Two things are told from what must happen if all is well: each of
the operator's own status writes comes back as an event of the watch, and a key on the queue reaches a worker. A watch
that was cut without a word, or workers that hang, make /healthz fail, and the kubelet starts the pod anew, which
costs nothing because nothing is kept in memory that status does not say. /readyz fails then too, and until the API
server has accepted every watch: an operator that is ready hears of what happens from now on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

import structlog
from aiohttp import web

from workitems import metrics, queue

log = structlog.get_logger(__name__)

WATCH_STALLED_SECONDS = 300.0
"""How long an own write may go without any event from its namespace's watch. The sweep bridges that time."""
QUEUE_STALLED_SECONDS = 300.0
"""How long a key may wait for a worker."""


class Pulse:
    """Signs of life of the watch, by namespace."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Take a monotonic clock in seconds."""
        self._clock = clock
        self._heard: dict[str, float] = {}
        self._unanswered: dict[str, float] = {}

    def heard(self, namespace: str) -> None:
        """An event about a WorkItem of this namespace has come."""
        self._heard[namespace] = self._clock()
        self._unanswered.pop(namespace, None)

    def written(self, namespace: str, began: float) -> None:
        """A status was written; `began`: before the request. Its event may have come before its answer."""
        if self._heard.get(namespace, -1.0) < began:
            self._unanswered.setdefault(namespace, began)

    def stalled(self) -> str:
        """Why the watch seems dead; empty: it does not."""
        oldest = min(self._unanswered.values(), default=None)
        if oldest is None or self._clock() - oldest <= WATCH_STALLED_SECONDS:
            return ""
        where = min(self._unanswered, key=self._unanswered.__getitem__)
        return f"no event from the watch of namespace {where} for {self._clock() - oldest:.0f} s after a status write"


class Health:
    """What the three paths say."""

    def __init__(self, pulse: Pulse, work: queue.Queue, counted: metrics.Metrics, watches: Iterable[str]) -> None:
        """Take the signs of life, the queue, the metrics, and the URL paths of the watches to wait for."""
        self._pulse = pulse
        self._queue = work
        self._metrics = counted
        self._unwatched = list(watches)
        self.standing_by = False
        """Whether another operator is at work: nothing is to be done, and that well."""

    def watched(self, path: str) -> None:
        """The API server has accepted a watch; none begins before the ledger is rebuilt."""
        if path in self._unwatched:
            self._unwatched.remove(path)

    def wrong(self) -> str:
        """What makes a restart worth it; empty: nothing."""
        waiting = self._queue.oldest_age_seconds
        if waiting > QUEUE_STALLED_SECONDS:
            return f"a key has waited {waiting:.0f} s for a worker"
        return self._pulse.stalled()

    @asynccontextmanager
    async def served(self, port: int) -> AsyncIterator[None]:
        """Serve on all addresses while inside. Raises OSError if the port is taken."""
        application = web.Application()
        application.router.add_get("/healthz", self._healthz)
        application.router.add_get("/readyz", self._readyz)
        application.router.add_get("/metrics", self._metrics_text)
        runner = web.AppRunner(application, access_log=None, handle_signals=False)
        await runner.setup()
        try:
            await web.TCPSite(runner, port=port).start()
            yield
        finally:
            await runner.cleanup()

    async def _healthz(self, _: web.Request) -> web.Response:
        wrong = self.wrong()
        if wrong:
            log.error("unhealthy", problem=wrong)
        return web.Response(status=503 if wrong else 200, text=f"{wrong or 'ok'}\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        if self.standing_by:
            return web.Response(text="standing by\n")
        unready = f"starting: no watch of {self._unwatched[0]} yet" if self._unwatched else self.wrong()
        return web.Response(status=503 if unready else 200, text=f"{unready or 'ok'}\n")

    async def _metrics_text(self, _: web.Request) -> web.Response:
        return web.Response(body=self._metrics.text(), headers={"Content-Type": metrics.CONTENT_TYPE})
