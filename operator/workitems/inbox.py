"""Listening to trackers: issues become WorkItems, what people say there becomes Decisions.

A webhook only says where to look; the look is a live read, and the same look happens every minute anyway, so that
nothing is missed where webhooks are lost or switched off. What was seen is remembered only to save requests: WorkItems
and Decisions have names of the issue and the comment that they are from, so making them again finds them.

Polling uses what is left of a key's requests: those who wait longest are looked at first, and when the key has no more
room for it, the others wait until it has.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import structlog
from pydantic import ValidationError

from workitems import cluster, errors, messages, telling
from workitems.api import Phase, Repository, WorkItem
from workitems.api.repository import PlaneIntake, PlaneTracker
from workitems.channels import Channels
from workitems.core import events, inbox, intake
from workitems.core.stages import CREATED
from workitems.core.tracker import Comment, Issue, Project
from workitems.integrations.html_text import markdown, spoken
from workitems.integrations.plane import SOURCE, PlaneProject
from workitems.integrations.plane_webhooks import ISSUE
from workitems.integrations.webhook import Delivery
from workitems.messages import Subject

log = structlog.stdlib.get_logger(__name__)

HINTS_MOST = 1000
FIRST_LOOK_ISSUES = 2000
"""How far back the first look at a project goes, by the issues' last changes."""
OVERLAP = timedelta(minutes=5)
"""Clocks differ, and a page may be read while somebody writes."""
SEEN_MOST = 20_000
AT_ONCE = 4
"""Items of a Repository whose issues are looked at at the same time."""
Where = tuple[str, str]
"""Namespace and name of a Repository."""


@dataclass(frozen=True)
class Tell:
    """Whom an inbox tells what it has done or found."""

    wake: Callable[[str], None]
    """Takes the key of an item that has news."""
    event: Callable[[dict[str, Any]], None]
    """Takes the manifest of an Event about something that a person must mend."""
    now: Callable[[], datetime]


@dataclass
class Seen:
    """What earlier looks at one project found: it saves requests, and nothing depends on it."""

    until: datetime | None = None
    """All changes before this moment have been looked at."""
    states: dict[str, str] = field(default_factory=dict)
    """The state that each issue was in last."""
    taken: set[str] = field(default_factory=set)
    """Issues that have become WorkItems, or cannot."""
    looked: dict[str, float] = field(default_factory=dict)
    """When an item's issue was looked at, by the item's uid."""


class Inbox:
    """Looks at the trackers of all Repositories."""

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
        self._hints: dict[tuple[str, str, str], None] = {}
        self._hinted = asyncio.Event()
        self._seen: dict[Where, Seen] = {}

    def heard(self, namespace: str, repository: str, delivery: Delivery) -> None:
        """A verified delivery is about an issue of that Repository: look at it soon."""
        for kind, issue in sorted(delivery.about):
            if kind == ISSUE and len(self._hints) < HINTS_MOST:
                self._hints[namespace, repository, issue] = None
                self._hinted.set()

    async def run(self) -> None:
        """Look until cancelled: at what a webhook named at once, at everything now and then."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._poll())
            tasks.create_task(self._follow_hints())

    async def _poll(self) -> None:
        while True:
            try:
                repositories = await self._repositories()
                await asyncio.gather(*(self._carefully(each, self._look(each)) for each in repositories))
            except errors.WorkItemsError as error:
                log.warning("trackers not looked at", error=str(error))
            await asyncio.sleep(self._every_seconds)

    async def _follow_hints(self) -> None:
        while True:
            await self._hinted.wait()
            self._hinted.clear()
            while self._hints:
                namespace, name, issue = next(iter(self._hints))
                # Forgotten before the look: what arrives meanwhile is looked at again.
                del self._hints[namespace, name, issue]
                try:
                    repository = await self._channels.repository(namespace, name)
                except errors.WorkItemsError as error:
                    log.warning("delivery lost", repository=f"{namespace}/{name}", error=str(error))
                    continue
                await self._carefully(repository, self._look_at_issue(repository, issue))

    async def _carefully(self, repository: Repository, look: Coroutine[None, None, None]) -> None:
        """What fails is no reason not to look at the others."""
        where = f"{repository.metadata.namespace}/{repository.metadata.name}"
        try:
            await look
        except errors.WorkItemsError as error:
            reason = error.reason if isinstance(error, errors.Permanent) else ""
            log.warning("tracker", repository=where, reason=reason, error=str(error))
            if reason:
                self._tell.event(events.tracker_failed(repository, reason, str(error), self._tell.now()))
        except Exception:
            # Our bug: it must neither end the process nor keep the other trackers waiting.
            log.exception("bug", repository=where)

    # --- one project

    async def _look(self, repository: Repository) -> None:
        """Everything of one Repository that may have been said."""
        plane = _plane(repository)
        if plane is None:
            return
        items = await self._items(repository)
        project = await self._channels.tracker(repository)
        seen = self._seen_of(repository)
        if plane.work_items is not None or plane.states.approved is not None:
            await self._look_at_changes(repository, project, seen, items)
        waiting = [item for item in items if item.status.phase in inbox.WAITING]
        waiting.sort(key=lambda item: seen.looked.get(item.metadata.uid, -1.0))
        room = asyncio.Semaphore(AT_ONCE)

        async def listen(item: WorkItem) -> None:
            async with room:
                # What is to be told has its own part of the key's requests.
                await self._channels.quiet(repository)
                seen.looked[item.metadata.uid] = asyncio.get_running_loop().time()
                await self._carefully(repository, self._listen(repository, project, item))

        # A semaphore is fair: whoever has waited longest is looked at next.
        async with asyncio.TaskGroup() as looks:
            for item in waiting:
                looks.create_task(listen(item))
        unfinished = {item.metadata.uid for item in items}
        seen.looked = {uid: at for uid, at in seen.looked.items() if uid in unfinished}

    async def _look_at_issue(self, repository: Repository, issue_id: str) -> None:
        """What a webhook named."""
        plane = _plane(repository)
        if plane is None:
            return
        items = await self._items(repository)
        project = await self._channels.tracker(repository)
        issue = await project.issue(issue_id)
        if issue is None:
            return
        seen = self._seen_of(repository)
        seen.states[issue.id] = issue.state
        await self._take(repository, project, issue, items)
        for item in items:
            if _issue_of(item) == issue_id and item.status.phase in inbox.WAITING:
                await self._listen(repository, project, item)

    async def _look_at_changes(
        self, repository: Repository, project: PlaneProject, seen: Seen, items: list[WorkItem]
    ) -> None:
        """The issues that have changed since the last look; at the first one, all that matter."""
        newest, count = seen.until, 0
        async for found in project.changed_issues():
            count += 1
            changed = found.updated_at
            if changed is None or (seen.until is not None and changed < seen.until - OVERLAP):
                break
            if seen.until is None and count > FIRST_LOOK_ISSUES:
                break
            newest = changed if newest is None else max(newest, changed)
            known = seen.states.get(found.id)
            seen.states[found.id] = found.state
            if known != found.state or found.id not in seen.taken or _follows(items, found.id):
                await self._take(repository, project, found, items, whole=False)
        seen.until = newest
        if len(seen.states) > SEEN_MOST:
            # An issue that became a WorkItem and is forgotten here is found again by that item, or its comment.
            seen.states.clear()
            seen.taken.clear()
            seen.until = None

    # --- issues

    async def _take(
        self,
        repository: Repository,
        project: PlaneProject,
        issue: Issue,
        items: list[WorkItem],
        *,
        whole: bool = True,
    ) -> None:
        """Make a WorkItem of an issue that is wanted, or bring one that has not started up to date with it."""
        plane = _plane(repository)
        if plane is None or plane.work_items is None:
            return
        names = await project.names()
        name = intake.name_of(names.identifier, issue.sequence)
        follower = next((item for item in items if _issue_of(item) == issue.id and item.metadata.name == name), None)
        seen = self._seen_of(repository)
        if follower is None and (issue.id in seen.taken or not await _wanted(plane.work_items, project, names, issue)):
            return
        if not whole:
            # A list leaves the description out.
            full = await project.issue(issue.id)
            if full is None:
                return
            issue = full
        words = intake.words_of(issue, markdown(issue.description), name)
        if follower is not None:
            await self._follow(follower, intake.edit(follower, words))
        elif await self._make(repository, project, issue, intake.manifest(repository, plane, issue, name, words)):
            seen.taken.add(issue.id)

    async def _follow(self, item: WorkItem, edit: dict[str, str]) -> None:
        if not edit:
            return
        meta = item.metadata
        # With the version that was looked at: an item that starts in this moment is not changed any more.
        patch = {"metadata": {"resourceVersion": meta.resource_version, "uid": meta.uid}, "spec": edit}
        await self._api.merge_patch(cluster.WORKITEMS, meta.namespace, meta.name, patch)
        log.info("issue edited", item=item.key, fields=sorted(edit))

    async def _make(
        self, repository: Repository, project: PlaneProject, issue: Issue, body: cluster.JSONObject
    ) -> bool:
        """Whether the issue has its WorkItem, now or earlier."""
        namespace, name = body["metadata"]["namespace"], body["metadata"]["name"]
        branch = body["spec"]["branch"]
        subject = Subject(name, namespace, issue.title)
        taken = f"taken/{namespace}/{name}"
        there = await self._api.get(cluster.WORKITEMS, namespace, name)
        if there is None:
            if any(_ours(comment, taken) for comment in await project.comments(issue.id)):
                # It was made once, and somebody has deleted it since.
                log.info("issue was taken before", item=f"{namespace}/{name}")
                return True
            try:
                made = await self._api.create(cluster.WORKITEMS, namespace, body)
            except errors.Permanent as error:
                await self._say(repository, project, issue.id, ("IssueRefused", subject), str(error))
                return False
            there = made or await self._api.get(cluster.WORKITEMS, namespace, name) or body
            log.info("issue taken", item=f"{namespace}/{name}", issue=issue.id)
            self._tell.wake(f"{namespace}/{name}")
        if (there["spec"].get("externalRef") or {}).get("id") != issue.id:
            message = f"there is another WorkItem {name} in namespace {namespace} already: rename or delete it"
            await self._say(repository, project, issue.id, ("IssueRefused", subject), message)
            return False
        text, _ = await self._rendered(repository, "comment.Taken", {"branch": branch}, subject)
        await project.comment(issue.id, taken, text)
        return True

    async def _say(
        self, repository: Repository, project: PlaneProject, issue: str, what: tuple[str, Subject], message: str
    ) -> None:
        """Why no WorkItem could be made, once for each reason."""
        event, subject = what
        text, _ = await self._rendered(repository, f"comment.{event}", {"message": message}, subject)
        await project.comment(issue, f"{event}/{subject.namespace}/{subject.name}/{_digest(message)}", text)

    # --- words

    async def _listen(self, repository: Repository, project: PlaneProject, listed: WorkItem) -> None:
        """What was said about one item that waits for people."""
        item = await self._item(listed.metadata.namespace, listed.metadata.name)
        if item is None or item.metadata.uid != listed.metadata.uid or item.status.phase not in inbox.WAITING:
            return
        conversation = await self._conversation(repository, project, item)
        for reply in inbox.replies(conversation):
            if isinstance(reply, inbox.Say):
                made = await self._api.create(cluster.DECISIONS, item.metadata.namespace, reply.manifest)
                if made is not None:
                    log.info("said in the tracker", item=item.key, decision=reply.manifest["metadata"]["name"])
                self._tell.wake(item.key)
                continue
            await self._refuse(repository, project, item, reply)

    async def _refuse(self, repository: Repository, project: PlaneProject, item: WorkItem, reply: inbox.Refuse) -> None:
        plane, issue = _plane(repository), _issue_of(item)
        subject = telling.subject(item, repository)
        words = {**reply.words, "approvers": plane.approvers if plane is not None else ()}
        text, _ = await self._rendered(repository, f"comment.{reply.event}", words, subject)
        await project.comment(issue, inbox.refusal_id(item, reply.what), text)
        log.info("refused in the tracker", item=item.key, why=reply.event, by=reply.words.get("by"))
        back = plane.states.in_review if plane is not None else None
        if reply.move_back and back is not None:
            await project.set_state(issue, back)
            self._seen_of(repository).states.pop(issue, None)

    async def _conversation(self, repository: Repository, project: PlaneProject, item: WorkItem) -> inbox.Conversation:
        plane, issue = _plane(repository), _issue_of(item)
        names = await project.names()
        heard, own = [], []
        for comment in await project.comments(issue):
            if comment.actor == names.me:
                own.append(comment)
                continue
            by = await project.member(comment.actor)
            heard.append(inbox.Heard(comment, by, spoken(comment.html), markdown(comment.html)))
        return inbox.Conversation(
            item=item,
            heard=tuple(heard),
            own=tuple(own),
            approvers=plane.approvers if plane is not None else (),
            moved=await self._moved(repository, project, item, names),
        )

    async def _moved(
        self, repository: Repository, project: PlaneProject, item: WorkItem, names: Project
    ) -> inbox.Moved | None:
        """The move into the Approved state, as the issue's history has it, if the issue is there."""
        plane, issue = _plane(repository), _issue_of(item)
        if plane is None or plane.states.approved is None or item.status.phase is not Phase.IN_REVIEW:
            return None
        approved = await project.state_id(plane.states.approved)
        if self._seen_of(repository).states.get(issue) != approved:
            return None
        moves = await project.state_changes(issue)
        if not moves or moves[-1].state != approved or moves[-1].actor == names.me:
            return None
        return inbox.Moved(moves[-1], await project.member(moves[-1].actor))

    # --- reads

    async def _rendered(
        self, repository: Repository, key: str, words: Mapping[str, object], subject: Subject
    ) -> tuple[str, str | None]:
        own = await self._channels.templates(repository)
        return await messages.rendered(key, words, subject, language=repository.spec.messages.language, own=own)

    async def _repositories(self) -> list[Repository]:
        found = []
        for scope in self._namespaces or (None,):
            async for body in self._api.list(cluster.REPOSITORIES, scope):
                try:
                    repository = Repository.parse(body)
                except ValidationError as error:
                    log.warning("unreadable", repository=body["metadata"]["name"], error=str(error))
                    continue
                if _plane(repository) is not None:
                    found.append(repository)
        return found

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

    async def _item(self, namespace: str, name: str) -> WorkItem | None:
        """The item as it is now; None if it is gone, or nobody can read it."""
        body = await self._api.get(cluster.WORKITEMS, namespace, name)
        try:
            return WorkItem.parse(body) if body is not None else None
        except ValidationError:
            return None

    def _seen_of(self, repository: Repository) -> Seen:
        return self._seen.setdefault((repository.metadata.namespace, repository.metadata.name), Seen())


def _plane(repository: Repository) -> PlaneTracker | None:
    return repository.spec.tracker.plane if repository.spec.tracker is not None else None


def _issue_of(item: WorkItem) -> str:
    return item.spec.external_ref.id if item.spec.external_ref is not None else ""


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def _follows(items: list[WorkItem], issue: str) -> bool:
    return any(_issue_of(item) == issue and item.status.stage == CREATED for item in items)


def _ours(comment: Comment, external_id: str) -> bool:
    return (comment.external_source, comment.external_id) == (SOURCE, external_id)


async def _wanted(wanted: PlaneIntake, project: PlaneProject, names: Project, issue: Issue) -> bool:
    """Whether the issue is in the state and has the label that make it a WorkItem. Raises errors.Permanent."""
    if wanted.state is not None and issue.state != await project.state_id(wanted.state):
        return False
    if wanted.label is None:
        return True
    label = await project.label_id(wanted.label)
    if label is None:
        there = ", ".join(name for _, name in names.labels) or "none"
        message = f"the tracker's project has no label {wanted.label!r}; it has: {there}"
        raise errors.Permanent("LabelNotFound", message)
    return label in issue.labels
