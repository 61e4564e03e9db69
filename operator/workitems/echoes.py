"""Which events of items only say what we have written ourselves.

Every status write comes back as an event, and a look for it would find what the writer knew. The event may be quicker
than the answer to the write, so what arrives while a write is under way is judged when that has ended.

For one event loop; one write of an item at a time.
"""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

OWN_VERSIONS = 4
"""The last resourceVersions of an item that we wrote: an event of one that was forgotten costs a look too many."""


@dataclass
class Write:
    """A write under way."""

    version: str | None = None
    """The item's resourceVersion after it, once it is known; None also where no event will tell of the write."""


class Echoes:
    """The versions of items that are our own."""

    def __init__(self, wake: Callable[[str], None]) -> None:
        """Take whom to tell of an item with news after all."""
        self._wake = wake
        self._own: dict[str, collections.deque[str]] = {}
        self._early: dict[str, set[str]] = {}

    @contextlib.contextmanager
    def writing(self, key: str) -> Iterator[Write]:
        """While inside, the item is being written; whoever writes it sets the version."""
        write, early = Write(), set[str]()
        self._early[key] = early
        try:
            yield write
        finally:
            del self._early[key]
            if write.version in early:
                early.remove(write.version)
                self._own.pop(key, None)
            elif write.version is not None:
                self._own.setdefault(key, collections.deque(maxlen=OWN_VERSIONS)).append(write.version)
            if early:
                self._wake(key)

    def is_echo(self, key: str, version: str) -> bool:
        """Whether an event of this version needs no look: it is our own, or it is judged later; told once."""
        early, own = self._early.get(key), self._own.get(key)
        if own is not None and version in own:
            while own.popleft() != version:
                pass  # events of one object come in order: what is older is not told any more
            if not own:
                del self._own[key]
            return True
        if early is not None:
            early.add(version)
        return early is not None

    def forget(self, key: str) -> None:
        """The item is gone."""
        self._own.pop(key, None)
