"""Kubernetes Events about an item: what `kubectl describe` and an alert show beside the status, which is the truth.

Only what a person would want to be told of: the start, what went wrong, whom the item waits for, the end. A run that
succeeds and a gate that passes make no Event, so that a smooth item costs the API server nothing more. The reasons
are part of the contract, because alerts match them: docs/events.md lists them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Literal

from workitems.api import (
    API_VERSION,
    GateResult,
    ObjectMeta,
    Phase,
    Repository,
    RunResult,
    WorkItem,
    WorkItemStatus,
)
from workitems.core import gates
from workitems.core.stages import CREATED
from workitems.core.transitions import Transition

COMPONENT = "workitem-operator"
MESSAGE_LIMIT = 1024
"""Of an Event's message (Kubernetes, core/v1)."""

Kind = Literal["Normal", "Warning"]
_PHASES: dict[Phase, tuple[Kind, str]] = {
    Phase.IN_REVIEW: ("Normal", "WaitingForApproval"),
    Phase.NEEDS_INPUT: ("Normal", "InputWanted"),
    Phase.BLOCKED: ("Warning", "Blocked"),
    Phase.DONE: ("Normal", "Done"),
    Phase.ABORTED: ("Normal", "Aborted"),
}
_TRACKER = "TrackerFailed"
_TEMPLATES = "TemplatesUnusable"
_UNREADABLE = "Unreadable"
REASONS = (
    "Started",
    *(f"Run{result}" for result in RunResult if result is not RunResult.SUCCEEDED),
    "GateFailed",
    "GateError",
    *(reason for _, reason in _PHASES.values()),
    _TRACKER,
    _TEMPLATES,
    _UNREADABLE,
)
"""Every reason there is."""


def about(item: WorkItem, transition: Transition, after: WorkItemStatus, now: datetime) -> list[dict[str, Any]]:
    """The Events that a written step is worth, as manifests; the same step always gives the same names."""
    return [_event(item, kind, reason, message, now) for kind, reason, message in _words(item, transition, after)]


def _words(item: WorkItem, transition: Transition, after: WorkItemStatus) -> Iterator[tuple[Kind, str, str]]:
    if transition.stage is not None and item.status.stage == CREATED and after.pipeline is not None:
        yield "Normal", "Started", f"started at stage {after.stage} of Pipeline {after.pipeline.name} on {after.branch}"
    for run in transition.finished:
        if run.result is not RunResult.SUCCEEDED:
            where = f"{run.agent} run {run.number} in stage {run.stage}"
            yield "Warning", f"Run{run.result}", f"{where}: {run.message or run.reason or run.result}"
    for gate in transition.gates:
        if gate.result in (GateResult.FAILED, GateResult.ERROR):
            reason = "GateFailed" if gate.result is GateResult.FAILED else "GateError"
            yield "Warning", reason, f"{gate.name} of stage {gate.stage}: {gate.message or gate.reason}"
    # A stage may ask for several approvals, one after the other.
    asked_again = after.phase is Phase.IN_REVIEW and _asked(after) != _asked(item.status)
    if transition.phase in _PHASES or asked_again:
        kind, reason = _PHASES[after.phase]
        ready = next((c.message for c in after.conditions if c.type == "Ready"), "")
        yield kind, reason, ready or reason


def _asked(status: WorkItemStatus) -> tuple[str, str, str | None] | None:
    """What the item asks an approval of: stage, gate, and what that covers."""
    waiting = (gate for gate in status.gates if gate.stage == status.stage and gate.reason == gates.ASKED)
    return next(((gate.stage, gate.name, gate.covers) for gate in waiting), None)


def tracker_failed(repository: Repository, reason: str, message: str, now: datetime) -> dict[str, Any]:
    """The Event about a Repository whose tracker cannot be listened to; the same trouble always has the same name."""
    return _made("Repository", repository.metadata, ("Warning", _TRACKER, f"{reason}: {message}"), now)


def templates_unusable(repository: Repository, message: str, now: datetime) -> dict[str, Any]:
    """The Event about a Repository whose own templates are not used, and nothing that it tells would say so."""
    return _made("Repository", repository.metadata, ("Warning", _TEMPLATES, message), now)


def unreadable(kind: Literal["WorkItem", "Decision"], meta: ObjectMeta, message: str, now: datetime) -> dict[str, Any]:
    """The Event about an object that cannot be read; the same trouble always has the same name."""
    return _made(kind, meta, ("Warning", _UNREADABLE, message), now)


def _event(item: WorkItem, kind: Kind, reason: str, message: str, now: datetime) -> dict[str, Any]:
    # The version that the step was decided on: a step repeated after a lost answer makes no second Event.
    version = item.metadata.resource_version or ""
    return _made("WorkItem", item.metadata, (kind, reason, message), now, version)


def _made(of: str, meta: ObjectMeta, words: tuple[Kind, str, str], now: datetime, version: str = "") -> dict[str, Any]:
    kind, reason, message = words
    parts = (meta.uid, version, reason, message)
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    at = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{meta.name}.{digest}", "namespace": meta.namespace},
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": of,
            "name": meta.name,
            "namespace": meta.namespace,
            "uid": meta.uid,
        },
        "type": kind,
        "reason": reason,
        "message": message if len(message) <= MESSAGE_LIMIT else message[: MESSAGE_LIMIT - 1] + "…",
        "source": {"component": COMPONENT},
        "reportingComponent": COMPONENT,
        "firstTimestamp": at,
        "lastTimestamp": at,
        "count": 1,
    }
