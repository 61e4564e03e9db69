"""From a verified delivery to the items it is about: each of them is put on the queue, and that is all.

A busy forge sends many deliveries about the same branch: what is waiting already is not looked for twice. What is too
much is dropped, because the sweep and the items' own polling find everything that a webhook may tell.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from workitems import cluster, errors
from workitems.integrations.webhook import Delivery

log = structlog.get_logger(__name__)

WAITING_MOST = 1000
ITEMS_MOST = 50
"""Unfinished items woken by one delivery: a branch has one, and the few that wait for it."""

About = tuple[str, str, str, str]
"""Namespace, Repository, field, value."""


class Deliveries:
    """Looks for items one delivery after the other."""

    def __init__(self, api: cluster.Cluster, wake: Callable[[str], None]) -> None:
        """Take the connection, and how to put a key on the queue."""
        self._api = api
        self._wake = wake
        self._waiting: dict[About, None] = {}
        self._more = asyncio.Event()
        self.dropped = 0
        """Deliveries that came while too many were waiting."""

    def put(self, namespace: str, repository: str, delivery: Delivery) -> None:
        """Remember what a delivery is about."""
        for field, value in sorted(delivery.about):
            about = (namespace, repository, field, value)
            if about not in self._waiting and len(self._waiting) >= WAITING_MOST:
                self.dropped += 1
                continue
            self._waiting[about] = None
            self._more.set()

    async def run(self) -> None:
        """Wake items until cancelled."""
        while True:
            await self._more.wait()
            self._more.clear()
            while self._waiting:
                about = next(iter(self._waiting))
                # Forgotten before the look: what arrives meanwhile is looked for again.
                del self._waiting[about]
                try:
                    await self._wake_items(about)
                except errors.WorkItemsError as error:
                    log.warning("delivery lost", about=about, error=str(error))

    async def _wake_items(self, about: About) -> None:
        namespace, repository, field, value = about
        selector = f"spec.repository={repository},{field}={cluster.escaped(value)},{cluster.UNFINISHED}"
        keys: list[str] = []
        async for body in self._api.list(cluster.WORKITEMS, namespace, field_selector=selector, limit=ITEMS_MOST):
            keys.append(f"{namespace}/{body['metadata']['name']}")
            if len(keys) == ITEMS_MOST:
                break
        for key in keys:
            self._wake(key)
        log.info("delivery", repository=f"{namespace}/{repository}", field=field, value=value, items=keys)
