"""`Decision`: what a person says to an item. Immutable, so that nobody can rewrite what was said."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from workitems.api.common import Label, Model, ObjectMeta, Time, cel, exactly_one, fixed, validated, wording

Action = Literal["Approve", "Reject", "Answer", "Retry", "SendBack", "Abort"]
Acknowledgement = Literal["Accepted", "Ignored", "Void"]

COMMIT_PATTERN = r"^([0-9a-f]{40}|[0-9a-f]{64})$"
Commit = Annotated[
    str,
    Field(
        pattern=COMMIT_PATTERN,
        max_length=64,
        json_schema_extra=wording("write the commit's full hash in lower case"),
    ),
]


class Approve(Model):
    """The documents of `gate` are good as they are at `commit`."""

    gate: Label
    commit: Commit
    """The commit that was read; void if the documents differ between it and the head."""


class Reject(Model):
    """The documents of `gate` are not good; the comment says why."""

    gate: Label
    commit: Commit | None = None
    """The commit that was read; void if the documents differ between it and the head. None: whatever waits now."""


class Empty(Model):
    """An action without arguments: the comment carries the words."""


class SendBack(Model):
    """Continue at an earlier stage."""

    stage: Label


_ACTIONS = ("approve", "reject", "answer", "retry", "sendBack", "abort")
_COMMENTED = r"(has(self.comment) && self.comment.matches('[^ \\t\\n\\r]'))"


class DecisionSpec(Model):
    """Exactly one action on one item."""

    model_config = validated(
        cel(exactly_one(*_ACTIONS), f"a Decision takes exactly one of {', '.join(_ACTIONS)}"),
        fixed("self == oldSelf", "a Decision is immutable: create another one"),
        cel(f"!has(self.answer) || {_COMMENTED}", "answer needs the answer in comment", ".comment"),
        cel(f"!has(self.reject) || {_COMMENTED}", "reject needs the reason in comment", ".comment"),
    )

    work_item: Label
    """The WorkItem, in the same namespace."""
    by: Annotated[str, Field(min_length=1, max_length=253)]
    """The requesting user; a bridge writes tracker:user."""
    comment: Annotated[str, Field(max_length=16384)] = ""
    """The words that go with it: the answer, the reason; they reach the agent's prompt."""
    approve: Approve | None = None
    reject: Reject | None = None
    answer: Empty | None = None
    """Of an item in NeedsInput: its agent runs again with the comment as answer."""
    retry: Empty | None = None
    """Leave Blocked: a fresh attempt of the current stage."""
    send_back: SendBack | None = None
    abort: Empty | None = None
    """Stop: the Job goes, the pull request is closed, the branch stays."""

    @model_validator(mode="after")
    def _has_one_action(self) -> Self:
        """An action of a newer version is ignored as a field, and must not be taken for one of ours."""
        if len(self._set()) != 1:
            raise ValueError(f"it takes exactly one of {', '.join(_ACTIONS)}")
        return self

    @property
    def action(self) -> Action:
        """The one action that is set."""
        return self._set()[0]

    def _set(self) -> list[Action]:
        names: tuple[tuple[Any, Action], ...] = (
            (self.approve, "Approve"),
            (self.reject, "Reject"),
            (self.answer, "Answer"),
            (self.retry, "Retry"),
            (self.send_back, "SendBack"),
            (self.abort, "Abort"),
        )
        return [name for value, name in names if value is not None]


class DecisionStatus(Model):
    """The operator's acknowledgement."""

    result: Acknowledgement | None = None
    reason: Annotated[str, Field(max_length=1024)] = ""
    message: Annotated[str, Field(max_length=1024)] = ""
    at: Time | None = None


class Decision(Model):
    """What a person says to an item: approve, reject, answer, retry, send back or abort. Immutable."""

    metadata: ObjectMeta
    spec: DecisionSpec
    status: DecisionStatus = DecisionStatus()

    @classmethod
    def parse(cls, body: dict[str, Any]) -> Decision:
        """Read an object of the API server. Raises pydantic.ValidationError."""
        return cls.model_validate(body)
