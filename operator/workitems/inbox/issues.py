"""How issues become WorkItems, once, and how those that have not started follow them.

What is wanted is put into a queue, and a look takes only a few from it: a project with hundreds of issues must neither
use up the key nor keep what people say waiting. What could not be taken goes back to the queue's end, because what is
wrong may be mended where no change of the issue shows it: in the cluster, or in the Repository.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from typing import Any

import structlog

from workitems import cluster, errors, messages
from workitems.api import WorkItem
from workitems.channels import Channels
from workitems.core import intake
from workitems.core.stages import CREATED
from workitems.core.tracker import Issue, Project
from workitems.inbox.visit import Tell, Visit, issue_of
from workitems.integrations.html_text import markdown
from workitems.integrations.plane import SOURCE
from workitems.messages import Subject

log = structlog.stdlib.get_logger(__name__)

TAKES_A_LOOK = 8
"""Each costs three requests."""


@dataclass(frozen=True)
class Wanted:
    """What an issue must have, as the project's ids; None: nothing of the kind."""

    state: str | None
    label: str | None

    def has(self, issue: Issue) -> bool:
        """Whether the issue is to become a WorkItem."""
        return self.state in (None, issue.state) and (self.label is None or self.label in issue.labels)


class Issues:
    """Takes the issues of one project."""

    def __init__(self, api: cluster.Cluster, channels: Channels, tell: Tell) -> None:
        """Take the API server, the channels, and whom to tell."""
        self._api = api
        self._channels = channels
        self._tell = tell
        self._saying = asyncio.Lock()
        """The tracker looks for a comment before it stores another: two at once would both be stored."""

    async def note(self, visit: Visit, changed: list[Issue], items: list[WorkItem]) -> None:
        """Put what is to be taken into the queue. Raises errors.Transient, errors.Permanent."""
        wanted, names, seen = await _wanted(visit), await visit.project.names(), visit.seen
        for issue in changed:
            name = intake.name_of(names.identifier, issue.sequence)
            if _follower(items, issue, name) is None:
                if issue.id in seen.taken:
                    continue
                if not wanted.has(issue):
                    seen.queue.pop(issue.id, None)
                    continue
                there = await self._api.get(cluster.WORKITEMS, visit.repository.metadata.namespace, name)
                if there is not None and _is(there, issue):
                    # No request for what an earlier process has taken.
                    seen.taken.add(issue.id)
                    continue
            seen.queue.setdefault(issue.id, "")

    async def take(self, visit: Visit, items: list[WorkItem]) -> None:
        """A few of the queue."""
        for issue_id in list(visit.seen.queue)[:TAKES_A_LOOK]:
            await self._tell.carefully(visit.repository, self._take_next(visit, issue_id, items))

    async def take_one(self, visit: Visit, issue: Issue, items: list[WorkItem]) -> None:
        """This issue, as a webhook named it."""
        visit.seen.queue.setdefault(issue.id, "")
        await self._tell.carefully(visit.repository, self._take(visit, issue, items))

    async def say_taken(self, visit: Visit) -> None:
        """Catch up on issues that do not say yet which WorkItem they have become.

        The operator that took them was stopped, or the tracker was. Meanwhile the item goes its way, and moves the
        issue out of the state by which it was wanted: the item is looked for, not the issue.
        """
        meta = visit.repository.metadata
        untold = self._api.list(
            cluster.WORKITEMS,
            meta.namespace,
            field_selector=f"spec.repository={meta.name}",
            label_selector=intake.UNTOLD,
        )
        async for there in untold:
            await self._tell.carefully(visit.repository, self._say_taken(visit, there))

    # --- one issue

    async def _take_next(self, visit: Visit, issue_id: str, items: list[WorkItem]) -> None:
        queue = visit.seen.queue
        # To the end first, whatever becomes of it: the others are to have their turn.
        queue[issue_id] = queue.pop(issue_id)
        # A list leaves the description out.
        issue = await visit.project.issue(issue_id)
        if issue is None:
            queue.pop(issue_id, None)
        else:
            await self._take(visit, issue, items)

    async def _take(self, visit: Visit, issue: Issue, items: list[WorkItem]) -> None:
        """Make a WorkItem of an issue that is wanted, or bring one that has not started up to date with it."""
        names, seen = await visit.project.names(), visit.seen
        name = intake.name_of(names.identifier, issue.sequence)
        follower = _follower(items, issue, name)
        if follower is not None:
            await self._follow(issue, follower)
        elif issue.id not in seen.taken and (await _wanted(visit)).has(issue):
            if not await self._make(visit, issue, names):
                return
            seen.taken.add(issue.id)
        seen.queue.pop(issue.id, None)

    async def _follow(self, issue: Issue, item: WorkItem) -> None:
        edit = intake.edit(item, _words(issue, item.metadata.name))
        if not edit:
            return
        meta = item.metadata
        # With the version that was looked at: an item that starts in this moment is not changed any more.
        patch = {"metadata": {"resourceVersion": meta.resource_version, "uid": meta.uid}, "spec": edit}
        await self._api.merge_patch(cluster.WORKITEMS, meta.namespace, meta.name, patch)
        log.info("issue edited", item=item.key, fields=sorted(edit))

    async def _make(self, visit: Visit, issue: Issue, names: Project) -> bool:
        """Whether the issue has its WorkItem, now or earlier."""
        namespace, name = visit.repository.metadata.namespace, intake.name_of(names.identifier, issue.sequence)
        there = await self._api.get(cluster.WORKITEMS, namespace, name)
        if there is None:
            said = _taken(namespace, name)
            if any(comment.says(SOURCE, said, names.me) for comment in await visit.project.comments(issue.id)):
                # It was made once, and somebody has deleted it since.
                log.info("issue was taken before", item=f"{namespace}/{name}")
                return True
            try:
                body = intake.manifest(visit.repository, visit.plane, issue, name, _words(issue, name))
                made = await self._api.create(cluster.WORKITEMS, namespace, body)
            except errors.Permanent as error:
                await self._refuse(visit, issue, name, str(error))
                return False
            if made is not None:
                there = {**body, "metadata": made["metadata"]}
            else:
                there = await self._api.get(cluster.WORKITEMS, namespace, name) or body
            log.info("issue taken", item=f"{namespace}/{name}", issue=issue.id)
            self._tell.wake(f"{namespace}/{name}")
        if not _is(there, issue):
            message = f"there is another WorkItem {name} in namespace {namespace} already: rename or delete it"
            await self._refuse(visit, issue, name, message)
            return False
        await self._say_taken(visit, there)
        return True

    async def _say_taken(self, visit: Visit, there: cluster.JSONObject) -> None:
        """Once, and the WorkItem remembers it: no request is needed to know it later."""
        async with self._saying:
            await self._say_taken_in_turn(visit, there)

    async def _say_taken_in_turn(self, visit: Visit, there: cluster.JSONObject) -> None:
        namespace, name, spec = there["metadata"]["namespace"], there["metadata"]["name"], there["spec"]
        issue = spec.get("externalRef")
        if issue is None or not _untold(there):
            return
        subject = Subject(name, namespace, spec["title"])
        text = await self._rendered(visit, "comment.Taken", {"branch": spec.get("branch", "")}, subject)
        await visit.project.comment(issue["id"], _taken(namespace, name), text)
        patch = {"metadata": {"uid": there["metadata"].get("uid"), "labels": {intake.TOLD_LABEL: "true"}}}
        await self._api.merge_patch(cluster.WORKITEMS, namespace, name, patch)

    async def _refuse(self, visit: Visit, issue: Issue, name: str, message: str) -> None:
        """Say why no WorkItem could be made, once for each reason."""
        namespace = visit.repository.metadata.namespace
        digest = hashlib.sha256(message.encode()).hexdigest()[:10]
        external_id = f"IssueRefused/{namespace}/{name}/{digest}"
        if visit.seen.queue.get(issue.id) == external_id:
            return
        subject = Subject(name, namespace, issue.title)
        text = await self._rendered(visit, "comment.IssueRefused", {"message": message}, subject)
        await visit.project.comment(issue.id, external_id, text)
        visit.seen.queue[issue.id] = external_id

    async def _rendered(self, visit: Visit, key: str, words: dict[str, Any], subject: Subject) -> str:
        own = await self._channels.templates(visit.repository)
        language = visit.repository.spec.messages.language
        return (await messages.rendered(key, words, subject, language=language, own=own))[0]


def _words(issue: Issue, name: str) -> dict[str, str]:
    try:
        return intake.words_of(issue, markdown(issue.description), name)
    except errors.Permanent as error:
        raise errors.Permanent(error.reason, f"the description of issue {name}: {error}") from error


def _taken(namespace: str, name: str) -> str:
    return f"taken/{namespace}/{name}"


def _follower(items: list[WorkItem], issue: Issue, name: str) -> WorkItem | None:
    """The issue's WorkItem, if it has not started."""
    return next(
        (
            item
            for item in items
            if issue_of(item) == issue.id and item.metadata.name == name and item.status.stage == CREATED
        ),
        None,
    )


def _is(there: cluster.JSONObject, issue: Issue) -> bool:
    return bool((there["spec"].get("externalRef") or {}).get("id") == issue.id)


def _untold(there: cluster.JSONObject) -> bool:
    """Whether it was made of an issue that does not say so yet; what people made says what they want it to."""
    labels = there["metadata"].get("labels") or {}
    return labels.get(intake.TRACKER_LABEL) == intake.PLANE and intake.TOLD_LABEL not in labels


async def _wanted(visit: Visit) -> Wanted:
    """Raises errors.Permanent StateNotFound, LabelNotFound, which list what there is."""
    chosen, project = visit.plane.work_items, visit.project
    if chosen is None:
        raise AssertionError("only a Repository that takes issues comes here")
    state = await project.state_id(chosen.state) if chosen.state is not None else None
    label = await project.label_id(chosen.label) if chosen.label is not None else None
    if chosen.label is not None and label is None:
        there = ", ".join(name for _, name in (await project.names()).labels) or "none"
        message = f"the tracker's project has no label {chosen.label!r}; it has: {there}"
        raise errors.Permanent("LabelNotFound", message)
    return Wanted(state, label)
