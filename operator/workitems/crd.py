"""CRDs from the pydantic models: what admission accepts and what the operator reads have one source.

The API server wants a *structural* schema: no references, no unions, no `null` types, every part typed. pydantic
writes JSON Schema with all of these. Translating is mechanical, with three choices of our own:

- `X | None` is an optional X in a spec, where null is a mistake, and a nullable X in a status: "nothing yet".
- Defaults are the spec's alone: the operator writes a whole status, and the models complete a shorter one. The one
  exception is `observedGeneration` of an item that nobody has seen yet.
- A pattern with a sentence (`common.wording`) becomes a CEL rule, since the message of a pattern is the pattern.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from workitems.api import GROUP, VERSION, Decision, Pipeline, Repository, WorkItem
from workitems.api.common import PATTERN_MESSAGE, Model, cel

COMMAND = "python -m workitems crds"
CATEGORY = "workitems-all"
"""`kubectl get workitems-all` lists all four kinds; `workitems` alone is the plural of one of them."""

_HEADER = f"# Generated from operator/workitems/api by `{COMMAND}`: edit the models, then run it again.\n"
# What both JSON Schema and a structural schema know, in the order in which it is written.
_KEPT = (
    *("description", "type", "format", "nullable", "enum", "default", "pattern", "minLength", "maxLength"),
    *("minimum", "maximum", "minItems", "maxItems", "minProperties", "maxProperties", "required"),
    *("x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields"),
    *("x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-validations"),
)
# What has been translated, or means nothing to the API server.
_TRANSLATED = {"$ref", "anyOf", "const", "items", "properties", "additionalProperties", "title", PATTERN_MESSAGE}

Schema = dict[str, Any]


@dataclass(frozen=True)
class Column:
    """One column of `kubectl get`; `wide`: only with `-o wide`."""

    name: str
    path: str
    type: str = "string"
    wide: bool = False
    description: str = ""

    def to_json(self) -> Schema:
        """An entry of additionalPrinterColumns."""
        column: Schema = {"name": self.name, "type": self.type, "jsonPath": self.path}
        if self.description:
            column["description"] = self.description
        if self.wide:
            column["priority"] = 1
        return column


@dataclass(frozen=True)
class Kind:
    """One CRD: its model and how kubectl shows and finds its objects."""

    model: type[Model]
    plural: str
    short: str
    columns: tuple[Column, ...]
    selectable: tuple[str, ...] = ()

    @property
    def file(self) -> str:
        """File name in crds/."""
        return f"{GROUP}_{self.plural}.yaml"


UNSEEN = -1
"""The observedGeneration of an item that the operator has not seen: what Flux's own controllers use."""

_AGE = Column("Age", ".metadata.creationTimestamp", "date")
_READY = '.status.conditions[?(@.type=="Ready")]'
_WEBHOOK = '.status.conditions[?(@.type=="WebhookRegistered")]'

KINDS = (
    Kind(
        WorkItem,
        "workitems",
        "wi",
        (
            Column("Stage", ".status.stage", description="created, a stage of the Pipeline, or done"),
            Column("Phase", ".status.phase"),
            Column("Reason", f"{_READY}.reason", description="reason of the condition Ready"),
            Column("Runs", ".status.usage.runs", "integer"),
            Column("PR", ".status.pullRequest.number", "integer"),
            _AGE,
            Column("Agent", ".status.run.agent", wide=True, description="agent of the run under way"),
            Column("Branch", ".status.branch", wide=True),
            Column("Head", ".status.head", wide=True),
            Column("Cost", ".status.usage.costUSD", wide=True, description="US dollars, all runs"),
            Column("Message", f"{_READY}.message", wide=True, description="what the condition Ready says"),
        ),
        (".spec.repository", ".status.branch", ".status.phase", ".status.outbox", ".status.head"),
    ),
    Kind(
        Repository,
        "repositories",
        "wirepo",
        (
            Column("URL", ".spec.url"),
            Column("Branch", ".spec.defaultBranch"),
            _AGE,
            Column("Webhook", f"{_WEBHOOK}.reason", wide=True, description="what came of webhooks.manage"),
            Column("Message", f"{_WEBHOOK}.message", wide=True, description="where it delivers, or what is in the way"),
        ),
    ),
    Kind(
        Pipeline,
        "pipelines",
        "wipl",
        (
            Column("Documents", ".spec.documents"),
            Column("Concurrent", ".spec.limits.maxConcurrentRuns", "integer", description="runs at once at most"),
            _AGE,
            Column("Runs", ".spec.limits.maxRuns", "integer", wide=True, description="runs of one item at most"),
            Column("Cost", ".spec.limits.maxCostUSD", wide=True, description="US dollars of one item at most"),
            Column("Duration", ".spec.limits.maxDuration", wide=True, description="of one item at most"),
            Column("Queue", ".spec.queueName", wide=True, description="Kueue's queue"),
        ),
    ),
    Kind(
        Decision,
        "decisions",
        "widec",
        (
            Column("Item", ".spec.workItem"),
            Column("By", ".spec.by"),
            Column("Result", ".status.result"),
            Column("Reason", ".status.reason"),
            _AGE,
            Column("Comment", ".spec.comment", wide=True),
            Column("Message", ".status.message", wide=True),
        ),
        (".spec.workItem",),
    ),
)


def render() -> dict[str, str]:
    """File name -> YAML text of every CRD, the same text every time."""
    return {
        kind.file: _HEADER
        + yaml.dump(custom_resource_definition(kind), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
        for kind in KINDS
    }


def write(folder: Path) -> None:
    """Write every CRD into `folder`, which must exist. Raises OSError."""
    for name, text in render().items():
        (folder / name).write_text(text, encoding="utf-8")


def custom_resource_definition(kind: Kind) -> Schema:
    """The CRD of one kind."""
    name = kind.model.__name__
    version: Schema = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "additionalPrinterColumns": [column.to_json() for column in kind.columns],
        "schema": {"openAPIV3Schema": schema(kind.model)},
    }
    if kind.selectable:
        version["selectableFields"] = [{"jsonPath": path} for path in kind.selectable]
    if "status" in kind.model.model_fields:
        version["subresources"] = {"status": {}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}", "labels": {"app.kubernetes.io/part-of": "workitem-operator"}},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": name,
                "listKind": f"{name}List",
                "plural": kind.plural,
                "singular": name.lower(),
                "shortNames": [kind.short],
                "categories": [CATEGORY],
            },
            "versions": [version],
        },
    }


def schema(model: type[Model]) -> Schema:
    """The structural schema of a whole object; metadata is the API server's own."""
    source = model.model_json_schema(by_alias=True)
    fields, definitions = source["properties"], source["$defs"]
    properties: Schema = {"metadata": {"type": "object"}, "spec": _Translation(definitions).of(fields["spec"])}
    if "status" in fields:
        properties["status"] = _Translation(definitions, in_status=True).of(fields["status"])
        if "phase" in properties["status"]["properties"]:
            # kstatus takes an object without conditions for finished. Until the operator has seen it, it is not.
            properties["status"]["default"] = {"observedGeneration": UNSEEN}
    whole = {"description": source["description"], "type": "object", "required": ["spec"], "properties": properties}
    return {**whole, **{key: value for key, value in source.items() if key == "x-kubernetes-validations"}}


@dataclass(frozen=True)
class _Translation:
    """One walk from pydantic's JSON Schema to a structural schema."""

    definitions: Schema
    in_status: bool = False

    def of(self, node: Schema) -> Schema:
        """The structural schema of `node`. Raises TypeError for a keyword that nobody has thought about."""
        node, nullable = self._flat(node)
        if unknown := node.keys() - set(_KEPT) - _TRANSLATED:
            raise TypeError(f"crd.py does not know what becomes of {sorted(unknown)} in {node}")
        if "const" in node:
            node["enum"] = [node["const"]]
        if node.get("additionalProperties") is True:
            node["x-kubernetes-preserve-unknown-fields"] = True
        node = _with_message(self._with_defaults(node, nullable=nullable))
        result = {key: node[key] for key in _KEPT if node.get(key) is not None}
        if "description" in result:
            result["description"] = " ".join(result["description"].split())
        if "x-kubernetes-int-or-string" in result:
            del result["type"]
            result["anyOf"] = [{"type": "integer"}, {"type": "string"}]
        return result | self._parts(node)

    def _parts(self, node: Schema) -> Schema:
        parts: Schema = {}
        if "items" in node:
            parts["items"] = self.of(node["items"])
            # What tells a list's entries apart is never missing: it is required, or keeps its default even in a status.
            for key in node.get("x-kubernetes-list-map-keys", ()):
                if key not in parts["items"]["required"]:
                    parts["items"]["properties"][key]["default"] = self._flat(node["items"])[0]["properties"][key][
                        "default"
                    ]
        if node.get("properties"):
            parts["properties"] = {name: self.of(child) for name, child in node["properties"].items()}
        if isinstance(node.get("additionalProperties"), dict):
            parts["additionalProperties"] = self.of(node["additionalProperties"])
        return parts

    def _with_defaults(self, node: Schema, *, nullable: bool) -> Schema:
        if not self.in_status:
            return {**node, "default": _without_nulls(node["default"])} if "default" in node else node
        node = {key: value for key, value in node.items() if key != "default"}
        # The API server refuses null for an enumeration even where null is one of its values.
        if nullable and "enum" not in node:
            node["nullable"] = True
        return node

    def _flat(self, node: Schema) -> tuple[Schema, bool]:
        """`node` without references and without the union with null; whether there was one."""
        nullable = False
        node = dict(node)
        while "$ref" in node or "anyOf" in node:
            if "$ref" in node:
                inner = self.definitions[node.pop("$ref").rpartition("/")[2]]
            else:
                alternatives = node.pop("anyOf")
                nullable = {"type": "null"} in alternatives
                inner, *others = [each for each in alternatives if each != {"type": "null"}]
                if others:
                    raise TypeError(f"a structural schema has no unions but with null: {alternatives}")
            # What the field says of itself comes before what its type says of all its uses.
            node = {**inner, **node}
        return node, nullable


def _with_message(node: Schema) -> Schema:
    message = node.get(PATTERN_MESSAGE)
    if message is None:
        return node
    rule = f"self.matches(r'{node['pattern']}')"
    if "x-kubernetes-int-or-string" in node:
        rule = f"type(self) == int ? self >= 0 : {rule}"
    rest = {key: value for key, value in node.items() if key != "pattern"}
    return {**rest, "x-kubernetes-validations": [cel(rule, message), *node.get("x-kubernetes-validations", ())]}


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(each) for key, each in value.items() if each is not None}
    return value


class _Dumper(yaml.SafeDumper):
    """Writes repeated parts out: a manifest with anchors is hard to read and to diff."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002  # PyYAML's signature
        return True
