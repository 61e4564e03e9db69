"""Watches the Jobs and pods of runs, a dozen events a transition, and passes on the two that are worth a look.

kopf watches what people write; for these two kinds its pipeline cost more than everything else that a transition takes
(bench/README.md). It also reads at the start, and keeps something in memory for, every object there is, and finished
Jobs stay for a week. A hint needs none of that: a watch here begins at the present and keeps nothing but what it last
said about objects that were unusual. What it cannot know, because it happened before it began or where the API server
has forgotten its place, `lost` is called for: every unfinished item is looked at then.
"""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Callable
from datetime import datetime

import structlog

from workitems import cluster, errors, views
from workitems.core import news
from workitems.memory import EndedPod, Memory
from workitems.protocol import ITEM_LABEL

log = structlog.get_logger(__name__)

KINDS = (cluster.PODS, cluster.JOBS)
"""The pod's end is the signal: the Job controller reports the same one to three seconds later."""
REMEMBERED = 4096
"""Objects whose last news is known. One that is forgotten costs a look too many."""
BASE_SECONDS = 1.0
MAX_SECONDS = 30.0
SHORT_SECONDS = 1.0
"""A watch that has ended sooner, without a word, is one that the server (or a proxy before it) cannot serve now."""


class PartsWatch:
    """The watch of one kind in one namespace, or in all (None)."""

    def __init__(
        self,
        api: cluster.Cluster,
        kind: cluster.Resource,
        namespace: str | None,
        clock: Callable[[], datetime],
        memory: Memory,
    ) -> None:
        """Take a connection without a limit, since every watch holds one open, the time of day, and whom to tell."""
        self._api = api
        self._kind = kind
        self._namespace = namespace
        self._clock = clock
        self._memory = memory
        self._since = ""
        self._said: collections.OrderedDict[str, str] = collections.OrderedDict()

    async def begin(self) -> None:
        """Find the present: whatever comes after this call will be told. Raises errors.Transient, errors.Permanent."""
        self._since = await self._api.version(self._kind, self._namespace)

    async def run(self, add: Callable[[str], None], lost: Callable[[], None]) -> None:
        """Add the keys of items that are worth a look, until cancelled. Goes on after every error."""
        failures, clock = 0, asyncio.get_running_loop().time
        while True:
            began, heard = clock(), False
            try:
                if not self._since:
                    await self.begin()
                    lost()
                async for kind, body in self._api.watch(
                    self._kind, self._namespace, label_selector=ITEM_LABEL, since=self._since
                ):
                    failures, heard = 0, True
                    self._since = body["metadata"]["resourceVersion"]
                    if kind != "BOOKMARK":
                        self._hear(kind, body, add)
                if not heard and clock() - began < SHORT_SECONDS:
                    raise errors.Transient("the watch ended as soon as it began")
            except errors.Expired:
                log.info("watch begins anew", kind=str(self._kind), namespace=self._namespace)
                self._since = ""
            except errors.WorkItemsError as error:
                delay = min(MAX_SECONDS, BASE_SECONDS * 2 ** min(failures, 16))
                failures += 1
                log.warning("watch", kind=str(self._kind), error=str(error), seconds=delay)
                await asyncio.sleep(delay)

    def _hear(self, kind: str, body: cluster.JSONObject, add: Callable[[str], None]) -> None:
        metadata = body["metadata"]
        uid, key = metadata["uid"], f"{metadata['namespace']}/{metadata['labels'][ITEM_LABEL]}"
        pod = views.pod(body) if self._kind is cluster.PODS else None
        said = news.of_pod(pod, self._clock()) if pod is not None else self._of_job(body)
        if kind == "DELETED":
            self._said.pop(uid, None)
        elif said == self._said.get(uid, news.NONE):
            return
        else:
            self._said[uid] = said
            self._said.move_to_end(uid)
            if len(self._said) > REMEMBERED:
                self._said.popitem(last=False)
        if pod is not None and pod.terminal:
            # Only with the look that follows, which forgets it where it is of no use.
            self._memory.pod_ended(key, EndedPod(views.controller(metadata), pod))
        add(key)

    def _of_job(self, body: cluster.JSONObject) -> str:
        metadata = body["metadata"]
        return news.of_job(views.job(metadata["name"], body, []), "deletionTimestamp" in metadata)
