"""What the operator needs from a channel that tells the team, whatever its name."""

from __future__ import annotations

from typing import Protocol


class Notifier(Protocol):
    """One channel. Sending has no key by which a repetition could be told: the caller sends at most once."""

    async def send(self, html: str) -> str:
        """Send one message, in parts where it is too long; a reference to it.

        Raises errors.Transient only if nothing of it was sent, its kind errors.Unanswered if that is not known, and
        errors.Permanent where it never will be.
        """
