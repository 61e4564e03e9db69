"""One error tree, so that nothing is swallowed and every failure says whether waiting helps.

WorkItemsError                 anything this project raises on purpose; its text is a sentence for a person
├── Transient                  may go away by itself: try again after `delay_seconds`
│   ├── Conflict               the object changed since it was read: read again and decide again
│   ├── Expired                the API server has forgotten that moment of its history: begin at the present
│   ├── Undecided              the other side answers that it does not know yet
│   └── Unanswered             nobody knows whether it was carried out: look before it is repeated
└── Permanent                  a person must change something; `reason` is a CamelCase condition reason
    └── Invalid                a manifest or a report that cannot be used as it is

`unreadable.py` has an Invalid of its own, which carries the object.

Raised by I/O modules only: core/ returns values. The worker loop (`queue.py`) turns a Transient into a delayed
retry; a Permanent becomes a condition on the item it belongs to.
"""


class WorkItemsError(Exception):
    """The root of the tree. `str(error)` is one sentence: what is wrong, where, what to do next."""


class Transient(WorkItemsError):  # noqa: N818 - named after what it means for the caller, as in the design
    """Something outside is not answering as it should; the same call may succeed later."""

    def __init__(self, message: str, *, delay_seconds: float | None = None) -> None:
        """Take the sentence and, where the other side named one (Retry-After), the delay in seconds."""
        super().__init__(message)
        self.delay_seconds = delay_seconds


class Conflict(Transient):
    """Our view was stale (HTTP 409): nothing was written; read again at once."""


class Expired(Transient):
    """A list or a watch cannot go on where it was (HTTP 410): what has happened since is not to be had any more."""


class Undecided(Transient):
    """An answer, and yet none: the other side is finding out. Not for ever, where that can be told from being away."""


class Unanswered(Transient):
    """The request left and no answer came, or none that tells: it may have been carried out."""


class Permanent(WorkItemsError):  # noqa: N818 - see Transient
    """Nothing will change until a person acts."""

    def __init__(self, reason: str, message: str) -> None:
        """Take the condition's CamelCase reason and its message."""
        super().__init__(message)
        self.reason = reason


class Invalid(Permanent):
    """A manifest that the API server let through but that cannot be used."""
