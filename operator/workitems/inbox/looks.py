"""One look at one project: what has changed, what was said about the items that wait, which issues are to be taken.

In that order, and each apart from the others: a name in the Repository that the project lacks, or an issue that cannot
be taken, keeps no approval from being heard. A look at everything uses what is left of the key's requests: each of its
requests waits until what is to be told has room. A look that a webhook asked for does not wait.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog
from pydantic import ValidationError

from workitems import cluster
from workitems.api import Repository, WorkItem
from workitems.channels import Channels
from workitems.core import inbox
from workitems.core.tracker import Issue
from workitems.inbox.issues import Issues
from workitems.inbox.visit import Again, Seen, Tell, Visit, issue_of
from workitems.inbox.words import Words

log = structlog.stdlib.get_logger(__name__)

FIRST_LOOK_ISSUES = 2000
"""How far back the first look at a project goes, by the issues' last changes."""
OVERLAP = timedelta(minutes=5)
"""Clocks differ, and a page may be read while somebody writes."""
SEEN_MOST = 20_000
QUEUE_MOST = 2 * FIRST_LOOK_ISSUES
AT_ONCE = 4
"""Items of a Repository whose issues are looked at at the same time."""


@dataclass
class Changes:
    """The issues that have changed since the last look."""

    issues: list[Issue] = field(default_factory=list)
    until: datetime | None = None
    """All before it are there; None: not all were read."""


class Looks:
    """Looks at one Repository's project."""

    def __init__(self, api: cluster.Cluster, channels: Channels, tell: Tell) -> None:
        """Take the API server, the channels, and whom to tell."""
        self._api = api
        self._channels = channels
        self.tell = tell
        self._issues = Issues(api, channels, tell)
        self._words = Words(api, channels, tell)
        self._seen: Seen | None = None

    async def look(self, repository: Repository, again: Again) -> None:
        """Everything that may have been said."""
        visit = await self._visit(repository, again, hurry=False)
        if visit is None:
            return
        items = await self._items(repository)
        changes = Changes()
        if visit.plane.work_items is not None or visit.plane.states.approved is not None:
            # First, because a move shows here: one request for all items.
            await self.tell.carefully(repository, self._read(visit, changes))
        await self._listen(visit, items)
        whole = changes.until is not None
        if visit.plane.work_items is not None:
            whole &= await self.tell.carefully(repository, self._issues.note(visit, changes.issues, items))
            await self._issues.take(visit, items)
        await self.tell.carefully(repository, self._issues.say_taken(visit))
        if whole and len(visit.seen.queue) <= QUEUE_MOST:
            visit.seen.until = changes.until
        self._forget(visit.seen, items)

    async def look_at_issue(self, repository: Repository, issue_id: str, again: Again) -> None:
        """What a webhook named."""
        visit = await self._visit(repository, again, hurry=True)
        if visit is None:
            return
        issue = await visit.project.issue(issue_id)
        if issue is None:
            return
        visit.seen.states[issue.id] = issue.state
        items = await self._items(repository)
        for item in items:
            if issue_of(item) == issue_id and item.status.phase in inbox.WAITING:
                await self.tell.carefully(repository, self._words.listen(visit, item))
        if visit.plane.work_items is not None:
            await self._issues.take_one(visit, issue, items)

    # --- how

    async def _visit(self, repository: Repository, again: Again, *, hurry: bool) -> Visit | None:
        plane = repository.spec.plane
        if plane is None:
            return None
        if self._seen is None or self._seen.plane != plane:
            self._seen = Seen(plane)
        project = await self._channels.tracker(repository)
        if not hurry:
            project = project.after(lambda: self._channels.quiet(repository))
        return Visit(repository, plane, project, self._seen, again)

    async def _read(self, visit: Visit, changes: Changes) -> None:
        """The issues that have changed since the last look; at the first one, all that matter."""
        seen = visit.seen
        newest, count = seen.until, 0
        async for found in visit.project.changed_issues():
            count += 1
            changed = found.updated_at
            if changed is None or (seen.until is not None and changed < seen.until - OVERLAP):
                break
            if seen.until is None and count > FIRST_LOOK_ISSUES:
                break
            newest = changed if newest is None else max(newest, changed)
            seen.states[found.id] = found.state
            changes.issues.append(found)
        changes.until = newest

    async def _listen(self, visit: Visit, items: list[WorkItem]) -> None:
        looked = visit.seen.looked
        waiting = [item for item in items if item.status.phase in inbox.WAITING]
        waiting.sort(key=lambda item: looked.get(item.metadata.uid, -1.0))
        room = asyncio.Semaphore(AT_ONCE)

        async def listen(item: WorkItem) -> None:
            # A semaphore is fair: whoever has waited longest is looked at next.
            async with room:
                looked[item.metadata.uid] = asyncio.get_running_loop().time()
                await self.tell.carefully(visit.repository, self._words.listen(visit, item))

        async with asyncio.TaskGroup() as looks:
            for item in waiting:
                looks.create_task(listen(item))

    def _forget(self, seen: Seen, items: list[WorkItem]) -> None:
        unfinished = {item.metadata.uid for item in items}
        seen.looked = {uid: at for uid, at in seen.looked.items() if uid in unfinished}
        if len(seen.states) > SEEN_MOST:
            # An issue that became a WorkItem and is forgotten here is found again by that item, or its comment.
            seen.states.clear()
            seen.taken.clear()
            seen.until = None

    async def _items(self, repository: Repository) -> list[WorkItem]:
        """The unfinished items of a Repository that belong to an issue."""
        namespace, name = repository.metadata.namespace, repository.metadata.name
        selector = f"spec.repository={name},{cluster.UNFINISHED}"
        found = []
        async for body in self._api.list(cluster.WORKITEMS, namespace, field_selector=selector):
            try:
                item = WorkItem.parse(body)
            except ValidationError as error:
                log.warning("unreadable", item=f"{namespace}/{body['metadata']['name']}", error=str(error))
                continue
            if item.spec.external_ref is not None and item.metadata.deletion_timestamp is None:
                found.append(item)
        return found
