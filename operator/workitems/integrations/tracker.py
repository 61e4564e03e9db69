"""What the operator needs from a team's tracker, whatever its name."""

from __future__ import annotations

from typing import Protocol


class Tracker(Protocol):
    """One project on a tracker. All methods raise errors.Transient and errors.Permanent, and may be repeated."""

    async def set_state(self, issue: str, state: str) -> None:
        """Move an issue to a state, named or by id. errors.Permanent StateNotFound lists the states that exist."""

    async def comment(self, issue: str, external_id: str, html: str) -> str:
        """The id of the one comment with `external_id`, created where there is none."""
