"""Everything a decision may depend on, gathered by `observe.py` and frozen here, the clock included.

A decision that needs something that is not in `Facts` is a decision taken in the wrong place.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from workitems.api import Decision, ObjectMeta, PipelineSpec, Repository, WorkItem
from workitems.api.agent import ModelCredentials
from workitems.core.forge import Reading


@dataclass(frozen=True)
class Defaults:
    """The operator's own settings, as far as decisions and manifests depend on them."""

    runner_image: str
    agent_image: str
    claude_image: str | None = None
    """For claudeCode agents that name none; None: not configured."""
    model_credentials: ModelCredentials | None = None
    """For claudeCode agents that name none; the Secret is looked for in the item's own namespace."""
    image_pull_policy: str = "IfNotPresent"
    runner_memory: str = "1Gi"
    """The runner container's limit."""
    run_as_user: int | None = 1000
    run_as_group: int | None = 1000
    fs_group: int | None = 1000
    infra_backoff: timedelta = timedelta(seconds=10)
    infra_backoff_limit: timedelta = timedelta(minutes=5)


@dataclass(frozen=True)
class Problem:
    """Something a person must mend before the item can go on; it continues by itself once it is mended."""

    reason: str
    message: str
    blocked: bool = False


@dataclass(frozen=True)
class PipelineView:
    """The Pipeline that counts for the item: the live one before the start, its snapshot afterwards."""

    name: str
    namespace: str
    generation: int
    digest: str
    revision: str
    spec: PipelineSpec


@dataclass(frozen=True)
class ContainerView:
    """One container's state, from `pod.status.containerStatuses`."""

    exit_code: int | None = None
    reason: str = ""
    message: str = ""
    running: bool = False
    finished_at: datetime | None = None

    @property
    def terminated(self) -> bool:
        """Whether the container has ended."""
        return self.exit_code is not None


@dataclass(frozen=True)
class PodView:
    """One pod of a Job."""

    name: str
    phase: str
    node: str = ""
    created: datetime | None = None
    scheduled: datetime | None = None
    """When it was given its node."""
    deleted: datetime | None = None
    """When its deletion was asked for, or confirmed by the kubelet."""
    disrupted: str = ""
    """Message of the DisruptionTarget condition, or of an eviction; empty: not disrupted."""
    unschedulable: str = ""
    containers: dict[str, ContainerView] = field(default_factory=dict)

    @property
    def terminal(self) -> bool:
        """Whether no container of it can run any more, and all is said about how they ended.

        The phase says so seconds after the containers have ended. What ended well needs no word more; why a container
        was killed (an eviction, a node that shuts down) the kubelet keeps back until then.
        """
        return self.phase in ("Succeeded", "Failed") or self._ended_well

    @property
    def succeeded(self) -> bool:
        """Whether all its containers have ended as they should, and nobody wanted it to end."""
        return self._ended_well and self.deleted is None and not self.disrupted

    @property
    def _ended_well(self) -> bool:
        return bool(self.containers) and all(c.exit_code == 0 for c in self.containers.values())

    @property
    def healthy(self) -> bool:
        """Whether all its containers are at work and nobody wants it to end."""
        working = bool(self.containers) and all(c.running for c in self.containers.values())
        return working and self.deleted is None and not self.disrupted


@dataclass(frozen=True)
class JobView:
    """A Job of the item, by its deterministic name, and its pod. `uid` empty: there is no such Job."""

    name: str
    uid: str = ""
    owner_uid: str = ""
    failed: str = ""
    """Why it has failed, or will once its pods have ended (FailureTarget), e.g. DeadlineExceeded: it makes no more."""
    complete: bool = False
    """Whether the Job has its Complete condition: there was a pod, and it Succeeded."""
    pod: PodView | None = None

    @property
    def exists(self) -> bool:
        """Whether the API server has a Job of that name."""
        return bool(self.uid)


@dataclass(frozen=True)
class Admission:
    """What the ledger of concurrent runs says to one more run of this item."""

    granted: bool
    message: str = ""


@dataclass(frozen=True)
class EffectOutcome:
    """How an attempt to carry out one effect of status.effects ended, kept in memory until it stands in status."""

    id: str
    state: Literal["Intended", "Done", "Unknown", "Failed"]
    """Intended: it failed and is tried again at `next_attempt_at`."""
    attempts: int
    ref: str | None = None
    next_attempt_at: datetime | None = None
    reason: str | None = None
    """Why it is not done, in one word; none: no answer."""
    error: str | None = None
    values: dict[str, str] = field(default_factory=dict)
    """What else is to be known of it, by the effect's kind."""
    refusals: int = 0
    """How many of the attempts were answered."""


@dataclass(frozen=True)
class Misread:
    """A Decision that cannot be read: nothing is decided from it, and somebody is told."""

    metadata: ObjectMeta
    message: str


@dataclass(frozen=True)
class Facts:
    """One look at one WorkItem."""

    now: datetime
    item: WorkItem
    defaults: Defaults
    pipeline: PipelineView | None = None
    repository: Repository | None = None
    problem: Problem | None = None
    """What keeps the item from starting or going on, found while reading (missing references, branch in use)."""
    decisions: tuple[Decision, ...] = ()
    """The item's Decisions that are not acknowledged yet, oldest first."""
    misread: tuple[Misread, ...] = ()
    """Those of them that cannot be read."""
    run_job: JobView | None = None
    """The Job of status.run, where there is one."""
    gate_jobs: dict[str, JobView] = field(default_factory=dict)
    """Jobs of pending command gates, by Job name."""
    admission: Admission = Admission(granted=True)
    outcomes: tuple[EffectOutcome, ...] = ()
    """What came of the item's effects outside the cluster since the last step."""
    reading: Reading | None = None
    """What the forge said a moment ago, where the last step asked for it."""

    @property
    def uid(self) -> str:
        """The item's uid."""
        return self.item.metadata.uid
