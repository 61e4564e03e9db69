"""`Repository`: where the code lives, with what credentials, and on which volume its worktrees are kept."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from workitems.api.common import (
    Branch,
    Condition,
    Model,
    ObjectMeta,
    SecretKey,
    SecretName,
    Subdomain,
    cel,
    exactly_one,
    fixed,
    keyed,
    rules,
    validated,
    wording,
)
from workitems.api.integrations import Forge, Messages, Notifier, PlaneTracker, Tracker

# http(s), ssh and scp-like addresses only: `ext::`, `file:` and a leading dash would let a manifest run programs.
URL_PATTERN = r"^(https?://[^\s@/?#\\]+(/[^\s?#\\]*)?|ssh://[^\s:@/?#\\-][^\s:@/?#\\]*(@[^\s:@/?#\\-][^\s@/?#\\]*)?(/[^\s?#\\]*)|[A-Za-z0-9_][A-Za-z0-9_.-]*@[A-Za-z0-9][A-Za-z0-9_.-]*:[^\s\\:-][^\s\\]*)$"


StorageSize = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti|k|M|G|T)?$", max_length=20)]


class ConfigMapRef(Model):
    """One key of a ConfigMap of the same namespace."""

    config_map_name: Subdomain
    key: SecretKey


class CommitIdentity(Model):
    """Who the bot's commits are by."""

    name: Annotated[
        str,
        Field(
            min_length=1,
            max_length=100,
            pattern=r"^[^<>\x00-\x1f\x7f]+$",
            json_schema_extra=wording("git takes a name without '<', '>' and line breaks"),
        ),
    ] = "workitem-bot"
    email: Annotated[
        str,
        Field(
            min_length=3,
            max_length=200,
            pattern=r"^[^<>\s@]+@[^<>\s@]+$",
            json_schema_extra=wording("write an address as in bot@example.com"),
        ),
    ] = "workitem-bot@example.com"


class StorageRequests(Model):
    """`requests` of a claim."""

    storage: StorageSize = "5Gi"


class StorageResources(Model):
    """`resources` of a claim."""

    requests: StorageRequests = StorageRequests()


AccessMode = Literal["ReadWriteOnce", "ReadWriteOncePod", "ReadWriteMany"]


class VolumeClaimTemplate(Model):
    """One claim per WorkItem, deleted with it."""

    storage_class_name: Subdomain | None = None
    access_modes: Annotated[tuple[AccessMode, ...], Field(min_length=1, max_length=3)] = ("ReadWriteOnce",)
    resources: StorageResources = StorageResources()


class EmptyDir(Model):
    """Nothing is kept between runs but the pushed branch."""

    size_limit: StorageSize | None = None


class Worktree(Model):
    """Where the worktree lives between runs: exactly one of three."""

    model_config = validated(
        cel(
            exactly_one("volumeClaimTemplate", "emptyDir", "claimName"),
            "worktree takes exactly one of volumeClaimTemplate, emptyDir, claimName",
        )
    )

    volume_claim_template: VolumeClaimTemplate | None = None
    empty_dir: EmptyDir | None = None
    claim_name: Subdomain | None = None
    """One claim that all items share: ReadWriteMany, or one node; a bare repository and one git worktree per branch."""


class RepositoryLimits(Model):
    """Limits shared by all items of one repository."""

    max_concurrent_runs: Annotated[int, Field(ge=1, le=1000)] | None = None


class Webhooks(SecretName):
    """Deliveries to /hooks/NAMESPACE/REPOSITORY/SOURCE of the operator, signed with a secret for each source."""

    secret_name: Subdomain
    """Secret with one HMAC key a source: gitea, plane."""
    manage: bool = False
    """Register the webhook at the forge, and again if somebody deletes it; its token needs the right to do so."""


class RepositorySpec(Model):
    """Where the code is and how to reach it."""

    model_config = validated(
        fixed("self.url == oldSelf.url", "url is immutable: create another Repository", ".url"),
        fixed(
            "has(self.worktree) == has(oldSelf.worktree) && (!has(self.worktree) || self.worktree == oldSelf.worktree)",
            "worktree is immutable: create another Repository",
            ".worktree",
        ),
        cel(
            "!has(self.webhooks) || !self.webhooks.manage || has(self.forge)",
            "webhooks.manage registers the webhook at the forge: add forge",
            ".webhooks.manage",
        ),
    )

    url: Annotated[
        str,
        Field(
            pattern=URL_PATTERN,
            max_length=2048,
            json_schema_extra=wording(
                "write https://host/path, ssh://user@host/path or user@host:path;"
                " user and password belong in the Secret that spec.credentials names"
            )
            | rules(cel("!self.matches('(?i)[.][.]|%2e%2e|%0[0ad]')", "a repository url must not contain '..'")),
        ),
    ]
    """http(s)://, ssh:// or user@host:path, without a password. Immutable."""
    default_branch: Branch = "main"
    """Base of an item's branch unless the item names another."""
    credentials: SecretName | None = None
    """Secret with username and password, or ssh-privatekey and known_hosts; mounted only where git needs it."""
    ca_bundle: ConfigMapRef | None = None
    """Certificates that git and the forge client trust."""
    commit: CommitIdentity = CommitIdentity()
    worktree: Worktree = Worktree(volume_claim_template=VolumeClaimTemplate())
    """Where the worktree lives between runs: exactly one of three. Immutable."""
    limits: RepositoryLimits = RepositoryLimits()
    forge: Forge | None = None
    tracker: Tracker | None = None
    notify: Annotated[tuple[Notifier, ...], Field(max_length=20)] = ()
    """Any number of channels to tell the team."""
    messages: Messages = Messages()
    """How comments and messages read: language and templates."""
    webhooks: Webhooks | None = None
    """What the forge and the tracker tell at once instead of being asked for."""

    @property
    def plane(self) -> PlaneTracker | None:
        """The tracker, where it is Plane."""
        return self.tracker.plane if self.tracker is not None else None


class RegisteredWebhook(Model):
    """The webhook that the operator registered at the forge."""

    id: Annotated[str, Field(max_length=63)]
    url: Annotated[str, Field(max_length=2048)]
    secret_version: Annotated[str, Field(max_length=63)]
    """resourceVersion of the Secret at that time: another one may hold another secret."""


class RepositoryStatus(Model):
    """What the operator found when it last used the repository."""

    observed_generation: int | None = None
    webhook: RegisteredWebhook | None = None
    conditions: Annotated[tuple[Condition, ...], Field(max_length=16, json_schema_extra=keyed("type"))] = ()


class Repository(Model):
    """A git repository with its credentials, worktree volume, forge, tracker and notifications."""

    metadata: ObjectMeta
    spec: RepositorySpec
    status: RepositoryStatus = RepositoryStatus()

    @classmethod
    def parse(cls, body: dict[str, Any]) -> Repository:
        """Read an object of the API server. Raises pydantic.ValidationError."""
        return cls.model_validate(body)
