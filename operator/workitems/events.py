"""Sends Events after the write that they tell of, beside the work and never in its way.

An Event is a convenience: one that cannot be sent is logged and forgotten, one too many while the API server is slow
is dropped. Nothing is decided from Events, and no step waits for one.
"""

from __future__ import annotations

import asyncio
from typing import Any

import structlog

from workitems import cluster, errors

log = structlog.get_logger(__name__)

WAITING_AT_MOST = 1000
"""Events that wait to be sent; those above it are dropped, which the log says."""


class Events:
    """The way out for Events."""

    def __init__(self, api: cluster.Cluster) -> None:
        """Take the connection."""
        self._api = api
        self._waiting: asyncio.Queue[dict[str, Any]] = asyncio.Queue(WAITING_AT_MOST)

    def send(self, manifests: list[dict[str, Any]]) -> None:
        """Send these soon."""
        for manifest in manifests:
            try:
                self._waiting.put_nowait(manifest)
            except asyncio.QueueFull:
                log.warning("event dropped", event_name=manifest["metadata"]["name"], reason=manifest["reason"])

    async def run(self) -> None:
        """Send what there is, for ever."""
        while True:
            manifest = await self._waiting.get()
            namespace = manifest["metadata"]["namespace"]
            try:
                await self._api.create(cluster.EVENTS, namespace, manifest)
            except errors.WorkItemsError as error:
                # The status says it all the same: an Event is not worth a second try.
                log.warning("event not sent", event_name=manifest["metadata"]["name"], error=str(error))
