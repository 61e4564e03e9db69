"""Waiting for our kinds: an installation creates the CRDs and the operator in the same breath.

Until a CRD is established the API server answers 404 to everything about its kind, and kopf, which looks once which
kinds there are, would never watch it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog

from workitems import cluster, errors

log = structlog.get_logger(__name__)

OURS = (cluster.WORKITEMS, cluster.REPOSITORIES, cluster.PIPELINES, cluster.DECISIONS)
PERIOD_SECONDS = 1.0
ATTEMPTS = 120

Sleep = Callable[[float], Awaitable[object]]


async def served(api: cluster.Cluster, scope: str | None, sleep: Sleep) -> None:
    """Return once the API server serves all four kinds, in `scope` (a namespace; None: everywhere).

    Raises errors.Permanent("NotFound") if one is not there after two minutes, and every other error at once.
    """
    for kind in OURS:
        await _served(api, kind, scope, sleep)


async def _served(api: cluster.Cluster, kind: cluster.Resource, scope: str | None, sleep: Sleep) -> None:
    for attempt in range(ATTEMPTS):
        try:
            await api.version(kind, scope)
        except errors.Permanent as error:
            if error.reason != "NotFound" or attempt == ATTEMPTS - 1:
                raise
        else:
            return
        if attempt == 0:
            log.info("waiting for a CRD", kind=str(kind))
        await sleep(PERIOD_SECONDS)
