"""Listening to trackers: issues become WorkItems, what people say there becomes Decisions.

A webhook only says where to look; the look is a live read, and the same look happens every minute anyway, so that
nothing is missed where webhooks are lost or switched off. What was seen is remembered only to save requests: WorkItems
and Decisions have names of the issue and the comment that they are from, so making them again finds them.

Every Repository has a room of its own, with one task that looks at everything now and then and one that follows hints:
a tracker that hangs keeps nobody waiting but its own people. Here the rooms are kept; `looks` says what one look is,
`issues` how issues become WorkItems, `words` how comments and moves become Decisions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from pydantic import ValidationError

from workitems import cluster, errors
from workitems.api import Repository
from workitems.channels import Channels
from workitems.inbox.looks import Looks
from workitems.inbox.visit import Tell
from workitems.integrations.plane_webhooks import ISSUE
from workitems.integrations.webhook import Delivery

__all__ = ["Inbox", "Tell"]

log = structlog.stdlib.get_logger(__name__)

HINTS_MOST = 1000
"""Of one Repository."""
Where = tuple[str, str]
"""Namespace and name of a Repository."""


class Inbox:
    """Keeps a room for every Repository that has a tracker."""

    def __init__(
        self,
        api: cluster.Cluster,
        channels: Channels,
        namespaces: tuple[str, ...],
        every_seconds: float,
        tell: Tell,
    ) -> None:
        """Take the API server, the channels, the served namespaces (none: all), how often to look, whom to tell."""
        self._api = api
        self._channels = channels
        self._namespaces = namespaces
        self._every_seconds = every_seconds
        self._tell = tell
        self._rooms: dict[Where, Room] = {}

    def heard(self, namespace: str, repository: str, delivery: Delivery) -> None:
        """A verified delivery is about an issue of that Repository: look at it soon."""
        for kind, issue in sorted(delivery.about):
            if kind == ISSUE:
                # It may be new: its room is made by whoever comes first.
                self._room((namespace, repository)).hint(issue)

    async def run(self) -> None:
        """Look until cancelled: at what a webhook named at once, at everything now and then."""
        try:
            while True:
                try:
                    await self._round()
                except errors.WorkItemsError as error:
                    log.warning("trackers not looked at", error=str(error))
                await asyncio.sleep(self._every_seconds)
        finally:
            await self._close(list(self._rooms))

    async def _round(self) -> None:
        there = {(each.metadata.namespace, each.metadata.name): each for each in await self._repositories()}
        await self._close([where for where in self._rooms if where not in there])
        for where, repository in there.items():
            self._room(where).look(repository)

    def _room(self, where: Where) -> Room:
        room = self._rooms.get(where)
        if room is None:
            room = self._rooms[where] = Room(where, Looks(self._api, self._channels, self._tell), self._channels)
        return room

    async def _close(self, rooms: list[Where]) -> None:
        await asyncio.gather(*(self._rooms.pop(where).close() for where in rooms))

    async def _repositories(self) -> list[Repository]:
        found = []
        for scope in self._namespaces or (None,):
            async for body in self._api.list(cluster.REPOSITORIES, scope):
                try:
                    repository = Repository.parse(body)
                except ValidationError as error:
                    log.warning("unreadable", repository=body["metadata"]["name"], error=str(error))
                    continue
                if repository.spec.plane is not None:
                    found.append(repository)
        return found


class Room:
    """One Repository's listening: begins when it is made."""

    def __init__(self, where: Where, looks: Looks, channels: Channels) -> None:
        """Take the Repository's namespace and name, how to look, and who reads the Repository."""
        self._where = where
        self._looks = looks
        self._channels = channels
        self._repository: Repository | None = None
        self._wanted = asyncio.Event()
        self._hints: dict[str, None] = {}
        self._hinted = asyncio.Event()
        self._later: dict[str, asyncio.TimerHandle] = {}
        name, start = "/".join(where), asyncio.get_running_loop().create_task
        self._tasks = (start(self._poll(), name=f"poll {name}"), start(self._follow(), name=f"hints {name}"))

    def look(self, repository: Repository) -> None:
        """Look at everything soon, or once the look that is under way is over."""
        self._repository = repository
        self._wanted.set()

    def hint(self, issue: str) -> None:
        """Look at that issue soon."""
        self._later.pop(issue, None)
        if len(self._hints) < HINTS_MOST:
            self._hints[issue] = None
            self._hinted.set()

    def hint_later(self, issue: str, seconds: float) -> None:
        """Look at that issue then; one look is enough, however many ask for it."""
        if issue not in self._later:
            self._later[issue] = asyncio.get_running_loop().call_later(seconds, self.hint, issue)

    async def close(self) -> None:
        """The Repository is gone, or the operator ends."""
        for timer in self._later.values():
            timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _poll(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            if self._repository is not None:
                await self._guarded(lambda repository: self._looks.look(repository, self.hint_later), self._repository)

    async def _follow(self) -> None:
        while True:
            await self._hinted.wait()
            self._hinted.clear()
            while self._hints:
                # Forgotten before the look: what arrives meanwhile is looked at again.
                issue = next(iter(self._hints))
                del self._hints[issue]
                try:
                    repository = await self._channels.repository(*self._where)
                except errors.WorkItemsError as error:
                    log.warning("delivery lost", repository="/".join(self._where), error=str(error))
                    continue
                except Exception:
                    # Our bug: the next hint is followed all the same.
                    log.exception("bug", repository="/".join(self._where))
                    continue
                await self._guarded(self._look_at(issue), repository)

    def _look_at(self, issue: str) -> Callable[[Repository], Awaitable[None]]:
        return lambda repository: self._looks.look_at_issue(repository, issue, self.hint_later)

    async def _guarded(self, look: Callable[[Repository], Awaitable[None]], repository: Repository) -> None:
        await self._looks.tell.carefully(repository, look(repository))
