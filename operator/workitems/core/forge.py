"""What a forge says about a branch, as values: pull requests, checks, the outcome of a merge.

Every forge words these things differently; the modules of `integrations/` translate into these words, and everything
that decides knows only them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Literal


@dataclass(frozen=True)
class PullRequest:
    """One pull request of the item's branch into its base."""

    number: int
    url: str
    state: Literal["open", "merged", "closed"]
    head: str
    """The commit that the forge has for its head branch; of a merged one, the commit that was merged."""
    base: str
    """Name of the base branch."""
    merge_commit: str | None = None
    mergeable: bool | None = None
    """None: the forge has not found out yet."""


@dataclass(frozen=True)
class Check:
    """The newest status of one context at one commit."""

    context: str
    state: Literal["success", "failure", "pending"]
    url: str = ""
    description: str = ""


@dataclass(frozen=True)
class Checks:
    """All contexts of one commit, each once, with its newest status; none: nobody has reported anything."""

    commit: str
    contexts: tuple[Check, ...] = ()


@dataclass(frozen=True)
class Commit:
    """One commit, as a person recognises it."""

    id: str
    subject: str
    """The first line of its message."""
    author: str = ""
    files: tuple[str, ...] = ()
    """What it touched, where the forge says so."""


@dataclass(frozen=True)
class Review:
    """A person's review in the forge: the newest of each reviewer that is an approval or a request for changes."""

    id: int
    user: str
    state: Literal["approved", "changes_requested"]
    commit: str
    body: str
    submitted_at: datetime


@dataclass(frozen=True)
class Question:
    """What an item wants to know of its forge: its pull request, its branch, and the checks of one commit."""

    number: int | None
    """None: it has no pull request yet, or needs none for this."""
    commit: str
    branch: str = ""
    """Whose head is wanted; empty: the pull request's will do."""
    checks: bool = True
    """Whether the checks of the commit are wanted."""
    reviews: bool = False
    """Whether people's reviews of the pull request count for anything now."""


@dataclass(frozen=True)
class Reading:
    """The forge's answer to a Question, or why there is none."""

    question: Question
    pull_request: PullRequest | None = None
    head: str | None = None
    """Of the branch that was asked for; None: there is no such branch, or nobody asked."""
    checks: Checks = field(default_factory=lambda: Checks(""))
    reviews: tuple[Review, ...] = ()
    error: str = ""
    """A sentence; empty: the forge has answered."""
    reason: str = ""
    """Of an error that a person must mend; empty: the forge is away."""
    again_seconds: float = 0.0
    """When to ask again, after an error."""


class MergeResult(StrEnum):
    """How an attempt to merge ended; an attempt that got no answer is errors.Transient and has no result."""

    MERGED = "Merged"
    HEAD_MOVED = "HeadMoved"
    """The head is not the commit that was named: nothing was merged."""
    CONFLICT = "Conflict"
    """The branch does not merge into its base, or (fast-forward-only) the base has commits that it lacks."""
    REFUSED = "Refused"
    """The forge's own rules forbid it: protection, required approvals, a closed pull request."""


@dataclass(frozen=True)
class MergeOutcome:
    """The end of one attempt to merge."""

    result: MergeResult
    commit: str | None = None
    """The merge commit, where it was merged."""
    head: str | None = None
    """What was merged, where that was asked for; None: somebody else has merged, and the pull request says what."""
    message: str = ""
    """What the forge said, cut, for a person."""
    branch_kept: str = ""
    """Why a branch that was to be deleted is still there."""
