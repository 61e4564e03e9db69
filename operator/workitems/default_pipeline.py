"""The Pipeline that an installation brings along, applied by the operator at its start.

Helm cannot do it: in one release with the CRDs the API server may not know the kind yet. It is an ordinary object that
people edit in the cluster, and an upgrade must not undo that: whoever changed the spec after us owns it from then on,
as `metadata.managedFields` says.
"""

from __future__ import annotations

from pathlib import Path

import structlog
import yaml

from workitems import cluster, errors

log = structlog.get_logger(__name__)

MANAGER = "workitem-operator"
"""The field manager under which the operator applies it."""


async def install(api: cluster.Cluster, namespace: str, file: Path) -> None:
    """Apply the Pipeline in `file` in `namespace`, unless somebody else has edited it there.

    Raises errors.Invalid if the file holds no Pipeline, errors.Permanent if the API server refuses it.
    """
    body = _read(file)
    name = body["metadata"]["name"]
    live = await api.get(cluster.PIPELINES, namespace, name)
    if live is not None and (editors := _editors(live)):
        log.info("pipeline kept", pipeline=f"{namespace}/{name}", edited_by=", ".join(editors))
        return
    body["metadata"]["namespace"] = namespace
    try:
        applied = await api.apply(cluster.PIPELINES, namespace, body, manager=MANAGER)
    except errors.Conflict:
        # Edited between the look and the write: theirs, as if it had been a moment earlier.
        log.info("pipeline kept", pipeline=f"{namespace}/{name}", edited_by="somebody at this moment")
        return
    if live is None or live["metadata"].get("generation") != applied["metadata"].get("generation"):
        log.info("pipeline applied", pipeline=f"{namespace}/{name}", file=str(file))


def _editors(live: cluster.JSONObject) -> list[str]:
    """Who else owns a part of the spec."""
    entries = live["metadata"].get("managedFields") or ()
    others = [entry for entry in entries if entry.get("manager") != MANAGER and "f:spec" in entry.get("fieldsV1", ())]
    return sorted({str(entry.get("manager")) for entry in others})


def _read(file: Path) -> cluster.JSONObject:
    try:
        body = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise errors.Invalid("DefaultPipeline", f"WORKITEMS_DEFAULT_PIPELINE cannot be read: {error}") from error
    if not isinstance(body, dict) or body.get("kind") != "Pipeline" or not (body.get("metadata") or {}).get("name"):
        raise errors.Invalid("DefaultPipeline", f"WORKITEMS_DEFAULT_PIPELINE: {file} holds no Pipeline with a name")
    return body
