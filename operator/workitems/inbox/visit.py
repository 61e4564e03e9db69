"""What all parts of a look share: whom to tell, what earlier looks found, and how one failure stays one failure."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import structlog

from workitems import errors
from workitems.api import Repository, WorkItem
from workitems.api.integrations import PlaneTracker
from workitems.core import events
from workitems.integrations.plane import PlaneProject

log = structlog.stdlib.get_logger(__name__)

Again = Callable[[str, float], None]
"""Takes an issue's id and after how many seconds to look at it again."""


@dataclass(frozen=True)
class Tell:
    """Whom an inbox tells what it has done or found."""

    wake: Callable[[str], None]
    """Takes the key of an item that has news."""
    event: Callable[[dict[str, Any]], None]
    """Takes the manifest of an Event about something that a person must mend."""
    now: Callable[[], datetime]

    async def carefully(self, repository: Repository, look: Awaitable[None]) -> bool:
        """Whether it went well; what fails is told, and no reason not to look at the rest."""
        where = f"{repository.metadata.namespace}/{repository.metadata.name}"
        try:
            await look
        except errors.WorkItemsError as error:
            reason = error.reason if isinstance(error, errors.Permanent) else ""
            log.warning("tracker", repository=where, reason=reason, error=str(error))
            if reason:
                self.event(events.tracker_failed(repository, reason, str(error), self.now()))
        except Exception:
            # Our bug: it must neither end the process nor keep the other trackers waiting.
            log.exception("bug", repository=where)
        else:
            return True
        return False


@dataclass
class Seen:
    """What earlier looks at one project found: it saves requests, and nothing depends on it."""

    plane: PlaneTracker
    """By this it was found: where another project is named, or other issues are wanted, it counts for nothing."""
    until: datetime | None = None
    """All changes before this moment have been looked at."""
    states: dict[str, str] = field(default_factory=dict)
    """The state that each issue was in last."""
    taken: set[str] = field(default_factory=set)
    """Issues that have become WorkItems."""
    queue: dict[str, str] = field(default_factory=dict)
    """Issues that are to be taken, or could not be, in the order of their turns; with the refusal that was said."""
    looked: dict[str, float] = field(default_factory=dict)
    """When an item's issue was looked at, by the item's uid."""


@dataclass(frozen=True)
class Visit:
    """One look at one project."""

    repository: Repository
    plane: PlaneTracker
    project: PlaneProject
    seen: Seen
    again: Again


def issue_of(item: WorkItem) -> str:
    """Id of the item's issue; "": it has none."""
    return item.spec.external_ref.id if item.spec.external_ref is not None else ""
