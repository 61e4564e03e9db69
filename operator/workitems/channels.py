"""Trackers, notifiers and templates of a Repository, made from its manifest and its Secrets as they are now.

`connect` reads and keeps; here stands what is special about these: a pace that all items of a key share, whatever
Repository they belong to, because the other side counts by key.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from datetime import datetime
from typing import Any

from workitems import cluster, connect, errors, messages
from workitems.api import Repository
from workitems.api.integrations import AppriseNotifier, PlaneTracker, TelegramNotifier
from workitems.core import events
from workitems.integrations import http, plane, telegram
from workitems.integrations.apprise import AppriseChannel
from workitems.integrations.notifier import Notifier
from workitems.integrations.pace import Limit, Pace, Paced
from workitems.integrations.plane import PlaneProject
from workitems.messages import Own

KEPT_FOR_EFFECTS = 20
"""Of Plane's 60 requests a minute: polling leaves these to what is to be told."""
CHAT_LIMIT = (1, 1.0)
GROUP_LIMIT = (20, 60.0)
BOT_LIMIT = (30, 1.0)
"""Telegram's, as (messages, seconds)."""
CHAT_PATIENCE_SECONDS = 20.0
"""For one turn. What only waits for its turns must not use up the outbox's patience: it would count as perhaps sent."""


class Channels:
    """One client for every channel, one pace for every key."""

    def __init__(
        self,
        api: cluster.Cluster,
        clients: connect.Clients,
        event: Callable[[dict[str, Any]], None],
        now: Callable[[], datetime],
    ) -> None:
        """Take the API server, who reads Repositories and Secrets, whom to tell of an Event, and the clock."""
        self._api = api
        self._clients = clients
        self._event = event
        self._now = now
        self._connections = http.Connections()
        self._paces: dict[tuple[str, str], Pace] = {}

    async def close(self) -> None:
        """Close all connections."""
        await self._connections.close()

    async def repository(self, namespace: str, name: str) -> Repository:
        """A Repository as it is now. Raises errors.Transient, errors.Permanent."""
        return await self._clients.repository(namespace, name)

    async def tracker(self, repository: Repository) -> PlaneProject:
        """Its tracker's project. Raises errors.Transient, errors.Permanent."""
        return (await self._tracker(repository))[0]

    async def quiet(self, repository: Repository) -> None:
        """Return when the tracker's key has room for requests that are in no hurry. Raises as `tracker` does."""
        await (await self._tracker(repository))[1].quiet()

    async def notifier(self, repository: Repository, index: int) -> Notifier:
        """One of its notifiers. Raises errors.Transient, errors.Permanent."""
        name, chosen, field = repository.metadata.name, repository.spec.notify[index], f"spec.notify[{index}]"
        if chosen.telegram is not None:
            return await self._telegram(repository, chosen.telegram, field)
        if chosen.apprise is not None:
            return await self._apprise(repository, chosen.apprise, field)
        raise errors.Permanent("NotifierUnknown", f"{field} of Repository {name} is of a kind that this version lacks")

    async def templates(self, repository: Repository) -> Own | None:
        """A team's own templates; what is wrong with them as a whole is an Event. Raises errors.Transient."""
        ref, namespace = repository.spec.messages.templates, repository.metadata.namespace
        if ref is None:
            return None
        body = await self._api.get(cluster.CONFIG_MAPS, namespace, ref.config_map_name)
        own = Own(ref.config_map_name, (body or {}).get("data") or {})
        unknown = messages.unknown(own)
        if body is None:
            self._warn(repository, f"there is no ConfigMap {own.source} in namespace {namespace}: create it")
        elif unknown:
            self._warn(repository, f"ConfigMap {own.source} has keys that nothing is told by: {', '.join(unknown)}")
        return own

    async def document(self, repository: Repository, commit: str, path: str) -> str | None:
        """A file at a commit by the Repository's forge; None without one, or if it is not there. Raises as `forge`."""
        if repository.spec.forge is None:
            return None
        forge = await self._clients.forge(repository.metadata.namespace, repository.metadata.name)
        return await forge.document(commit, path)

    # --- how

    async def _tracker(self, repository: Repository) -> tuple[PlaneProject, Pace]:
        namespace, name = repository.metadata.namespace, repository.metadata.name
        chosen = repository.spec.plane
        if chosen is None:
            raise errors.Permanent("NoTracker", f"Repository {name} has no tracker any more: name one in spec.tracker")
        token, version = await self._clients.secret(namespace, chosen.token, "spec.tracker.plane.token", name)
        ca_pem = await self._clients.certificates(namespace, repository.spec, name)
        limit = (plane.REQUESTS_A_MINUTE, plane.WINDOW_SECONDS)
        url = chosen.url.rstrip("/")
        pace = self._pace((url, _digest(token)), f"Plane at {url}", limit, kept=KEPT_FOR_EFFECTS)
        key, made_from = (namespace, name, "tracker"), (_where(chosen), version, ca_pem)
        found: PlaneProject | None = self._clients.same(key, made_from)
        if found is None:
            headers = {"X-Api-Key": token}
            access = http.Access(url, headers=headers, hidden=(token,), ca_pem=ca_pem)
            client = http.Client(Paced(self._connections, plane.silence, pace), access)
            found = PlaneProject(client, chosen.workspace, chosen.project, _clock)
            await self._clients.keep(key, made_from, found, _nothing)
        return found, pace

    async def _telegram(self, repository: Repository, chosen: TelegramNotifier, field: str) -> Notifier:
        namespace, name = repository.metadata.namespace, repository.metadata.name
        token, _ = await self._clients.secret(namespace, chosen.token, f"{field}.telegram.token", name)
        ca_pem = await self._clients.certificates(namespace, repository.spec, name)
        who, chat = _digest(token), chosen.chat_id
        limits = (CHAT_LIMIT, GROUP_LIMIT) if chat.startswith(("-", "@")) else (CHAT_LIMIT,)
        paces = (
            self._pace((who, chat), f"chat {chat} of Telegram", *limits, patience_seconds=CHAT_PATIENCE_SECONDS),
            self._pace((who, ""), "the bot at Telegram", BOT_LIMIT, patience_seconds=CHAT_PATIENCE_SECONDS),
        )
        # It stands in the address, and is written in it as it is.
        access = http.Access(chosen.url.rstrip("/"), hidden=(token,), ca_pem=ca_pem)
        client = http.Client(Paced(self._connections, telegram.silence, *paces), access)
        return telegram.TelegramChat(client, (chat, chosen.message_thread_id), token)

    async def _apprise(self, repository: Repository, chosen: AppriseNotifier, field: str) -> Notifier:
        namespace, name = repository.metadata.namespace, repository.metadata.name
        address, _ = await self._clients.secret(namespace, chosen.address, f"{field}.apprise.address", name)
        return await AppriseChannel.opened(address)

    def _warn(self, repository: Repository, message: str) -> None:
        said = f"spec.messages.templates: {message}; until then the built-in texts are used"
        self._event(events.templates_unusable(repository, said, self._now()))

    def _pace(self, key: tuple[str, str], what: str, *limits: Limit, **options: Any) -> Pace:
        found = self._paces.get(key)
        if found is None:
            found = self._paces[key] = Pace(what, *limits, **options)
        return found


def _where(chosen: PlaneTracker) -> tuple[str, str, str]:
    return chosen.url, chosen.workspace, chosen.project


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _clock() -> float:
    return asyncio.get_running_loop().time()


async def _nothing() -> None:
    """The connections are everybody's."""
