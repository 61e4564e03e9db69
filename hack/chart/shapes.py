"""What Kubernetes and our own CRD know of a value's shape, as parts of the schema of the chart's values.

helm then refuses a misspelled field before anything is changed. Else the API server is the first to notice, after the
old operator's pod is gone.
"""

from __future__ import annotations

import functools
import json
from importlib import resources
from typing import Any

import kubernetes_validate

from workitems import crd
from workitems.api import Pipeline

Schema = dict[str, Any]

_CORE = "io.k8s.api.core.v1"
KUBERNETES = {
    name.rpartition(".")[2]: name
    for name in (
        *(f"{_CORE}.{kind}" for kind in ("PodSecurityContext", "SecurityContext", "Toleration", "Affinity")),
        *(f"{_CORE}.{kind}" for kind in ("TopologySpreadConstraint", "ResourceRequirements", "VolumeMount")),
        *(f"{_CORE}.{kind}" for kind in ("EnvVar", "EnvFromSource")),
        "io.k8s.api.networking.v1.NetworkPolicyPeer",
    )
}
"""`#/definitions/NAME` in values.schema.yaml -> Kubernetes' own definition. Without Volume, as large as these."""

_CRDS_OWN = ("default", "nullable")
"""Keywords of a CRD that JSON Schema reads otherwise, or not at all; `x-kubernetes-…` too."""
_NO_SHAPE = ("description", "properties", "format")
_WHOLE = ("required", "minProperties")
"""What the merged map has and the values alone, which change a part of it, need not have."""


def pipeline() -> Schema:
    """Of `pipelines.default.spec`, a part of a Pipeline's: maps are merged over the built-in one, lists replace."""
    return _part(crd.schema(Pipeline)["properties"]["spec"], merged=True)


def definitions() -> Schema:
    """Name -> definition of everything in KUBERNETES, and of what those refer to."""
    found: Schema = {}
    wanted = list(KUBERNETES.values())
    while wanted:
        name = wanted.pop()
        if (short := name.rpartition(".")[2]) not in found:
            found[short] = _bare(_known()[name], wanted)
    return dict(sorted(found.items()))


def _part(node: Schema, *, merged: bool) -> Schema:
    dropped = {*_CRDS_OWN, *(_WHOLE if merged else ())}
    kept = {key: value for key, value in node.items() if key not in dropped and not key.startswith("x-")}
    kept.pop("description", None)
    if "properties" in node:
        kept["properties"] = {name: _part(child, merged=merged) for name, child in node["properties"].items()}
        if not node.get("x-kubernetes-preserve-unknown-fields"):
            kept["additionalProperties"] = False
    elif isinstance(node.get("additionalProperties"), dict):
        kept["additionalProperties"] = _part(node["additionalProperties"], merged=merged)
    if "items" in node:
        kept["items"] = _part(node["items"], merged=False)
    return kept


def _bare(node: Any, wanted: list[str]) -> Any:
    """Without descriptions, references by their last word; whom it refers to is added to `wanted`."""
    match node:
        case {"$ref": str(reference)}:
            wanted.append(reference.rpartition("/")[2])
            return {"$ref": f"#/definitions/{reference.rpartition('.')[2]}"}
        case dict():
            named = {"properties": {name: _bare(child, wanted) for name, child in node.get("properties", {}).items()}}
            rest = {key: _bare(value, wanted) for key, value in node.items() if key not in _NO_SHAPE}
            return {key: value for key, value in (rest | named).items() if value != {} and not key.startswith("x-")}
        case list():
            return [_bare(each, wanted) for each in node]
    return node


@functools.cache
def _known() -> Schema:
    """Kubernetes' definitions, strict ones, of the newest version: the API server knows what an older one lacks."""
    folder = f"kubernetes-json-schema/v{kubernetes_validate.latest_version()}-local-strict"
    path = resources.files("kubernetes_validate").joinpath(folder, "_definitions.json")
    found: Schema = json.loads(path.read_text(encoding="utf-8"))["$defs"]
    return found
