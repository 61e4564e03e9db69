"""Gitea's JSON as our values: pure, and strict about what decisions depend on.

Gitea validates less than one would hope: a commit status may say anything, a pull request whose branch was deleted has
another ref, a review may be pending, dismissed, or by nobody.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Literal

from workitems.core.forge import Check, Commit, PullRequest, Review

JSON = dict[str, Any]

_STATES: dict[str, Literal["success", "failure", "pending"]] = {
    "success": "success",
    "skipped": "success",
    "failure": "failure",
    "error": "failure",
    "warning": "failure",
    "pending": "pending",
}
_REVIEWS: dict[str, Literal["approved", "changes_requested"]] = {
    "APPROVED": "approved",
    "REQUEST_CHANGES": "changes_requested",
}
TEXT_LIMIT = 255
BODY_LIMIT = 16384


def pull_request(pull: JSON) -> PullRequest:
    """One pull request."""
    merged = bool(pull["merged"])
    return PullRequest(
        number=int(pull["number"]),
        url=str(pull["html_url"]),
        state="merged" if merged else _open_or_closed(pull["state"]),
        head=str(pull["head"]["sha"]),
        base=str(pull["base"]["ref"]),
        merge_commit=(pull.get("merge_commit_sha") or None) if merged else None,
        # False means "conflict", "still checking" and "could not check" alike.
        mergeable=True if pull.get("mergeable") else None,
    )


def _open_or_closed(state: str) -> Literal["open", "closed"]:
    return "open" if state == "open" else "closed"


def is_of(pull: JSON, branch: str, base: str) -> bool:
    """Whether it is of this branch of this very repository: forks may have a branch of the same name."""
    head, into = pull["head"], pull["base"]
    # Once the branch is deleted, `ref` is refs/pull/N/head, and only the label still names it.
    names = (head.get("label"), head["ref"])
    return branch in names and int(head["repo_id"]) == int(into["repo_id"]) and into["ref"] == base


def newest_checks(statuses: Iterable[JSON]) -> tuple[Check, ...]:
    """Each context once, with its newest status, by name."""
    newest: dict[str, JSON] = {}
    for status in statuses:
        known = newest.get(status["context"])
        if known is None or int(status["id"]) > int(known["id"]):
            newest[status["context"]] = status
    return tuple(_check(newest[context]) for context in sorted(newest))


def _check(status: JSON) -> Check:
    said = str(status.get("status") or "pending")
    state = _STATES.get(said)
    description = str(status.get("description") or "")
    if state is None:
        # Neither a success nor a verdict about the code: it waits, and the timeout's message shows the word.
        description = f"unknown state {said[:40]!r}: {description}"
    return Check(
        context=str(status["context"])[:TEXT_LIMIT],
        state=state or "pending",
        url=str(status.get("target_url") or "")[:2048],
        description=" ".join(description.split())[:TEXT_LIMIT],
    )


def commit(entry: JSON) -> Commit:
    """One commit of a listing."""
    inner = entry["commit"]
    return Commit(
        id=str(entry["sha"]),
        subject=next(iter(str(inner["message"]).splitlines()), "")[:TEXT_LIMIT],
        author=str((inner.get("author") or {}).get("name") or "")[:TEXT_LIMIT],
        files=tuple(str(file["filename"]) for file in entry.get("files") or ()),
    )


def text(entry: Any) -> str | None:
    """A file's text; None for a folder (a list), a symlink, a submodule, a file too large to be sent, or no UTF-8."""
    if not isinstance(entry, dict) or entry["type"] != "file" or entry.get("encoding") != "base64":
        return None
    try:
        return base64.b64decode(entry["content"]).decode()
    except UnicodeDecodeError:
        return None


def newest_reviews(reviews: Iterable[JSON]) -> tuple[Review, ...]:
    """The newest verdict of every person, unless it was dismissed; comments and requests for a review are none."""
    newest: dict[str, JSON] = {}
    for review in sorted(reviews, key=lambda r: int(r["id"])):
        if review["state"] in _REVIEWS and (review.get("user") or {}).get("login"):
            newest[review["user"]["login"]] = review
    return tuple(_review(review) for review in newest.values() if not review.get("dismissed"))


def _review(review: JSON) -> Review:
    return Review(
        id=int(review["id"]),
        user=str(review["user"]["login"]),
        state=_REVIEWS[review["state"]],
        commit=str(review.get("commit_id") or ""),
        body=str(review.get("body") or "")[:BODY_LIMIT],
        submitted_at=datetime.fromisoformat(review["submitted_at"]),
    )
