"""`WorkItem`: one task on one branch, as a person writes it; what became of it is in `status`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from workitems.api.common import (
    Branch,
    Duration,
    Model,
    Money,
    ObjectMeta,
    Subdomain,
    cel,
    fixed,
    rules,
    validated,
    wording,
)
from workitems.api.status import WorkItemStatus


def _immutable(field: str) -> dict[str, str]:
    return fixed(
        f"has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})",
        f"{field} is immutable: create another WorkItem",
        f".{field}",
    )


class ItemLimits(Model):
    """Each optional, each overrides the Pipeline's."""

    max_runs: Annotated[int, Field(ge=1, le=1000)] | None = None
    """In all stages together."""
    max_cost_usd: Annotated[Money | None, Field(alias="maxCostUSD")] = None
    """In US dollars."""
    max_duration: Duration | None = None
    """From the start, the waits for people left out."""


class ExternalRef(Model):
    """The tracker's issue."""

    id: Annotated[str, Field(min_length=1, max_length=253)]
    url: (
        Annotated[
            str,
            Field(
                pattern=r"^https?://\S+$",
                max_length=2048,
                json_schema_extra=wording("write an http(s):// address"),
            ),
        ]
        | None
    ) = None


class WorkItemSpec(Model):
    """The task, as a person writes it."""

    model_config = validated(
        fixed(
            "self.repository == oldSelf.repository", "repository is immutable: create another WorkItem", ".repository"
        ),
        _immutable("branch"),
        _immutable("baseBranch"),
        cel(
            "!has(self.branch) || !has(self.baseBranch) || self.branch != self.baseBranch",
            "branch must differ from baseBranch",
            ".branch",
        ),
    )

    repository: Subdomain
    """A Repository in this namespace. Immutable."""
    title: Annotated[
        str,
        Field(
            min_length=1,
            max_length=250,
            pattern=r"^[^\x00-\x1f\x7f]+$",
            json_schema_extra=wording("a title is one line without control characters"),
        ),
    ]
    """The task in one line."""
    description: Annotated[
        str,
        Field(
            max_length=65536,
            json_schema_extra=rules(
                cel("bytes(self).size() <= 65536", "description may have 64 KiB (65536 bytes) at most")
            ),
        ),
    ] = ""
    """Markdown, up to 64 KiB; reaches the agent as a file, never through a shell."""
    branch: Branch | None = None
    """The branch to work on; default workitem/<name>. Immutable."""
    base_branch: Branch | None = None
    """What the branch starts from and is merged into; default: the Repository's. Immutable."""
    adopt_branch: bool = False
    """Work on although the branch already exists on the remote."""
    pipeline: Subdomain = "default"
    """A Pipeline in this namespace, else in the operator's; snapshotted when the item starts."""
    suspend: bool = False
    """No new run starts; a live run finishes."""
    priority: Annotated[int, Field(ge=-1_000_000, le=1_000_000)] = 0
    """Higher first when runs queue."""
    limits: ItemLimits = ItemLimits()
    external_ref: ExternalRef | None = None
    """The tracker's issue."""


class WorkItem(Model):
    """One software task on one branch, carried through the stages of a Pipeline; its status is the whole story."""

    model_config = validated(
        cel(
            "self.metadata.name.size() <= 63 && !self.metadata.name.contains('.')",
            "metadata.name of a WorkItem is a DNS label: at most 63 lower-case letters, digits and '-', no dots",
        ),
        cel(
            "has(self.spec.branch) || !has(self.spec.baseBranch)"
            " || self.spec.baseBranch != 'workitem/' + self.metadata.name",
            "branch must differ from baseBranch, and without branch it is workitem/<name>",
            ".spec.baseBranch",
        ),
        fixed(
            "!has(oldSelf.status) || !has(oldSelf.status.pipeline) || self.spec.pipeline == oldSelf.spec.pipeline",
            "the Pipeline was snapshotted when the item started: pipeline can no longer change",
            ".spec.pipeline",
        ),
    )

    metadata: ObjectMeta
    spec: WorkItemSpec
    status: WorkItemStatus = WorkItemStatus()

    @classmethod
    def parse(cls, body: dict[str, Any]) -> WorkItem:
        """Read an object of the API server. Raises pydantic.ValidationError."""
        return cls.model_validate(body)

    @property
    def key(self) -> str:
        """`namespace/name`."""
        return f"{self.metadata.namespace}/{self.metadata.name}"
