"""What a tracker says, as values: issues, comments, who is who. The modules of `integrations/` translate into these."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

ANOTHER = "#"
"""In an external id: what follows tells it from the same id that somebody else had taken."""
DATES_AGREE = timedelta(seconds=10)
"""Storing a comment takes two writes."""


@dataclass(frozen=True)
class Member:
    """A person of the project."""

    id: str
    email: str = ""
    name: str = ""

    @property
    def called(self) -> str:
        """How a Decision and a person name them."""
        return self.email or self.name or self.id


@dataclass(frozen=True)
class Issue:
    """One issue of the project."""

    id: str
    sequence: int
    """Its number in the project: 12 of ET-12."""
    title: str
    state: str
    """Id of its state."""
    labels: tuple[str, ...] = ()
    """Ids of its labels."""
    description: str = ""
    """HTML, as people wrote it."""
    updated_at: datetime | None = None


@dataclass(frozen=True)
class Comment:
    """One comment on an issue. Nothing but `actor` says who wrote it: the rest may come from whoever called the API."""

    id: str
    actor: str
    created_at: datetime
    """The author's to choose."""
    html: str
    updated_by: str | None = None
    edited_at: datetime | None = None
    external_id: str | None = None
    external_source: str | None = None
    updated_at: datetime | None = None
    """When the tracker stored it last, by its own clock."""

    @property
    def touched(self) -> str | None:
        """Who changed it after it was written, or chose its date, if anybody did."""
        if self.updated_by is not None and self.updated_by != self.actor:
            return "somebody else"
        dated = self.updated_at is not None and abs(self.updated_at - self.created_at) > DATES_AGREE
        return "its author" if dated or self.edited_at is not None else None

    @property
    def said_as(self) -> str:
        """Its external id as it was meant to be."""
        return (self.external_id or "").partition(ANOTHER)[0]

    def says(self, source: str, external_id: str, actor: str) -> bool:
        """Whether it is what `actor` says under `external_id`: anybody may write both ids."""
        return (self.external_source, self.said_as, self.actor) == (source, external_id, actor)


@dataclass(frozen=True)
class StateChange:
    """An entry of the issue's history, which only the tracker itself can write."""

    id: str
    actor: str
    at: datetime
    state: str
    """Id of the new state."""


@dataclass(frozen=True)
class Project:
    """The names and ids of one project."""

    identifier: str
    """ET of ET-12."""
    states: tuple[tuple[str, str], ...]
    """(id, name) of every state."""
    labels: tuple[tuple[str, str], ...] = ()
    me: str = ""
    """Id of the user that the operator's token belongs to."""
