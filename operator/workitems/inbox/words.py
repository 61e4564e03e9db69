"""What people say about one item that waits for them, as Decisions, or as comments that say why it does not count."""

from __future__ import annotations

import structlog
from pydantic import ValidationError

from workitems import cluster, errors, messages, telling
from workitems.api import Phase, WorkItem
from workitems.channels import Channels
from workitems.core import events, inbox
from workitems.core.tracker import Comment, Project
from workitems.inbox.visit import Tell, Visit, issue_of
from workitems.integrations.html_text import markdown, spoken

log = structlog.stdlib.get_logger(__name__)


class Words:
    """Listens to one issue."""

    def __init__(self, api: cluster.Cluster, channels: Channels, tell: Tell) -> None:
        """Take the API server, the channels, and whom to tell."""
        self._api = api
        self._channels = channels
        self._texts = telling.Telling(channels)
        self._tell = tell

    async def listen(self, visit: Visit, listed: WorkItem) -> None:
        """What was said about one item. Raises errors.Transient, errors.Permanent."""
        item = await self._item(listed.metadata.namespace, listed.metadata.name)
        if item is None or item.metadata.uid != listed.metadata.uid or item.status.phase not in inbox.WAITING:
            return
        conversation = await self._conversation(visit, item)
        request = inbox.lost(conversation)
        if request is not None:
            text = await self._texts.text("comment", item, visit.repository, request.params)
            await visit.project.comment(issue_of(item), inbox.again_id(item, request), text)
            log.info("asked again in the tracker", item=item.key, effect=request.id)
            return
        for reply in inbox.replies(conversation):
            if isinstance(reply, inbox.Say):
                made = await self._api.create(cluster.DECISIONS, item.metadata.namespace, reply.manifest)
                if made is not None:
                    log.info("said in the tracker", item=item.key, decision=reply.manifest["metadata"]["name"])
                self._tell.wake(item.key)
            elif isinstance(reply, inbox.Later):
                visit.again(issue_of(item), max((reply.at - conversation.now).total_seconds(), 1.0))
            else:
                await self._refuse(visit, item, reply)

    async def _refuse(self, visit: Visit, item: WorkItem, reply: inbox.Refuse) -> None:
        issue, back = issue_of(item), visit.plane.states.in_review
        if not reply.said:
            subject = telling.subject(item, visit.repository)
            words = {**reply.words, "approvers": visit.plane.approvers}
            own = await self._channels.templates(visit.repository)
            language = visit.repository.spec.messages.language
            text, _ = await messages.rendered(f"comment.{reply.event}", words, subject, language=language, own=own)
            await visit.project.comment(issue, inbox.refusal_id(item, reply.what), text)
            log.info("refused in the tracker", item=item.key, why=reply.event, by=reply.words.get("by"))
        if reply.move_back and back is not None:
            await visit.project.set_state(issue, back)
            visit.seen.states.pop(issue, None)

    async def _conversation(self, visit: Visit, item: WorkItem) -> inbox.Conversation:
        names = await visit.project.names()
        heard, own = [], []
        for comment in await visit.project.comments(issue_of(item)):
            if comment.actor == names.me:
                own.append(comment)
            else:
                heard.append(await self._heard(visit, item, comment))
        return inbox.Conversation(
            item=item,
            heard=tuple(heard),
            own=tuple(own),
            now=self._tell.now(),
            approvers=visit.plane.approvers,
            moved=await self._moved(visit, item, names),
        )

    async def _heard(self, visit: Visit, item: WorkItem, comment: Comment) -> inbox.Heard:
        by = await visit.project.member(comment.actor)
        answers = item.status.phase is Phase.NEEDS_INPUT
        try:
            return inbox.Heard(comment, by, spoken(comment.html), markdown(comment.html) if answers else "")
        except errors.Permanent as error:
            # One comment that nobody can read: it is answered, and the others are heard.
            log.warning("unreadable", item=item.key, comment=comment.id, error=str(error))
            return inbox.Heard(comment, by, "", unreadable=True)

    async def _moved(self, visit: Visit, item: WorkItem, names: Project) -> inbox.Moved | None:
        """The move into the Approved state, as the issue's history has it, if the issue is there."""
        issue, wanted = issue_of(item), visit.plane.states.approved
        if wanted is None or item.status.phase is not Phase.IN_REVIEW:
            return None
        try:
            approved = await visit.project.state_id(wanted)
        except errors.Permanent as error:
            # No reason not to hear what was said in words.
            self._tell.event(events.tracker_failed(visit.repository, error.reason, str(error), self._tell.now()))
            return None
        if visit.seen.states.get(issue) != approved:
            return None
        moves = await visit.project.state_changes(issue)
        if not moves or moves[-1].state != approved or moves[-1].actor == names.me:
            return None
        return inbox.Moved(moves[-1], await visit.project.member(moves[-1].actor))

    async def _item(self, namespace: str, name: str) -> WorkItem | None:
        """The item as it is now; None if it is gone, or nobody can read it."""
        body = await self._api.get(cluster.WORKITEMS, namespace, name)
        try:
            return WorkItem.parse(body) if body is not None else None
        except ValidationError:
            return None
