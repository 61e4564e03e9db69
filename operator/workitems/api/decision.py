"""`Decision`: what a person says to an item. Immutable, so that nobody can rewrite what was said."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from workitems.api.common import Label, Model, ObjectMeta, Time, cel, rules

Action = Literal["Approve", "Reject", "Answer", "Retry", "SendBack", "Abort"]
Acknowledgement = Literal["Accepted", "Ignored", "Void"]

COMMIT_PATTERN = r"^([0-9a-f]{40}|[0-9a-f]{64})$"


class Approve(Model):
    """The documents of `gate` are good as they are at `commit`."""

    gate: Label
    commit: Annotated[str, Field(pattern=COMMIT_PATTERN, max_length=64)]


class Reject(Model):
    """The documents of `gate` are not good; the comment says why."""

    gate: Label


class Empty(Model):
    """An action without arguments: the comment carries the words."""


class SendBack(Model):
    """Continue at an earlier stage."""

    stage: Label


_ACTIONS = ("approve", "reject", "answer", "retry", "sendBack", "abort")


class DecisionSpec(Model):
    """Exactly one action on one item."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        frozen=True,
        extra="ignore",
        json_schema_extra=rules(
            cel(
                " + ".join(f"(has(self.{action}) ? 1 : 0)" for action in _ACTIONS) + " == 1",
                "a Decision takes exactly one of approve, reject, answer, retry, sendBack, abort",
            ),
            cel("self == oldSelf", "a Decision is immutable: create another one"),
            cel(
                "!has(self.answer) || (has(self.comment) && self.comment.size() > 0)",
                "answer needs the answer in comment",
            ),
            cel(
                "!has(self.reject) || (has(self.comment) && self.comment.size() > 0)",
                "reject needs the reason in comment",
            ),
        ),
    )

    work_item: Label
    by: Annotated[str, Field(min_length=1, max_length=253)]
    comment: Annotated[str, Field(max_length=16384)] = ""
    approve: Approve | None = None
    reject: Reject | None = None
    answer: Empty | None = None
    retry: Empty | None = None
    send_back: SendBack | None = None
    abort: Empty | None = None

    @property
    def action(self) -> Action:
        """The one action that is set."""
        names: tuple[tuple[Any, Action], ...] = (
            (self.approve, "Approve"),
            (self.reject, "Reject"),
            (self.answer, "Answer"),
            (self.retry, "Retry"),
            (self.send_back, "SendBack"),
        )
        return next((name for value, name in names if value is not None), "Abort")


class DecisionStatus(Model):
    """The operator's acknowledgement."""

    result: Acknowledgement | None = None
    reason: Annotated[str, Field(max_length=1024)] = ""
    message: Annotated[str, Field(max_length=1024)] = ""
    at: Time | None = None


class Decision(Model):
    """A Decision, as the API server stores it."""

    metadata: ObjectMeta
    spec: DecisionSpec
    status: DecisionStatus = DecisionStatus()

    @classmethod
    def parse(cls, body: dict[str, Any]) -> Decision:
        """Read an object of the API server. Raises pydantic.ValidationError."""
        return cls.model_validate(body)
