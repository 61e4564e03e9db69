"""Of several operators with the same Lease one is at work: here an operator waits for its turn, and ends with it.

The others stand by: healthy, but not ready for webhooks, which the label of the pod at work draws to itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable

import structlog

from workitems import cluster, errors, lease
from workitems.health import Health
from workitems.settings import Settings

log = structlog.get_logger(__name__)

LEADER_LABEL = "workitems.dev/leader"
"""Of the operator's pod that is at work, where several stand by."""


@contextlib.asynccontextmanager
async def leading(
    settings: Settings, api: cluster.Cluster, health: Health, clock: Callable[[], float], stop: asyncio.Event
) -> AsyncIterator[None]:
    """While inside, no other operator with the same Lease is at work; without a Lease there is none to wait for.

    `clock` gives monotonic seconds; `stop` is set where the Lease is lost. Raises errors.Permanent if the API server
    refuses the Lease.
    """
    if settings.lease is None:
        yield
        return
    identity = settings.identity or socket.gethostname()
    held = lease.Lease(api, (settings.namespace, settings.lease), identity, clock, asyncio.sleep)
    health.standing_by = True
    # Left over where the container was started again.
    await _label(settings, api, leads=False)
    await held.acquire()
    await _label(settings, api, leads=True)
    health.standing_by = False

    async def keep() -> None:
        try:
            await held.keep()
        except errors.Permanent as error:
            log.error("lease lost", reason=error.reason, error=str(error))  # noqa: TRY400 - no bug
        # The process ends as if it had been told to, and its pod starts again to stand by.
        stop.set()

    keeping = asyncio.create_task(keep())
    try:
        yield
    finally:
        keeping.cancel()
        await held.release()


async def _label(settings: Settings, api: cluster.Cluster, *, leads: bool) -> None:
    """Tell the Service of webhooks whether this pod is the one at work. Outside a pod there is none to label."""
    if settings.identity is not None:
        patch = {"metadata": {"labels": {LEADER_LABEL: "true" if leads else None}}}
        await api.merge_patch(cluster.PODS, settings.namespace, settings.identity, patch)
