"""Deliveries of Plane: issues and comments, one for each changed field, repeated only where nobody answered.

A repeated delivery has a new id, an actor in a payload may be anybody's word, and after five deliveries that found no
connection Plane sends none any more. So a delivery only says which issue to look at.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from workitems.integrations.webhook import Delivery, signed

ISSUE = "issue"
"""What a delivery is about: the id of an issue in the tracker, by which no WorkItem can be selected."""
_ISSUES = frozenset({"issue", "work_item"})
_COMMENTS = frozenset({"issue_comment", "work_item_comment"})


class PlaneWebhooks:
    """Implements `integrations.webhook.Source`."""

    def verify(self, headers: Mapping[str, str], body: bytes, secret: bytes) -> bool:
        """See Source."""
        return signed(body, secret, headers.get("X-Plane-Signature", ""))

    def read(self, headers: Mapping[str, str], body: bytes) -> Delivery:
        """See Source."""
        event = headers.get("X-Plane-Event", "")[:63]
        try:
            issue = _issue(event, json.loads(body))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"a delivery {event!r} that Plane does not send") from error
        return Delivery(event, frozenset({(ISSUE, issue)}) if issue else frozenset())


def _issue(event: str, payload: Any) -> str | None:
    if event in _ISSUES:
        return str(UUID(payload["data"]["id"]))
    if event in _COMMENTS:
        return str(UUID(payload["data"]["issue"]))
    # Projects, cycles, modules.
    return None
