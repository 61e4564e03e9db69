"""Every event may be lost: now and then every unfinished item, and every unanswered Decision, is looked at again.

So nothing that happens in the cluster is missed for longer than a sweep takes to come, whatever the watches do.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
from collections.abc import AsyncIterator

import structlog

from workitems import cluster, errors
from workitems.api import Phase
from workitems.memory import Memory
from workitems.metrics import Metrics
from workitems.queue import Queue

log = structlog.get_logger(__name__)


class Sweeps:
    """Puts what may have been missed into the queue, behind whatever has news."""

    def __init__(
        self, api: cluster.Cluster, namespaces: tuple[str, ...], queue: Queue, memory: Memory, metrics: Metrics
    ) -> None:
        """Take the API server, the served namespaces (none: all), and who is told of what is found."""
        self._api = api
        self._scopes: tuple[str | None, ...] = namespaces or (None,)
        self._queue = queue
        self._memory = memory
        self._metrics = metrics
        self._now = asyncio.Event()

    def soon(self) -> None:
        """Do not wait for the next sweep's time: something has certainly been missed."""
        self._now.set()

    async def run(self, every_seconds: float) -> None:
        """Sweep for ever. Raises errors.Permanent if the API server refuses a list."""
        # What is over is not watched, and may still have something to tell the outside.
        sweep = self._undelivered
        while True:
            try:
                await sweep()
            except errors.Transient as error:
                # The next sweep is as good; nothing depends on this one.
                log.warning("sweep failed", error=str(error))
            sweep = self._all
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(every_seconds):
                    await self._now.wait()
            self._now.clear()

    def unfinished(self) -> AsyncIterator[tuple[str, cluster.JSONObject]]:
        """Key and body of every WorkItem that is not over, live."""
        return self._items(cluster.UNFINISHED)

    async def _items(self, selector: str) -> AsyncIterator[tuple[str, cluster.JSONObject]]:
        for scope in self._scopes:
            async for body in self._api.list(cluster.WORKITEMS, scope, field_selector=selector):
                yield f"{body['metadata']['namespace']}/{body['metadata']['name']}", body

    async def _undelivered(self) -> None:
        async for key, _body in self._items(cluster.UNDELIVERED):
            self._queue.add(key)

    async def _all(self) -> None:
        phases: collections.Counter[str] = collections.Counter()
        self._memory.repositories_changed()
        async for key, body in self.unfinished():
            self._queue.add_behind(key)
            phases[(body.get("status") or {}).get("phase") or Phase.PENDING] += 1
        self._metrics.swept(phases)
        await self._undelivered()
        for scope in self._scopes:
            async for body in self._api.list(cluster.DECISIONS, scope):
                item = (body.get("spec") or {}).get("workItem")
                if item and not (body.get("status") or {}).get("result"):
                    key = f"{body['metadata']['namespace']}/{item}"
                    self._memory.may_have_decisions(key)
                    self._queue.add(key)
