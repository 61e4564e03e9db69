"""Telling people of a WorkItem or a Decision that this operator cannot read, where they look: at the object itself.

The CRD refuses such objects. They come from before a change of it, from another version of it, or from somebody who
writes status. Nothing is decided about them; an item gets an Event and the conditions that say so, and goes on by
itself once it can be read. That is one write, and one try where the API server refuses it, however often the item is
looked at. A Decision gets an Event alone and stays unanswered, because a newer operator may understand it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

import structlog
from pydantic import ValidationError

from workitems import cluster, errors, plain
from workitems.api import API_VERSION, Condition, ObjectMeta
from workitems.core import conditions, events
from workitems.core.facts import Misread

log = structlog.get_logger(__name__)

REASON = "WorkItemUnreadable"
FIELDS_TOLD = 3
"""In a message of ours: with what to do it has to fit into an Event."""
FIELD_LIMIT = 150
"""Characters of each field's name and problem: some names are keys that anybody may have chosen."""


class ItemUnreadableError(errors.Invalid):
    """A WorkItem that cannot be read, as the API server has it in `body`."""

    def __init__(self, body: cluster.JSONObject, error: ValidationError) -> None:
        """Take the object and what is wrong with it."""
        super().__init__(REASON, _item_message(body, error))
        self.body = body


class Unreadable:
    """Writes to what nobody can read."""

    def __init__(
        self, api: cluster.Cluster, event: Callable[[dict[str, Any]], None], clock: Callable[[], datetime]
    ) -> None:
        """Take the connection, who sends Events, and the clock."""
        self._api = api
        self._event = event
        self._clock = clock
        self._tried: dict[str, str] = {}  # key -> resourceVersion of an item about which nothing more is to be said

    async def item(self, key: str, error: ItemUnreadableError) -> None:
        """Tell of an item, unless it has been told of. Raises errors.Transient."""
        body, version = error.body, error.body["metadata"]["resourceVersion"]
        status = _told(body, str(error), self._clock())
        if status == body.get("status") or self._tried.get(key) == version:
            return
        self._event(events.unreadable("WorkItem", meta(body), str(error), self._clock()))
        if status is None:
            self._tried[key] = version
            return
        # A list's items carry neither, and this may be one.
        whole = {**body, "apiVersion": API_VERSION, "kind": "WorkItem", "status": status}
        try:
            answer = await self._api.replace_status(cluster.WORKITEMS, whole)
        except errors.Permanent as refusal:
            # The API server does not take the rest of it either: what there is, is the Event.
            self._tried[key] = version
            log.warning("not told", item=key, reason=refusal.reason, error=str(refusal))
        else:
            # Whatever the API server has made of it: it is not written twice.
            self._tried[key] = answer["metadata"]["resourceVersion"]

    def decisions(self, misread: Iterable[Misread]) -> None:
        """Tell of Decisions; the same trouble always has the same Event."""
        for decision in misread:
            self._event(events.unreadable("Decision", decision.metadata, decision.message, self._clock()))

    def forget(self, key: str) -> None:
        """The item can be read, or is gone."""
        self._tried.pop(key, None)


def meta(body: cluster.JSONObject) -> ObjectMeta:
    """What identifies an object, and nothing of it that somebody has written."""
    known = body["metadata"]
    return ObjectMeta(
        name=known["name"], namespace=known["namespace"], uid=known["uid"], generation=known.get("generation", 0)
    )


def fields(error: ValidationError, most: int = FIELDS_TOLD) -> str:
    """Which fields are wrong and how, without their values; not more than `most` of them."""
    told = (f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_input=False)[:most])
    return "; ".join(plain.readable(text, FIELD_LIMIT) for text in told)


def decision_message(body: cluster.JSONObject, error: ValidationError) -> str:
    """What is wrong with a Decision, and what to do."""
    known = body["metadata"]
    return (
        f"Decision {known['namespace']}/{known['name']} cannot be read, so it is not carried out: {fields(error)}; "
        "create another one, or upgrade the operator if this is for a newer version"
    )


def _item_message(body: cluster.JSONObject, error: ValidationError) -> str:
    known = body["metadata"]
    in_status = any(entry["loc"][:1] == ("status",) for entry in error.errors(include_input=False))
    edit = f"kubectl -n {known['namespace']} edit workitem {known['name']}"
    return (
        f"WorkItem {known['namespace']}/{known['name']} cannot be read: {fields(error)}; correct that "
        f"({edit}{' --subresource=status' if in_status else ''}), or upgrade the operator if a newer version wrote "
        "it, or delete the item and create it anew; until then nothing is done for it, then it goes on by itself"
    )


def _told(body: cluster.JSONObject, message: str, now: datetime) -> cluster.JSONObject | None:
    """The raw status with the conditions that say so; None where a status may not be touched.

    All else stays as it is: it may be right by another version. What is over stays over, because nobody would look at
    it again and take the conditions back.
    """
    status = body.get("status") or {}
    if not isinstance(status, dict) or str(status.get("phase")) in conditions.FINISHED:
        return None
    generation = body["metadata"].get("generation", 0)
    entries = status.get("conditions")
    found = [_condition(each) for each in entries] if isinstance(entries, list) else []
    readable = tuple(condition for condition in found if condition is not None)
    for entry in conditions.stalled(REASON, message):
        readable = conditions.put(readable, entry, generation, now)
    return {**status, "observedGeneration": generation, "conditions": [condition.to_json() for condition in readable]}


def _condition(body: object) -> Condition | None:
    try:
        return Condition.model_validate(body)
    except ValidationError:
        return None
