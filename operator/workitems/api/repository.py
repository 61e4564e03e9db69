"""`Repository`: where the code lives, with what credentials, and on which volume its worktrees are kept."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from workitems.api.common import (
    Branch,
    Condition,
    Model,
    ObjectMeta,
    SecretKey,
    SecretName,
    SecretRef,
    Subdomain,
    cel,
    rules,
)

# http(s), ssh and scp-like addresses only: `ext::`, `file:` and a leading dash would let a manifest run programs.
URL_PATTERN = r"^(https?://[^\s@/?#\\]+(/[^\s?#\\]*)?|ssh://[^\s:@/?#\\-][^\s:@/?#\\]*(@[^\s:@/?#\\-][^\s@/?#\\]*)?(/[^\s?#\\]*)|[A-Za-z0-9_][A-Za-z0-9_.-]*@[A-Za-z0-9][A-Za-z0-9_.-]*:[^\s\\:-][^\s\\]*)$"


def _config(*entries: dict[str, str]) -> ConfigDict:
    return ConfigDict(
        alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore", json_schema_extra=rules(*entries)
    )


class ConfigMapRef(Model):
    """One key of a ConfigMap of the same namespace."""

    config_map_name: Subdomain
    key: SecretKey


class CommitIdentity(Model):
    """Who the bot's commits are by."""

    name: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^<>\n\r\x00]+$")] = "workitem-bot"
    email: Annotated[str, Field(min_length=3, max_length=200, pattern=r"^[^<>\s@]+@[^<>\s@]+$")] = (
        "workitem-bot@example.com"
    )


class StorageRequests(Model):
    """`requests` of a claim."""

    storage: Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti|k|M|G|T)?$", max_length=20)] = "5Gi"


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

    size_limit: Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti|k|M|G|T)?$", max_length=20)] | None = None


class Worktree(Model):
    """Where the worktree lives between runs: exactly one of three."""

    model_config = _config(
        cel(
            "(has(self.volumeClaimTemplate) ? 1 : 0) + (has(self.emptyDir) ? 1 : 0) + (has(self.claimName) ? 1 : 0) == 1",
            "worktree takes exactly one of volumeClaimTemplate, emptyDir, claimName",
        )
    )

    volume_claim_template: VolumeClaimTemplate | None = None
    empty_dir: EmptyDir | None = None
    claim_name: Subdomain | None = None


class GiteaForge(Model):
    """A repository on a Gitea or Forgejo server."""

    url: Annotated[str, Field(pattern=r"^https?://[^\s@?#]+$", max_length=2048)]
    owner: Annotated[str, Field(min_length=1, max_length=100)]
    name: Annotated[str, Field(min_length=1, max_length=100)]
    token: SecretRef


class Forge(Model):
    """The server of pull requests and checks: exactly one kind."""

    model_config = _config(cel("has(self.gitea)", "forge takes exactly one of: gitea"))

    gitea: GiteaForge | None = None


class PlaneStates(Model):
    """Names or ids of the tracker's states."""

    in_progress: Annotated[str, Field(max_length=255)] | None = None
    in_review: Annotated[str, Field(max_length=255)] | None = None
    needs_input: Annotated[str, Field(max_length=255)] | None = None
    blocked: Annotated[str, Field(max_length=255)] | None = None
    done: Annotated[str, Field(max_length=255)] | None = None


class PlaneTracker(Model):
    """A project on a Plane server."""

    url: Annotated[str, Field(pattern=r"^https?://[^\s@?#]+$", max_length=2048)]
    workspace: Annotated[str, Field(min_length=1, max_length=100)]
    project: Annotated[str, Field(min_length=1, max_length=100)]
    token: SecretRef
    states: PlaneStates = PlaneStates()
    approvers: Annotated[tuple[Annotated[str, Field(max_length=254)], ...], Field(max_length=100)] = ()


class Tracker(Model):
    """Where the team's issues are: exactly one kind."""

    model_config = _config(cel("has(self.plane)", "tracker takes exactly one of: plane"))

    plane: PlaneTracker | None = None


class TelegramNotifier(Model):
    """A chat of the Telegram Bot API."""

    chat_id: Annotated[str, Field(pattern=r"^(-?[0-9]{1,20}|@[A-Za-z0-9_]{1,64})$")]
    token: SecretRef


class Notifier(Model):
    """One channel to tell the team: exactly one kind."""

    model_config = _config(cel("has(self.telegram)", "a notifier takes exactly one of: telegram"))

    telegram: TelegramNotifier | None = None


class RepositoryLimits(Model):
    """Limits shared by all items of one repository."""

    max_concurrent_runs: Annotated[int, Field(ge=1, le=1000)] | None = None


class RepositorySpec(Model):
    """Where the code is and how to reach it."""

    model_config = _config(
        cel("self.url == oldSelf.url", "url is immutable: create another Repository"),
        cel(
            "has(self.worktree) == has(oldSelf.worktree) && (!has(self.worktree) || self.worktree == oldSelf.worktree)",
            "worktree is immutable: create another Repository",
        ),
    )

    url: Annotated[
        str,
        Field(
            pattern=URL_PATTERN,
            max_length=2048,
            description="http(s)://, ssh:// or user@host:path, without a password: credentials belong in the Secret of spec.credentials",
            json_schema_extra=rules(cel("!self.contains('..')", "a repository url must not contain '..'")),
        ),
    ]
    default_branch: Branch = "main"
    credentials: SecretName | None = None
    ca_bundle: ConfigMapRef | None = None
    commit: CommitIdentity = CommitIdentity()
    worktree: Worktree = Worktree(volume_claim_template=VolumeClaimTemplate())
    limits: RepositoryLimits = RepositoryLimits()
    forge: Forge | None = None
    tracker: Tracker | None = None
    notify: Annotated[tuple[Notifier, ...], Field(max_length=20)] = ()
    webhooks: SecretName | None = None


class RepositoryStatus(Model):
    """What the operator found when it last used the repository."""

    observed_generation: int = 0
    conditions: Annotated[tuple[Condition, ...], Field(max_length=16)] = ()


class Repository(Model):
    """A git repository, as the API server stores it."""

    metadata: ObjectMeta
    spec: RepositorySpec
    status: RepositoryStatus = RepositoryStatus()

    @classmethod
    def parse(cls, body: dict[str, Any]) -> Repository:
        """Read an object of the API server. Raises pydantic.ValidationError."""
        return cls.model_validate(body)
