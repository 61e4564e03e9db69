"""What people say in the tracker, as Decisions: who said it, about which request, and why it does not count.

Pure: from an item and the comments of its issue, as the tracker has them now, to what is to be done about them. An
approval is bound to the commit that the request named under which it was said; a comment that was changed after it was
written, one by somebody who may not approve, and the operator's own words count for nothing. Everything here may be
decided again at any time: Decisions have names of the comment they are from, refusals an external id.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from workitems.api import API_VERSION, Effect, Phase, WorkItem
from workitems.core import announce, happenings
from workitems.core.tracker import Comment, Member, StateChange

APPROVED = re.compile(r"(?<![\w:]):approved:(?![\w:])", re.IGNORECASE)
REJECTED = re.compile(r"(?<![\w:]):rejected:(?![\w:])", re.IGNORECASE)
COMMENT_LIMIT = 16000
SETTLED = timedelta(minutes=1)
"""So long nobody must have written before what was said is the answer: people answer in several comments."""
LONGEST = timedelta(minutes=10)
"""After the first comment the answer is taken, whoever goes on writing."""
WAITING = (Phase.IN_REVIEW, Phase.NEEDS_INPUT)
"""Phases in which words in the tracker may decide."""


@dataclass(frozen=True)
class Heard:
    """One comment in words."""

    comment: Comment
    by: Member
    words: str
    """Without quotations and code."""
    markdown: str = ""
    """Only where it may be an answer."""
    unreadable: bool = False


@dataclass(frozen=True)
class Moved:
    """A person moved the issue into the Approved state."""

    change: StateChange
    by: Member


@dataclass(frozen=True)
class Say:
    """Make this Decision, unless it is there."""

    manifest: dict[str, Any]


@dataclass(frozen=True)
class Refuse:
    """Say, once, why something does not count."""

    what: str
    """Id of what was said; part of the answer's external id."""
    event: str
    """Key of the template."""
    words: dict[str, str]
    move_back: bool = False
    """The issue is not where it should be."""
    said: bool = False
    """It is said already, and only the issue is to be moved back: the operator may have died in between."""


@dataclass(frozen=True)
class Later:
    """Look again at that time: somebody may be writing still."""

    at: datetime


Reply = Say | Refuse | Later


@dataclass(frozen=True)
class Request:
    """A request of the operator's, as its comment in the tracker."""

    at: datetime
    gate: str
    commit: str


@dataclass(frozen=True)
class Conversation:
    """An item's issue as it is now."""

    item: WorkItem
    heard: tuple[Heard, ...]
    """Comments by people, oldest first: none of the operator's own."""
    own: tuple[Comment, ...]
    """The operator's."""
    now: datetime
    approvers: tuple[str, ...] = ()
    moved: Moved | None = None
    """The newest move into the Approved state, if the issue is there now."""


def replies(now: Conversation) -> tuple[Reply, ...]:
    """What is to be done about what was said."""
    if now.item.status.phase is Phase.NEEDS_INPUT:
        return _answers(now)
    if now.item.status.phase is not Phase.IN_REVIEW:
        return ()
    requests = requests_of(now.item, now.own)
    if requests is None or not requests:
        return ()
    done = _done(now)
    found: list[Reply] = []
    created = now.item.metadata.creation_timestamp
    for heard in now.heard:
        if refusal_id(now.item, heard.comment.id) in done or decision_name(now.item, heard.comment.id) in done:
            continue
        said = heard.comment.created_at
        # What follows a request of this item is said to it, whatever the tracker's clock says beside the API server's.
        if created is not None and said < created and _about(requests, said) is None:
            continue
        reply = _opinion(now, requests, heard)
        if reply is not None:
            found.append(reply)
    if now.moved is not None:
        change = now.moved.change
        if refusal_id(now.item, change.id) in done:
            found.append(Refuse(change.id, "", {}, move_back=True, said=True))
        elif decision_name(now.item, change.id) not in done:
            found.append(_move(now, requests, now.moved))
    return tuple(found)


def requests_of(item: WorkItem, own: tuple[Comment, ...], event: str = "ApprovalWanted") -> list[Request] | None:
    """The operator's requests that are in the tracker, oldest first; None: one may be there that status lacks yet."""
    announced = _announced(item, event)
    if any(effect.state == "Intended" for effect in announced):
        return None
    found = []
    for effect in announced:
        gate, commit = announce.word(effect.params, "gate"), announce.word(effect.params, "commit")
        found += [Request(comment.created_at, gate, commit) for comment in _told(item, effect, own)]
    return sorted(found, key=lambda request: request.at)


def lost(now: Conversation) -> Effect | None:
    """The newest request, if it is not in the tracker: somebody deleted it, or it was refused for good."""
    event = {Phase.IN_REVIEW: "ApprovalWanted", Phase.NEEDS_INPUT: "QuestionsAsked"}.get(now.item.status.phase)
    newest = _announced(now.item, event)[-1:] if event is not None else ()
    return next((e for e in newest if e.state != "Intended" and not _told(now.item, e, now.own)), None)


def again_id(item: WorkItem, effect: Effect) -> str:
    """External id of a request that is said once more."""
    return announce.comment_id(item, f"{effect.id}/again")


def _announced(item: WorkItem, event: str) -> list[Effect]:
    effects = item.status.effects
    return [effect for effect in effects if effect.kind == announce.COMMENT and effect.params.get("event") == event]


def _told(item: WorkItem, effect: Effect, own: tuple[Comment, ...]) -> list[Comment]:
    """An effect's comments in the tracker; all are the operator's own."""
    again = again_id(item, effect)
    return [comment for comment in own if comment.id == effect.ref or comment.said_as == again]


def decision_name(item: WorkItem, said: str) -> str:
    """The name of the Decision of one comment or move: there can be only one."""
    digest = hashlib.sha256(f"{item.metadata.uid}/{said}".encode()).hexdigest()[:10]
    return f"{item.metadata.name[:40].rstrip('-')}-plane-{digest}"


def refusal_id(item: WorkItem, said: str) -> str:
    """External id of the comment that says why something does not count."""
    return f"{item.metadata.uid}/refused/{said}"


def may_approve(member: Member, approvers: tuple[str, ...]) -> bool:
    """Whether a person is among the approvers, by id or e-mail address; an empty list has nobody."""
    names = {approver.casefold() for approver in approvers if approver}
    return member.id.casefold() in names or (bool(member.email) and member.email.casefold() in names)


def _done(now: Conversation) -> set[str]:
    """What was answered already: external ids of refusals, names of Decisions."""
    said = {comment.said_as for comment in now.own if comment.external_id}
    return said | {record.name for record in now.item.status.decisions}


def _opinion(now: Conversation, requests: list[Request], heard: Heard) -> Reply | None:
    comment, by = heard.comment, heard.by
    if heard.unreadable:
        return Refuse(comment.id, "Unreadable", {"by": by.called}) if may_approve(by, now.approvers) else None
    approved, rejected = APPROVED.search(heard.words), REJECTED.search(heard.words)
    if approved is None and rejected is None:
        return None
    words = {"by": by.called, "action": "approval" if approved else "rejection"}
    request = _about(requests, comment.created_at)
    if not may_approve(by, now.approvers):
        return Refuse(comment.id, "Stranger", words) if request is not None else None
    if comment.touched is not None:
        return Refuse(comment.id, "Edited", {**words, "editor": comment.touched})
    if approved is not None and rejected is not None:
        return Refuse(comment.id, "Ambiguous", words)
    reason = REJECTED.sub("", APPROVED.sub("", heard.words)).strip()
    if rejected is not None and not reason:
        return Refuse(comment.id, "ReasonMissing", words)
    if request is None or (rejected is not None and request != requests[-1]):
        return Refuse(comment.id, "OlderRequest", words)
    if rejected is not None:
        return Say(
            _decision(now.item, comment.id, by, {"reject": {"gate": request.gate, "commit": request.commit}}, reason)
        )
    return Say(_decision(now.item, comment.id, by, _approve(request), reason))


def _move(now: Conversation, requests: list[Request], moved: Moved) -> Reply:
    words = {"by": moved.by.called, "action": "approval"}
    if not may_approve(moved.by, now.approvers):
        return Refuse(moved.change.id, "Stranger", words, move_back=True)
    request = _about(requests, moved.change.at)
    if request is None or request != requests[-1]:
        return Refuse(moved.change.id, "OlderRequest", words, move_back=True)
    return Say(
        _decision(now.item, moved.change.id, moved.by, _approve(request), "moved the issue to the approved state")
    )


def _about(requests: list[Request], at: datetime) -> Request | None:
    """The request that was the newest when something was said."""
    return next((request for request in reversed(requests) if request.at <= at), None)


def _approve(request: Request) -> dict[str, Any]:
    return {"approve": {"gate": request.gate, "commit": request.commit}}


def _answers(now: Conversation) -> tuple[Reply, ...]:
    """All that people wrote since the newest questions, as one Answer, once nobody goes on writing."""
    asked = requests_of(now.item, now.own, "QuestionsAsked")
    if not asked:
        return ()
    done, said, found = _done(now), list[Heard](), list[Reply]()
    for heard in now.heard:
        comment = heard.comment
        if comment.created_at < asked[-1].at or not (heard.markdown.strip() or heard.unreadable):
            continue
        if heard.unreadable or comment.touched == "somebody else":
            if refusal_id(now.item, comment.id) not in done:
                words = {"by": heard.by.called, "action": "answer", "editor": "somebody else"}
                found.append(Refuse(comment.id, "Unreadable" if heard.unreadable else "Edited", words))
            continue
        said.append(heard)
    if not said:
        return tuple(found)
    # By the tracker's own dates: another one is the author's to choose.
    written = [heard.comment.updated_at or heard.comment.created_at for heard in said]
    ends = min(max(written) + SETTLED, min(written) + LONGEST)
    if now.now < ends:
        return (*found, Later(ends))
    first = said[0]
    several = len({heard.by.id for heard in said}) > 1
    text = "\n\n".join(f"{h.by.called}: {h.markdown.strip()}" if several else h.markdown.strip() for h in said)
    return (*found, Say(_decision(now.item, first.comment.id, first.by, {"answer": {}}, text)))


def _decision(item: WorkItem, said: str, by: Member, action: dict[str, Any], words: str) -> dict[str, Any]:
    return {
        "apiVersion": API_VERSION,
        "kind": "Decision",
        "metadata": {"name": decision_name(item, said), "namespace": item.metadata.namespace},
        "spec": {
            "workItem": item.metadata.name,
            "by": f"{happenings.BRIDGE}{by.called}"[:253],
            **action,
            "comment": words[:COMMENT_LIMIT],
        },
    }
