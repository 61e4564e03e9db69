"""What the chart holds a copy of: the CRDs, the default Pipeline, the dashboard, and the schema of its values.

A chart is one folder that is packaged and published; it can refer to nothing outside. So these are copies, written by
`make crds`, and a test compares them with where they come from.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from pydantic.alias_generators import to_camel

from hack.chart import dashboard, shapes
from workitems import crd
from workitems.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "workitem-operator"
DEPLOY = ROOT / "deploy"
PIPELINE = ROOT / "tests" / "contract" / "pipeline-default.yaml"
SCHEMA = Path(__file__).with_name("values.schema.yaml")
COMMAND = "make crds"

OWN_VALUES = {
    *("namespace", "watch_namespaces", "kubeconfig", "context", "runner_image", "agent_image", "image_pull_policy"),
    *("health_port", "default_pipeline", "lease", "identity", "webhook_port", "webhook_url"),
    *("claude_image", "model_secret", "model_api_key", "model_auth_token", "model_base_url"),
}
"""Settings that the chart derives from values of their own; all others are given in `settings`."""


def generated() -> dict[Path, str]:
    """Path in the checkout -> text of every generated file of the chart."""
    crds = {CHART / "files" / "crds" / name: text for name, text in crd.render().items()}
    schema = json.dumps(values_schema(), indent=2) + "\n"
    pipeline = PIPELINE.read_text(encoding="utf-8")
    return {
        **crds,
        CHART / "files" / "pipeline-default.yaml": pipeline,
        CHART / "files" / "dashboard.json": dashboard.text(),
        CHART / "values.schema.json": schema,
        # Beside what plain.py renders, so that a change of the models needs no helm.
        DEPLOY / "crds.yaml": "---\n".join(crds.values()),
    }


def values_schema() -> dict[str, Any]:
    """The JSON schema of the chart's values."""
    schema: dict[str, Any] = yaml.safe_load(SCHEMA.read_text(encoding="utf-8"))
    settings = {
        to_camel(name): {"type": ["string", "number", "boolean"], "description": field.description}
        for name, field in sorted(Settings.model_fields.items())
        if name not in OWN_VALUES
    }
    schema["properties"]["pipelines"]["properties"]["default"]["properties"]["spec"] = shapes.pipeline()
    schema["definitions"] |= shapes.definitions()
    schema["properties"]["settings"] = {"type": "object", "properties": settings, "additionalProperties": False}
    return schema


def write() -> None:
    """Write every generated file. Raises OSError."""
    for path, text in generated().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
