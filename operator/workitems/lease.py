"""One operator at work where several stand by: the Lease of coordination.k8s.io that says which.

Two operators at once would do no harm, since every status write is guarded; but each would count concurrent runs for
itself. So the second waits until the first has let go, or has not renewed for a while. That while is measured by the
waiter's own clock from the moment at which it saw the last change: the clocks of two nodes are never compared.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import structlog

from workitems import cluster, errors

log = structlog.get_logger(__name__)

LEASES = cluster.Resource("coordination.k8s.io", "v1", "leases")
DURATION_SECONDS = 15.0
"""After so long without a renewal the Lease is anybody's."""
GIVE_UP_SECONDS = 8.0
"""Its holder stops after so long without a renewal: with one more period and attempt, before anybody else begins."""
PERIOD_SECONDS = 2.0
ATTEMPT_SECONDS = 3.0
"""How long one look at the Lease and its renewal may take together."""

JSON = dict[str, Any]
Sleep = Callable[[float], Awaitable[None]]


class Lease:
    """The Lease `namespace/name`, as `identity` (a pod's name) sees it."""

    def __init__(
        self, api: cluster.Cluster, key: tuple[str, str], identity: str, clock: Callable[[], float], sleep: Sleep
    ) -> None:
        """Take namespace and name, who we are, a monotonic clock in seconds, and how to wait."""
        self._api = api
        self._namespace, self._name = key
        self._identity = identity
        self._clock = clock
        self._sleep = sleep
        self._seen: tuple[str, float] = ("", clock())  # the last version, and since when it is the last
        self._renewed = clock()

    async def acquire(self) -> None:
        """Wait until the Lease is ours. Raises errors.Permanent if the API server refuses it to us."""
        told = ""
        while True:
            began = self._clock()
            holder = await self._attempt()
            if holder == self._identity:
                self._renewed = began
                log.info("leading", lease=self._name, identity=self._identity)
                return
            if holder != told:
                log.info("standing by", lease=self._name, holder=holder or "unknown")
                told = holder
            await self._sleep(PERIOD_SECONDS)

    async def keep(self) -> None:
        """Renew it for as long as it is ours; return once it is not, or may not be any more."""
        while True:
            await self._sleep(PERIOD_SECONDS)
            began = self._clock()
            holder = await self._attempt()
            if holder == self._identity:
                self._renewed = began
            elif holder or self._clock() - self._renewed > GIVE_UP_SECONDS:
                log.error("lease lost", lease=self._name, holder=holder or "unknown")
                return

    async def release(self) -> None:
        """Let go at the end, so that the next need not wait. A failure costs the next one its patience alone."""
        try:
            live = await self._api.get(LEASES, self._namespace, self._name)
            if live is not None and _holder(live) == self._identity:
                await self._api.replace(LEASES, self._body(live, holder=""))
        except errors.WorkItemsError as error:
            log.warning("lease not released", error=str(error))

    async def _attempt(self) -> str:
        """Take or renew it if that is possible; who holds it then, or "" if that cannot be told."""
        try:
            async with asyncio.timeout(ATTEMPT_SECONDS):
                return await self._take()
        except (errors.Transient, TimeoutError) as error:
            log.warning("lease", error=str(error) or "no answer in time")
            return ""

    async def _take(self) -> str:
        live = await self._api.get(LEASES, self._namespace, self._name)
        if live is None:
            made = await self._api.create(LEASES, self._namespace, self._body(None, holder=self._identity))
            return self._identity if made is not None else ""
        version, holder = live["metadata"]["resourceVersion"], _holder(live)
        if version != self._seen[0]:
            self._seen = (version, self._clock())
        if holder not in ("", self._identity) and self._clock() - self._seen[1] < DURATION_SECONDS:
            return holder
        # By its resourceVersion: of two who find it free, one gets it and the other a conflict.
        await self._api.replace(LEASES, self._body(live, holder=self._identity))
        return self._identity

    def _body(self, live: JSON | None, holder: str) -> JSON:
        before = (live or {}).get("spec") or {}
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        changed = holder != before.get("holderIdentity")
        spec = {
            "holderIdentity": holder,
            "leaseDurationSeconds": int(DURATION_SECONDS),
            "acquireTime": now if changed else before.get("acquireTime", now),
            "renewTime": now,
            "leaseTransitions": int(before.get("leaseTransitions") or 0) + int(changed and bool(holder)),
        }
        metadata = live["metadata"] if live is not None else {"name": self._name, "namespace": self._namespace}
        return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}


def _holder(live: JSON) -> str:
    return str((live.get("spec") or {}).get("holderIdentity") or "")
