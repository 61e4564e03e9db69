"""The HMAC secrets of webhooks, read live and kept for seconds, so that nobody's made-up paths cost API requests.

The path of a delivery is a stranger's word: it may name any namespace and Repository, thousands of them a second. What
is found out about a name is kept for a few seconds; names that exist and names that do not are kept apart, so that the
one cannot push out the other; and all reads together are limited to a rate. Above it an old secret goes on being used,
and a name that nobody knows yet is told to come later.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import collections
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass

from workitems import cluster, errors
from workitems.api.common import DNS_LABEL, DNS_SUBDOMAIN

KNOWN_SECONDS = 15.0
"""How long a secret is used without another look: so long does an old one go on working after a change."""
UNKNOWN_SECONDS = 10.0
STALE_SECONDS = 600.0
"""How long an old one is used while it cannot be looked at."""
KEPT = 1024
READS_A_SECOND = 5.0
READS_AT_ONCE = 20.0

_LABEL = re.compile(DNS_LABEL)
_SUBDOMAIN = re.compile(DNS_SUBDOMAIN)

Name = tuple[str, str, str]
"""Namespace, Repository, source."""


@dataclass(frozen=True)
class _Found:
    secret: bytes | None
    at: float


class WebhookSecrets:
    """Secrets by namespace, Repository and source."""

    def __init__(self, api: cluster.Cluster, served: Collection[str], monotonic: Callable[[], float]) -> None:
        """Take the connection, the namespaces that are served (none: all), and a clock in seconds."""
        self._api = api
        self._served = frozenset(served)
        self._monotonic = monotonic
        self._known: collections.OrderedDict[Name, _Found] = collections.OrderedDict()
        self._unknown: collections.OrderedDict[Name, _Found] = collections.OrderedDict()
        self._under_way: dict[Name, asyncio.Task[bytes | None]] = {}
        self._allowance = READS_AT_ONCE
        self._counted_at = monotonic()

    async def of(self, namespace: str, repository: str, source: str) -> bytes | None:
        """The secret; None: there is no such Repository, or it takes no webhooks from there.

        Raises errors.Transient if that cannot be found out now.
        """
        name = (namespace, repository, source)
        if not self._possible(namespace, repository):
            return None
        now = self._monotonic()
        known, unknown = self._known.get(name), self._unknown.get(name)
        if known is not None and now - known.at < KNOWN_SECONDS:
            return known.secret
        if unknown is not None and now - unknown.at < UNKNOWN_SECONDS:
            return None
        stale = known if known is not None and now - known.at < STALE_SECONDS else None
        reading = self._under_way.get(name)
        if reading is None:
            if not self._may_read(now):
                if stale is None:
                    raise errors.Transient("too many webhooks name Repositories that were not known")
                return stale.secret
            reading = self._under_way[name] = asyncio.create_task(self._find_out(name), name=f"webhook secret {name}")
        try:
            # Many deliveries at once share one read, which goes on when one of them hangs up.
            return await asyncio.shield(reading)
        except errors.WorkItemsError as error:
            if stale is not None:
                return stale.secret
            raise errors.Transient(str(error)) from error

    async def _find_out(self, name: Name) -> bytes | None:
        try:
            secret = await self._read(name)
            self._keep(name, _Found(secret, self._monotonic()))
            return secret
        finally:
            del self._under_way[name]

    def _possible(self, namespace: str, repository: str) -> bool:
        if self._served and namespace not in self._served:
            return False
        return (
            _LABEL.fullmatch(namespace) is not None
            and len(namespace) <= 63
            and _SUBDOMAIN.fullmatch(repository) is not None
            and len(repository) <= 253
        )

    def _may_read(self, now: float) -> bool:
        self._allowance = min(READS_AT_ONCE, self._allowance + (now - self._counted_at) * READS_A_SECOND)
        self._counted_at = now
        if self._allowance < 1.0:
            return False
        self._allowance -= 1.0
        return True

    def _keep(self, name: Name, found: _Found) -> None:
        here, other = (self._known, self._unknown) if found.secret is not None else (self._unknown, self._known)
        other.pop(name, None)
        here[name] = found
        here.move_to_end(name)
        if len(here) > KEPT:
            here.popitem(last=False)

    async def _read(self, name: Name) -> bytes | None:
        namespace, repository, source = name
        body = await self._api.get(cluster.REPOSITORIES, namespace, repository)
        webhooks = ((body or {}).get("spec") or {}).get("webhooks") or {}
        if not webhooks.get("secretName"):
            return None
        return secret_value(await self._api.get(cluster.SECRETS, namespace, webhooks["secretName"]), source)


def secret_value(body: cluster.JSONObject | None, key: str) -> bytes | None:
    """The value of one key of a Secret, without the line end that an editor left; None if there is nothing in it."""
    try:
        value = base64.b64decode(((body or {}).get("data") or {}).get(key) or "", validate=True)
    except binascii.Error:
        return None
    # An empty secret would let everybody sign.
    return value.strip() or None
