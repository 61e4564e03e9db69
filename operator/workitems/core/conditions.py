"""Phase and conditions, computed from what the step found: declared in one place, so that no two branches disagree.

Ready, Reconciling and Stalled mean what kstatus reads in them: Ready=True is Current, Stalled=True is Failed,
anything else is InProgress. Succeeded appears at the end alone. Their messages are for people: what is the matter,
and the command that continues.

An item that is over names no observedGeneration. Nothing looks at it any more, so nobody would observe an edit of it,
and whoever waits until the newest generation is observed would wait for ever; without one the conditions alone count.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from workitems.api import Condition, Phase, WorkItemStatus
from workitems.protocol import NotFetched

WAITS_FOR_PEOPLE = frozenset({Phase.IN_REVIEW, Phase.NEEDS_INPUT, Phase.BLOCKED, Phase.SUSPENDED})
"""Phases whose time does not count against maxDuration."""

KINDS = ("Ready", "Reconciling", "Stalled", "Succeeded")
FINISHED = frozenset({Phase.DONE, Phase.ABORTED})
FETCHED = "EverythingFetched"
_NOT_FETCHED: dict[NotFetched, str] = {
    "submodules": "submodules, whose folders are empty",
    "lfs": "files in Git LFS, of which there are only the pointers",
}


def apply(status: WorkItemStatus, reason: str, message: str, generation: int, now: datetime) -> WorkItemStatus:
    """The status with conditions for its phase. `reason` and `message` are what Ready says."""
    phase = status.phase
    ready = "True" if phase is Phase.DONE else "False"
    stalled = "True" if phase in (Phase.BLOCKED, Phase.ABORTED) else "False"
    reconciling = "False" if phase in FINISHED or stalled == "True" else "True"
    wanted = [
        ("Ready", ready, reason, message),
        ("Reconciling", reconciling, reason if reconciling == "True" else str(phase), ""),
        ("Stalled", stalled, reason if stalled == "True" else str(phase), message if stalled == "True" else ""),
    ]
    if phase in FINISHED:
        wanted.append(("Succeeded", "True" if phase is Phase.DONE else "False", reason, message))
    observed = observable(status, generation)
    conditions = tuple(_replaced(status.conditions, entry, observed, now) for entry in wanted)
    others = tuple(condition for condition in status.conditions if condition.type not in KINDS)
    return status.model_copy(update={"conditions": (*conditions, *others), "observed_generation": observed})


def stalled(reason: str, message: str) -> list[tuple[str, str, str, str]]:
    """What `put` takes for an item about which nothing can be decided, whatever its phase."""
    return [
        ("Ready", "False", reason, message),
        ("Reconciling", "False", reason, ""),
        ("Stalled", "True", reason, message),
    ]


def observable(status: WorkItemStatus, generation: int) -> int | None:
    """The observedGeneration to write: none once the item is over, see above."""
    return None if status.phase in FINISHED else generation


def fetched(
    status: WorkItemStatus, missing: Collection[NotFetched], generation: int, now: datetime
) -> tuple[Condition, ...]:
    """The conditions, with what the branch has and no run gets: there only while something is missing."""
    if not missing:
        return without(status.conditions, FETCHED)
    parts = " and ".join(_NOT_FETCHED[kind] for kind in missing)
    entry = (FETCHED, "False", "NotFetched", f"what agents and command gates see of the repository lacks {parts}")
    return put(status.conditions, entry, generation, now)


def without(conditions: tuple[Condition, ...], kind: str) -> tuple[Condition, ...]:
    """The conditions but the one of this type."""
    return tuple(condition for condition in conditions if condition.type != kind)


def put(
    conditions: tuple[Condition, ...], entry: tuple[str, str, str, str], generation: int | None, now: datetime
) -> tuple[Condition, ...]:
    """The conditions with one of them, at the end, as `entry` says: its type, status, reason and message."""
    return (*without(conditions, entry[0]), _replaced(conditions, entry, generation, now))


def _replaced(
    conditions: tuple[Condition, ...], entry: tuple[str, str, str, str], generation: int | None, now: datetime
) -> Condition:
    """What takes the place of a condition of its type: `entry` is type, status, reason and message."""
    kind, value, reason, message = entry
    old = next((condition for condition in conditions if condition.type == kind), None)
    # lastTransitionTime moves with the status alone, as the API conventions ask.
    since = old.last_transition_time if old is not None and old.status == value else now
    return Condition(
        type=kind,
        status=value,
        reason=reason,
        message=message,
        observed_generation=generation,
        last_transition_time=since,
    )


def waited(before: WorkItemStatus, after: WorkItemStatus, now: datetime) -> WorkItemStatus:
    """`after` with phaseSince, and with the time that was spent waiting for people added up."""
    if before.phase is after.phase and before.phase_since is not None:
        return after
    seconds = after.waited_seconds
    if before.phase in WAITS_FOR_PEOPLE and before.phase_since is not None and before.started_at is not None:
        seconds += int((now - before.phase_since).total_seconds())
    return after.model_copy(update={"phase_since": now, "waited_seconds": seconds})
