"""How a case is written: a sentence, a change to a good manifest, and what the refusal must say."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

API_VERSION = "workitems.dev/v1alpha1"
CONTRACT = Path(__file__).parents[2] / "contract"

Manifest = dict[str, Any]


def contract(name: str) -> list[Manifest]:
    """The manifests of one file of the contract."""
    return list(yaml.safe_load_all((CONTRACT / name).read_text(encoding="utf-8")))


PIPELINE: Manifest = {
    "apiVersion": API_VERSION,
    "kind": "Pipeline",
    "metadata": {"name": "small"},
    "spec": {
        "agents": {"worker": {"command": ["work"]}},
        "stages": [
            {"name": "build", "agent": "worker", "gates": [{"name": "built", "files": ["built.md"]}]},
            {"name": "check", "agent": "worker"},
        ],
    },
}
DECISION: Manifest = {
    "apiVersion": API_VERSION,
    "kind": "Decision",
    "metadata": {"name": "one"},
    "spec": {"workItem": "et-12", "by": "team-lead", "retry": {}},
}
BASES: dict[str, Manifest] = {
    "WorkItem": contract("workitem.yaml")[0],
    "Repository": contract("repository.yaml")[0],
    "Pipeline": PIPELINE,
    "Decision": DECISION,
}


@dataclass(frozen=True)
class Good:
    """A change (JSON merge patch) after which the manifest is still admitted."""

    sentence: str
    kind: str
    patch: Manifest

    @property
    def manifest(self) -> Manifest:
        """The manifest to send."""
        return merged(BASES[self.kind], self.patch)


@dataclass(frozen=True)
class Bad(Good):
    """A change that is refused, naming `field` and saying `words`."""

    field: str
    words: str


def merged(whole: Manifest, patch: Manifest) -> Manifest:
    """RFC 7386: null removes, a list replaces."""
    result = dict(whole)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            inner = result.get(key)
            result[key] = merged(inner if isinstance(inner, dict) else {}, value)
        else:
            result[key] = copy.deepcopy(value)
    return result


def spec(**fields: Any) -> Manifest:
    """A patch of spec."""
    return {"spec": fields}


def agent(**fields: Any) -> Manifest:
    """A patch of the Pipeline's one agent."""
    return {"spec": {"agents": {"worker": fields}}}


def stage(**fields: Any) -> Manifest:
    """The Pipeline's stages are this one alone."""
    return {"spec": {"stages": [{"name": "build", "agent": "worker", **fields}]}}


def gate(**fields: Any) -> Manifest:
    """The Pipeline's one stage has this one gate."""
    return stage(gates=[{"name": "built", **fields}])


def outcome(**fields: Any) -> Manifest:
    """The Pipeline's one gate has this one outcome."""
    return gate(files=["a.md"], onFailure=[fields])
