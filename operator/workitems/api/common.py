"""The words that all four kinds share: names, durations, money, and how a model is written as JSON.

The same pydantic models are the operator's types and, through `workitems.crd`, the source of the CRDs' schemas,
so that what admission accepts and what the operator reads cannot drift apart.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

GROUP = "workitems.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"


class Model(BaseModel):
    """An immutable value with camelCase JSON names; unknown fields of a newer version are ignored, not refused."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore")

    def to_json(self) -> dict[str, Any]:
        """JSON-ready dict: camelCase names, absent instead of null, datetimes as RFC 3339 in UTC."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def cel(rule: str, message: str) -> dict[str, str]:
    """One `x-kubernetes-validations` entry."""
    return {"rule": rule, "message": message}


def rules(*entries: dict[str, str]) -> dict[str, Any]:
    """`json_schema_extra` that carries CEL rules into the CRD."""
    return {"x-kubernetes-validations": list(entries)}


_DURATION = re.compile(r"^(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,6})s)?$")
DURATION_PATTERN = r"^([0-9]{1,6}h([0-9]{1,6}m)?([0-9]{1,6}s)?|[0-9]{1,6}m([0-9]{1,6}s)?|[0-9]{1,6}s)$"


def duration(text: str) -> timedelta:
    """`1h30m`, `45m`, `90s` as a timedelta. Raises ValueError for anything else."""
    match = _DURATION.match(text)
    if not text or match is None:
        raise ValueError(f"{text!r} is not a duration: write hours, minutes, seconds in this order, as in 1h30m or 45s")
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return timedelta(hours=hours, minutes=minutes, seconds=seconds)


def _check_duration(text: str) -> str:
    duration(text)
    return text


def _whole_seconds(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment.astimezone(UTC).replace(microsecond=0)


Duration = Annotated[str, Field(pattern=DURATION_PATTERN, max_length=24), AfterValidator(_check_duration)]
"""Hours, minutes, seconds: 1h30m, 45m, 90s."""

# The API server stores what we write; whole seconds keep a status equal to itself after a round trip.
Time = Annotated[datetime, AfterValidator(_whole_seconds)]

DNS_LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
DNS_SUBDOMAIN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
Label = Annotated[str, Field(pattern=DNS_LABEL, min_length=1, max_length=63)]
Subdomain = Annotated[str, Field(pattern=DNS_SUBDOMAIN, min_length=1, max_length=253)]
SecretKey = Annotated[str, Field(pattern=r"^[-._a-zA-Z0-9]+$", min_length=1, max_length=253)]
Money = Annotated[str, Field(pattern=r"^[0-9]{1,9}(\.[0-9]{1,4})?$", max_length=14)]
"""US dollars as a decimal string, since a float cannot carry money."""

# What git itself refuses in a ref name (git-check-ref-format(1)), as far as a regular expression without look-ahead can.
BRANCH_PATTERN = r"^[^\s~^:?*\[\\\x00-\x1f\x7f/.@-][^\s~^:?*\[\\\x00-\x1f\x7f]*$"
BRANCH_RULES = rules(
    cel(
        "!self.contains('..') && !self.contains('@{') && !self.contains('//')",
        "git refuses '..', '@{' and '//' in a branch name",
    ),
    cel(
        "!self.endsWith('/') && !self.endsWith('.') && !self.endsWith('.lock')",
        "git refuses a branch name that ends with '/', '.' or '.lock'",
    ),
    cel(
        "!self.contains('/.') && !self.contains('.lock/') && !self.contains('/-')",
        "no part of a branch name may start with '.' or '-' or end with '.lock'",
    ),
    cel("!self.startsWith('refs/') && self != 'HEAD'", "give the branch name without refs/heads/, and not HEAD"),
)
Branch = Annotated[str, Field(pattern=BRANCH_PATTERN, min_length=1, max_length=200, json_schema_extra=BRANCH_RULES)]

PATH_PATTERN = r"^[^\x00-\x1f\x7f\\]+$"
PATH_RULES = rules(
    cel(
        "!self.split('/').exists(p, p == '..' || p == '.git')", "a path must stay inside the repository and out of .git"
    ),
)
RepositoryPath = Annotated[str, Field(pattern=PATH_PATTERN, min_length=1, max_length=255, json_schema_extra=PATH_RULES)]
"""A path inside the repository; whether it is relative to the root or to `documents` is said where it is used."""


class Phase(StrEnum):
    """What an item is doing, in one word; the stage says where."""

    PENDING = "Pending"
    QUEUED = "Queued"
    IN_PROGRESS = "InProgress"
    IN_REVIEW = "InReview"
    NEEDS_INPUT = "NeedsInput"
    BLOCKED = "Blocked"
    SUSPENDED = "Suspended"
    DONE = "Done"
    ABORTED = "Aborted"


class RunResult(StrEnum):
    """How one agent run ended."""

    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    TIMED_OUT = "TimedOut"
    LOST = "Lost"
    EVICTED = "Evicted"
    OUT_OF_MEMORY = "OutOfMemory"


class GateResult(StrEnum):
    """What a gate says about the content it covers."""

    PASSED = "Passed"
    FAILED = "Failed"
    PENDING = "Pending"
    ERROR = "Error"
    SKIPPED = "Skipped"


class Condition(Model):
    """A Kubernetes condition (meta/v1 Condition), as kstatus reads them."""

    type: Annotated[str, Field(max_length=316)]
    status: Annotated[str, Field(pattern="^(True|False|Unknown)$")]
    reason: Annotated[str, Field(max_length=1024)]
    message: Annotated[str, Field(max_length=32768)] = ""
    observed_generation: int = 0
    last_transition_time: Time


class SecretName(Model):
    """A Secret of the same namespace; its keys are fixed by where it is used."""

    secret_name: Subdomain


class SecretRef(Model):
    """One key of a Secret of the same namespace."""

    secret_name: Subdomain
    key: SecretKey


class ObjectMeta(Model):
    """The part of metadata that the operator reads."""

    name: str
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: Time | None = None
    deletion_timestamp: Time | None = None
    owner_references: tuple[dict[str, Any], ...] = ()
    annotations: dict[str, str] = {}
    labels: dict[str, str] = {}
