"""The Pipeline that an installation brings along, applied by the operator at its start.

Helm cannot do it: in one release with the CRDs the API server may not know the kind yet. It is an ordinary object that
people edit in the cluster, and an upgrade must not undo that: whoever changed the spec after us owns it from then on.
What was added or changed has another owner in `metadata.managedFields`. What was removed, or moved in a list, has none,
so an annotation says what we applied. Not a digest of what the object then was: a release may bring defaults with its
CRDs, and those are nobody's edit.

A mistake in it must not stop the items that are under way: what is live stays, and the log says what is wrong.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import structlog
import yaml

from workitems import cluster, errors

log = structlog.get_logger(__name__)

MANAGER = "workitem-operator"
"""The field manager under which the operator applies it."""
APPLIED = "workitems.dev/applied-spec"
"""The annotation that holds, as JSON, the spec that the operator has applied."""
AGAIN_SECONDS = 30.0
"""Between two attempts. A field that the API server does not know is answered like a failure of its own (500)."""

Sleep = Callable[[float], Awaitable[object]]


class Installation:
    """Applies `file` (None: there is none) in `namespace` once, and again for as long as that may help."""

    def __init__(self, api: cluster.Cluster, namespace: str, file: str | None, sleep: Sleep = asyncio.sleep) -> None:
        """Nothing is done yet."""
        self._api = api
        self._namespace = namespace
        self._file = Path(file) if file is not None else None
        self._sleep = sleep

    async def attempt(self) -> None:
        """Try once; the log says why it was refused."""
        if self._file is None:
            return
        again = False
        try:
            await install(self._api, self._namespace, self._file)
        except errors.WorkItemsError as error:
            again = isinstance(error, errors.Transient)
            # No bug, so no traceback.
            log.error("pipeline not applied", file=str(self._file), error=str(error), tried_again=again)  # noqa: TRY400
        if not again:
            self._file = None

    async def run(self) -> None:
        """Return once nothing is left to try."""
        while self._file is not None:
            await self._sleep(AGAIN_SECONDS)
            await self.attempt()


async def install(api: cluster.Cluster, namespace: str, file: Path) -> None:
    """Apply the Pipeline in `file` in `namespace`, unless somebody else has edited it there.

    Raises errors.Invalid if the file holds no Pipeline, errors.Permanent or Transient if the API server refuses it.
    """
    body = _read(file)
    name = body["metadata"]["name"]
    where = f"{namespace}/{name}"
    live = await api.get(cluster.PIPELINES, namespace, name)
    if live is not None and (edit := _edit(live)):
        log.info("pipeline kept", pipeline=where, edited=edit)
        return
    body["metadata"] |= {
        "namespace": namespace,
        "annotations": {APPLIED: json.dumps(body.get("spec"), separators=(",", ":"))},
    }
    try:
        applied = await api.apply(cluster.PIPELINES, namespace, body, manager=MANAGER)
    except errors.Conflict:
        # Edited between the look and the write: theirs, as if it had been a moment earlier.
        log.info("pipeline kept", pipeline=where, edited="at this moment")
        return
    if live is None or live["metadata"].get("generation") != applied["metadata"].get("generation"):
        log.info("pipeline applied", pipeline=where, file=str(file))


def _edit(live: cluster.JSONObject) -> str:
    """How it is no longer what we applied; empty: it is."""
    metadata = live["metadata"]
    others = {
        str(entry.get("manager"))
        for entry in metadata.get("managedFields") or ()
        if entry.get("manager") != MANAGER and "f:spec" in entry.get("fieldsV1", ())
    }
    if others:
        return f"by {', '.join(sorted(others))}"
    try:
        applied = json.loads((metadata.get("annotations") or {})[APPLIED])
    except (KeyError, ValueError):
        return f"there before, or without its annotation {APPLIED}"
    return "" if _holds(live.get("spec"), applied) else "something was removed or moved"


def _holds(live: Any, applied: Any) -> bool:
    """Whether all that was applied is still there; more fields are defaults, as others' have an owner."""
    match applied:
        case dict():
            return isinstance(live, dict) and all(
                key in live and _holds(live[key], value) for key, value in applied.items()
            )
        case list():
            return isinstance(live, list) and len(live) == len(applied) and all(map(_holds, live, applied))
    return bool(live == applied)


def _read(file: Path) -> cluster.JSONObject:
    try:
        body = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise errors.Invalid("DefaultPipeline", f"WORKITEMS_DEFAULT_PIPELINE cannot be read: {error}") from error
    if not isinstance(body, dict) or body.get("kind") != "Pipeline" or not (body.get("metadata") or {}).get("name"):
        raise errors.Invalid("DefaultPipeline", f"WORKITEMS_DEFAULT_PIPELINE: {file} holds no Pipeline with a name")
    return body
