"""Deliveries of Gitea and Forgejo: pushes, pull requests, reviews, comments, commit statuses.

They come once and are never repeated, and a review's delivery does not even name the commit that was reviewed. So a
delivery only says which branch or commit something has happened to.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from workitems.integrations.webhook import BRANCH, HEAD, Delivery, signed

BRANCH_LIMIT = 255
_HEADS = "refs/heads/"
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_PULL_REQUEST = "pull_request"


class GiteaWebhooks:
    """Implements `integrations.webhook.Source`."""

    def verify(self, headers: Mapping[str, str], body: bytes, secret: bytes) -> bool:
        """See Source."""
        signature = headers.get("X-Gitea-Signature") or headers.get("X-Hub-Signature-256", "").removeprefix("sha256=")
        return signed(body, secret, signature)

    def read(self, headers: Mapping[str, str], body: bytes) -> Delivery:
        """See Source."""
        event = headers.get("X-Gitea-Event", "")[:63]
        try:
            payload = json.loads(body)
            about = _about(event, payload)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"a delivery {event!r} that Gitea does not send") from error
        return Delivery(event, frozenset(about))


def _about(event: str, payload: Any) -> list[tuple[str, str]]:
    if event == "push":
        ref = _text(payload["ref"])
        return _branch(ref.removeprefix(_HEADS)) if ref.startswith(_HEADS) else []
    if event == "status":
        sha = _text(payload["sha"])
        if not _COMMIT.fullmatch(sha):
            raise ValueError("no commit")
        return [(HEAD, sha)]
    # pull_request, pull_request_approved, pull_request_rejected, pull_request_comment, and comments of issues.
    if event.startswith(_PULL_REQUEST) or (event == "issue_comment" and payload.get("is_pull")):
        request = payload[_PULL_REQUEST]
        return _branch(_text(request["head"]["ref"]))
    return []


def _branch(name: str) -> list[tuple[str, str]]:
    if not 0 < len(name) <= BRANCH_LIMIT or not name.isprintable():
        raise ValueError("no branch")
    return [(BRANCH, name)]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value
