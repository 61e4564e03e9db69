"""Carrying out what items have announced for people: states and comments in the tracker, messages in chats.

An effect names the event and its words; the text is made here, in the Repository's language and with its templates as
they are now. A comment is found again by its external id, a state is the same however often it is set; a message that
may have been sent is not sent again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import structlog

from workitems import errors, messages
from workitems.api import Effect, Repository, WorkItem
from workitems.core import announce, effects
from workitems.integrations.notifier import Notifier
from workitems.integrations.tracker import Tracker
from workitems.messages import Own, Subject
from workitems.outbox import Carrier, Result

log = structlog.stdlib.get_logger(__name__)

WITH_DOCUMENTS = ("QuestionsAsked", "Conflict")
"""Events that quote a document."""
COMMENT_CHARACTERS = 50_000
MESSAGE_CHARACTERS = 3000
"""Of a document that is quoted."""


class Channels(Protocol):
    """What is needed of `channels.Channels`. All methods raise errors.Transient and errors.Permanent."""

    async def repository(self, namespace: str, name: str) -> Repository:
        """A Repository as it is now."""

    async def tracker(self, repository: Repository) -> Tracker:
        """Its tracker's project."""

    async def notifier(self, repository: Repository, index: int) -> Notifier:
        """One of its notifiers."""

    async def templates(self, repository: Repository) -> Own | None:
        """A team's own templates."""

    async def document(self, repository: Repository, commit: str, path: str) -> str | None:
        """A file at a commit; None without a forge, or if it is not there."""


class Telling:
    """What `outbox` calls for the kinds of effects that tell people something."""

    def __init__(
        self, channels: Channels, rendered: Callable[..., Awaitable[tuple[str, str | None]]] = messages.rendered
    ) -> None:
        """Take how to reach people, and who makes texts."""
        self._channels = channels
        self._rendered = rendered

    def carriers(self) -> Mapping[str, Carrier]:
        """By kind of effect."""
        return {announce.STATE: self.state, announce.COMMENT: self.comment, effects.NOTIFY: self.notify}

    async def state(self, item: WorkItem, effect: Effect) -> Result | None:
        """Move the item's issue; a state that is not named any more is not told."""
        repository = await self._repository(item)
        plane = repository.spec.plane
        name = announce.state_named(effect.params["state"], plane.states) if plane is not None else None
        issue = item.spec.external_ref
        if name is None or issue is None:
            return Result()
        tracker = await self._channels.tracker(repository)
        await tracker.set_state(issue.id, name)
        return Result(ref=name)

    async def comment(self, item: WorkItem, effect: Effect) -> Result | None:
        """Comment on the item's issue, once."""
        repository, issue = await self._repository(item), item.spec.external_ref
        if issue is None or repository.spec.tracker is None:
            return Result("Failed", reason="NoIssue", error="the item has no issue in a tracker any more")
        text = await self.text("comment", item, repository, effect.params)
        tracker = await self._channels.tracker(repository)
        return Result(ref=await tracker.comment(issue.id, announce.comment_id(item, effect.id), text))

    async def notify(self, item: WorkItem, effect: Effect) -> Result | None:
        """Send a message, at most once."""
        repository = await self._repository(item)
        index = announce.notifier_for(effect, repository.spec.notify)
        if index is None:
            to = effect.params.get(announce.CHANNEL)
            error = f"Repository {item.spec.repository} names no notifier {to} any more: the message is not sent"
            return Result("Failed", reason="NotifierGone", error=error)
        # Whatever may fail without anything being sent comes first.
        notifier = await self._channels.notifier(repository, index)
        text = await self.text("message", item, repository, effect.params)
        try:
            return Result(ref=await notifier.send(text) or None)
        except errors.Unanswered as error:
            why = f"{error}: it may have been sent, and a second message would be worse"
            return Result("Failed", reason="MaybeSent", error=why)
        except errors.Permanent as error:
            if error.reason in ("PartlySent", "NotSent", "MessageRefused"):
                return Result("Failed", reason=error.reason, error=str(error))
            raise

    async def text(self, kind: str, item: WorkItem, repository: Repository, params: dict[str, str]) -> str:
        """What a person reads of an event. Raises errors.Transient, errors.Permanent."""
        event, words = params["event"], dict[str, Any](announce.words(params))
        words["documents"] = tuple(words.get("documents", "").split("\n")) if words.get("documents") else ()
        plane = repository.spec.plane
        if plane is not None:
            words |= {"approvers": plane.approvers, "approved_state": plane.states.approved or ""}
        if event in WITH_DOCUMENTS and words.get("file"):
            words |= await self._quoted(repository, words, COMMENT_CHARACTERS if kind == "comment" else None)
        own = await self._channels.templates(repository)
        language = repository.spec.messages.language
        about = subject(item, repository)
        text, problem = await self._rendered(f"{kind}.{event}", words, about, language=language, own=own)
        if problem is not None and own is not None:
            log.warning("template", item=item.key, template=f"{kind}.{event}", configmap=own.source, error=problem)
        return text

    async def _quoted(self, repository: Repository, words: dict[str, Any], most: int | None) -> dict[str, str]:
        """The document's text: all of it from the forge, else what the run's report has of it."""
        excerpt = str(words.get("excerpt", ""))
        try:
            found = await self._channels.document(repository, words.get("commit", ""), words["file"])
        except errors.Permanent as error:
            # A forge that cannot be used is the item's own matter; here the report's excerpt has to do.
            log.warning("document", file=words["file"], reason=error.reason, error=str(error))
            found = None
        text = found if found is not None else excerpt
        cut = found is None and bool(words.get("cut"))
        limit = most or MESSAGE_CHARACTERS
        return {"text": text[:limit], "cut": "yes" if cut or len(text) > limit else ""}

    async def _repository(self, item: WorkItem) -> Repository:
        return await self._channels.repository(item.metadata.namespace, item.spec.repository)


def subject(item: WorkItem, repository: Repository) -> Subject:
    """What texts about an item need to know of it."""
    forge = repository.spec.forge.chosen if repository.spec.forge is not None else None
    web = forge.web_url if forge is not None else None
    issue = item.spec.external_ref
    return Subject(
        name=item.metadata.name,
        namespace=item.metadata.namespace,
        title=item.spec.title,
        url=issue.url if issue is not None else None,
        files_url=f"{web}/src/commit" if web is not None else None,
        commits_url=f"{web}/commit" if web is not None else None,
    )
