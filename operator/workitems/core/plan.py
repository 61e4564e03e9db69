"""What one step does: at most one status write, what must exist before it, and what it announced.

A Plan is a readable value: tests compare it, the log prints it as one line, `act.py` carries it out. `before` holds
only what may be repeated or left behind without harm; `after` holds what the written status announces, so that after
a kill the next look at the item finds the announcement and does the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from workitems.api import DecisionStatus, WorkItemStatus
from workitems.core.forge import Question


@dataclass(frozen=True)
class EnsureSnapshot:
    """The Pipeline's copy, named by its content and owned by the item."""

    manifest: dict[str, Any]


@dataclass(frozen=True)
class EnsureClaim:
    """The item's worktree volume."""

    manifest: dict[str, Any]


@dataclass(frozen=True)
class CreateJob:
    """The Job of an announced run or gate; an existing one is adopted by the next look."""

    manifest: dict[str, Any]


@dataclass(frozen=True)
class DeleteJob:
    """A Job that must stop, with its pods."""

    name: str


@dataclass(frozen=True)
class ReleaseJobs:
    """The item is over: its Jobs may go after this time."""

    ttl_seconds: int


@dataclass(frozen=True)
class Acknowledge:
    """Tell a Decision what became of it, and hand it to the item for garbage collection."""

    name: str
    uid: str
    status: DecisionStatus


@dataclass(frozen=True)
class CreateDecision:
    """What a person said elsewhere, as a Decision; one that exists already was created by an earlier look."""

    manifest: dict[str, Any]


Action = EnsureSnapshot | EnsureClaim | CreateJob | DeleteJob | ReleaseJobs | Acknowledge | CreateDecision


@dataclass(frozen=True)
class Plan:
    """One step."""

    why: str
    status: WorkItemStatus
    before: tuple[Action, ...] = ()
    after: tuple[Action, ...] = ()
    requeue_seconds: float | None = None
    question: Question | None = None
    """What the next step wants to know of the forge."""

    def __str__(self) -> str:
        """The plan as one log line."""
        names = [_name(action) for action in (*self.before, *self.after)]
        names += [f"ask the forge about {self.question.commit[:12]}"] if self.question is not None else []
        actions = ", ".join(names) or "nothing to do"
        return f"{self.why or 'no change'}: {self.status.stage}/{self.status.phase}: {actions}"


def _name(action: Action) -> str:
    match action:
        case CreateJob(manifest) | EnsureClaim(manifest) | EnsureSnapshot(manifest) | CreateDecision(manifest):
            return f"{type(action).__name__} {manifest['metadata']['name']}"
        case DeleteJob(name) | Acknowledge(name):
            return f"{type(action).__name__} {name}"
        case _:
            return type(action).__name__
