"""The words that all four kinds share: names, durations, money, and how a model is written as JSON.

The same pydantic models are the operator's types and, through `workitems.crd`, the source of the CRDs' schemas,
so that what admission accepts and what the operator reads cannot drift apart.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import re
import textwrap
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, GetJsonSchemaHandler
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

GROUP = "workitems.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"


class Model(BaseModel):
    """An immutable value with camelCase JSON names; unknown fields of a newer version are ignored, not refused."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        frozen=True,
        extra="ignore",
        # A runner needs two of these models: the others are built when somebody asks for them.
        defer_build=True,
    )

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """The sentence under a field is what `kubectl explain` shows.

        pydantic's use_attribute_docstrings reads the source of every model at import; a run's start would pay for it.
        """
        schema = handler(core_schema)
        properties = handler.resolve_ref_schema(schema).get("properties", {})
        for name, sentence in _sentences(cls).items():
            alias = cls.model_fields[name].alias or name
            properties[alias].setdefault("description", sentence)
        return schema

    def to_json(self) -> dict[str, Any]:
        """JSON-ready dict: camelCase names, absent instead of null, datetimes as RFC 3339 in UTC."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


PATTERN_MESSAGE = "x-workitems-pattern-message"
"""Schema key, gone in the CRD: the sentence to say instead of a regular expression that nobody wants to decipher."""


def _sentences(model: type[BaseModel]) -> dict[str, str]:
    """Field name -> the docstring under it."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(model)))
    body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
    return {
        field.target.id: inspect.cleandoc(below.value.value)
        for field, below in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(below, ast.Expr)
        and isinstance(below.value, ast.Constant)
        and isinstance(below.value.value, str)
    }


def cel(rule: str, message: str, path: str = "") -> dict[str, str]:
    """One `x-kubernetes-validations` entry; `path` (`.branch`) names the field below the rule's own that is wrong."""
    entry = {"rule": rule, "message": message}
    return {**entry, "fieldPath": path} if path else entry


def fixed(rule: str, message: str, path: str = "") -> dict[str, str]:
    """The same for a change that is never allowed, whatever the new value."""
    return {**cel(rule, message, path), "reason": "FieldValueForbidden"}


def rules(*entries: dict[str, str]) -> dict[str, Any]:
    """`json_schema_extra` that carries CEL rules into the CRD."""
    return {"x-kubernetes-validations": list(entries)}


def validated(*entries: dict[str, str]) -> ConfigDict:
    """`model_config` of a model with CEL rules; the rest is inherited."""
    return ConfigDict(json_schema_extra=rules(*entries))


def wording(message: str) -> dict[str, Any]:
    """`json_schema_extra` of a field whose pattern is explained by `message` when it does not match."""
    return {PATTERN_MESSAGE: message}


def keyed(*keys: str) -> dict[str, Any]:
    """`json_schema_extra` of a list whose entries are told apart by `keys`: twice the same is refused."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


def exactly_one(*names: str) -> str:
    """CEL: exactly one of these optional fields is set."""
    return " + ".join(f"(has(self.{name}) ? 1 : 0)" for name in names) + " == 1"


_DURATION = re.compile(r"(?:([0-9]{1,6})h)?(?:([0-9]{1,6})m)?(?:([0-9]{1,6})s)?")
DURATION_WORDING = "write hours, minutes, seconds in this order and more than zero, as in 1h30m, 45m or 90s"
DURATION_PATTERN = r"^([0-9]{1,6}h([0-9]{1,6}m)?([0-9]{1,6}s)?|[0-9]{1,6}m([0-9]{1,6}s)?|[0-9]{1,6}s)$"


def duration(text: str) -> timedelta:
    """`1h30m`, `45m`, `90s` as a timedelta. Raises ValueError for anything else, and for zero."""
    match = _DURATION.fullmatch(text)
    hours, minutes, seconds = (int(part or 0) for part in match.groups()) if match else (0, 0, 0)
    length = timedelta(hours=hours, minutes=minutes, seconds=seconds)
    if not length:
        raise ValueError(f"{text!r} is no duration: {DURATION_WORDING}")
    return length


def _check_duration(text: str) -> str:
    duration(text)
    return text


def _whole_seconds(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment.astimezone(UTC).replace(microsecond=0)


Duration = Annotated[
    str,
    Field(
        pattern=DURATION_PATTERN,
        max_length=24,
        json_schema_extra=wording(DURATION_WORDING) | rules(cel("self.matches('[1-9]')", DURATION_WORDING)),
    ),
    AfterValidator(_check_duration),
]
"""Hours, minutes, seconds: 1h30m, 45m, 90s."""

# The API server stores what we write; whole seconds keep a status equal to itself after a round trip.
Time = Annotated[datetime, AfterValidator(_whole_seconds)]

DNS_LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
DNS_SUBDOMAIN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
Label = Annotated[str, Field(pattern=DNS_LABEL, min_length=1, max_length=63)]
Subdomain = Annotated[str, Field(pattern=DNS_SUBDOMAIN, min_length=1, max_length=253)]
SecretKey = Annotated[str, Field(pattern=r"^[-._a-zA-Z0-9]+$", min_length=1, max_length=253)]
Money = Annotated[
    str,
    Field(
        pattern=r"^[0-9]{1,9}(\.[0-9]{1,4})?$",
        max_length=14,
        json_schema_extra=wording(
            'write US dollars as a quoted decimal number without sign or currency, as in "25" or "0.50"'
        ),
    ),
]
"""US dollars as a decimal string, since a float cannot carry money."""

# What git itself refuses in a ref name (git-check-ref-format(1)), and what a command would read as an option.
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
BRANCH_WORDING = wording(
    "a branch name has no spaces, control characters or any of ~ ^ : ? * [ \\,"
    " and does not start with '-', '.', '/' or '@'"
)
Branch = Annotated[
    str,
    Field(pattern=BRANCH_PATTERN, min_length=1, max_length=200, json_schema_extra=BRANCH_WORDING | BRANCH_RULES),
]

# `.git` in any case: the file systems of some machines do not tell the difference.
INSIDE = r"!('/' + self + '/').matches(r'(?i)/\.(\.|git)?/')"
_INSIDE_WORDING = "a path must stay inside the repository and out of .git: no part of it may be '.', '..' or '.git'"
_PLAIN = r"\x00-\x1f\x7f\\"


def _path(pattern: str, words: str, rule: str = INSIDE) -> Any:
    return Field(
        pattern=pattern,
        min_length=1,
        # Any longer, and the rule below exceeds what the API server is ready to spend on all files of all gates.
        max_length=200,
        json_schema_extra=wording(f"{words}, with neither '//' nor '\\' nor control characters")
        | rules(cel(rule, _INSIDE_WORDING)),
    )


RepositoryPath = Annotated[str, _path(rf"^/?([^/{_PLAIN}]+/)*[^/{_PLAIN}]+$", "write the path of a file")]
"""A file: relative to the item's documents, or to the repository's root if it starts with `/`."""
RootFile = Annotated[
    str,
    _path(
        rf"^([^/{_PLAIN}]+/)*[^/{_PLAIN}]+$",
        "write the path of a file relative to the repository's root, without a leading '/'",
    ),
]
"""A file, relative to the repository's root."""
CommitPath = Annotated[
    str,
    _path(
        rf"^[^:/{_PLAIN}][^/{_PLAIN}]*(/[^/{_PLAIN}]+)*/?$",
        "write a file or folder relative to the repository's root, without a leading '/' or ':'",
        f"self == '.' || {INSIDE}",
    ),
]
"""A file, or a folder if it ends with `/`, relative to the repository's root; `.` is all of it. No pathspec magic."""


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
    observed_generation: int | None = None
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
