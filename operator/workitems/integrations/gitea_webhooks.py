"""Webhooks of Gitea and Forgejo: their registration, and the deliveries about pushes, pull requests, reviews, statuses.

Deliveries come once and are never repeated, and a review's does not even name the commit that was reviewed. So a
delivery only says which branch or commit something has happened to.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from workitems.integrations.gitea_api import API, JSON
from workitems.integrations.webhook import BRANCH, HEAD, Delivery, signed

EVENTS = ("push", "pull_request", "pull_request_comment", "pull_request_review", "pull_request_sync", "status")
"""What a webhook is registered for."""
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


async def ensure(api: API, url: str, secret: str, *, renew: bool, former: str = "") -> str:
    """See Forge.ensure_webhook. Gitea neither shows a webhook's secret nor lets it be changed: `renew` replaces it."""
    listed = [hook async for hook in api.pages("/hooks", {})]
    ours = api.read(listed, lambda hooks: [hook for hook in hooks if _address(hook) in {url, former or url}])
    kept = None if renew else next((hook for hook in ours if _address(hook) == url and _is_right(hook)), None)
    if kept is None:
        body = {
            "type": "gitea",
            "active": True,
            "events": list(EVENTS),
            "config": {"url": url, "content_type": "json", "secret": secret},
        }
        kept = api.json(await api.ask("POST", "/hooks", body=body))
    for hook in ours:
        if hook["id"] != kept["id"]:
            answer = await api.ask("DELETE", f"/hooks/{hook['id']}")
            if answer.code != 404:
                api.good(answer)
    return api.read(kept, lambda hook: str(hook["id"]))


def _address(hook: JSON) -> str:
    return str((hook.get("config") or {}).get("url") or "")


def _is_right(hook: JSON) -> bool:
    return (
        bool(hook.get("active")) and hook["config"].get("content_type") == "json" and set(EVENTS) <= set(hook["events"])
    )
