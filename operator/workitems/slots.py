"""Who may start a run now: the ledger of concurrent runs, in memory.

A run needs room in every pool it belongs to (its Pipeline's, its Repository's), and the waiting are served by
priority, then age. Which items run is in the cluster and not here: the ledger is rebuilt from their status at the
start (`adopt`), and an item that it forgot would only wait for the next sweep.

The order is kept where it matters and nowhere else: a newcomer must not take room that somebody before it could use
now, but somebody who lacks room in another pool does not hold up the rest. An item that holds a slot and wants its
next run competes by the same order, its own slot counted as free.

For one event loop, and without locks: no method awaits, so that `peek` and a `take` that follows it without an
`await` between them are one step. Every method that may make room returns the keys that can now be admitted;
the caller puts them on the queue.
"""

from __future__ import annotations

import bisect
import collections
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

NAMES_TOLD = 3
"""How many keys `Admission.behind` names before it counts the rest."""

Order = tuple[int, datetime, str]


@dataclass(frozen=True, slots=True)
class Claim:
    """What an item needs for one run: a slot in each pool, given as (name, limit); None is no limit."""

    key: str
    pools: tuple[tuple[str, int | None], ...]
    priority: int
    created: datetime

    @property
    def order(self) -> Order:
        """Smaller goes first: higher priority, then older, then by key so that no two are equal."""
        return (-self.priority, self.created, self.key)


@dataclass(frozen=True, slots=True)
class Admission:
    """Whether a run may start now; if not, the first pool without room, and behind whom the claim waits."""

    granted: bool
    ahead: int = 0
    """Waiting claims on that pool that go first."""
    pool: str | None = None
    limit: int | None = None
    behind: str = ""
    """For people: `team/a, team/b and 3 more`: who holds the pool's slots, then who goes first."""


class Slots:
    """The ledger."""

    def __init__(self) -> None:
        """Start empty: nobody runs, nobody waits."""
        self._holding: dict[str, Claim] = {}
        self._waiting: dict[str, Claim] = {}
        self._used: collections.Counter[str] = collections.Counter()  # pool -> holders
        self._line: list[Order] = []  # of all who wait
        self._lines: dict[str, list[Order]] = {}  # the same by pool

    # --- questions

    @property
    def holding(self) -> int:
        """How many items hold a slot."""
        return len(self._holding)

    @property
    def waiting(self) -> int:
        """How many items wait for one."""
        return len(self._waiting)

    def held(self, key: str) -> bool:
        """Whether this key holds a slot."""
        return key in self._holding

    def peek(self, claim: Claim) -> Admission:
        """Whether this claim may run now. Changes nothing."""
        used = self._used.copy()
        own = self._holding.get(claim.key)
        if own is not None:
            used.subtract(name for name, _limit in own.pools)
        # Without room at all nobody before it needs to be looked at: the usual case when many wait.
        full = _full(claim, used)
        if full is None:
            for _first in self._admissible(used, before=claim):
                pass  # each takes its room from `used`
            full = _full(claim, used)
        if full is None:
            return Admission(granted=True)
        name, limit = full
        holders = [key for key, holder in self._holding.items() if key != claim.key and _in_pool(holder, name)]
        line = self._lines.get(name, [])
        first = list(itertools.islice((key for *_, key in line if key != claim.key), NAMES_TOLD))
        ahead = bisect.bisect_left(line, claim.order)
        stale = self._waiting.get(claim.key)
        if stale is not None and stale.order < claim.order and _in_pool(stale, name):
            ahead -= 1  # nobody waits behind what they asked for earlier
        told = [*holders, *first[:ahead]][:NAMES_TOLD]
        more = len(holders) + ahead - len(told)
        behind = f"{', '.join(told)} and {more} more" if more else ", ".join(told) or "nobody"
        return Admission(granted=False, ahead=ahead, pool=name, limit=limit, behind=behind)

    @property
    def running(self) -> dict[str, int]:
        """Holders by pool, for metrics."""
        return {name: count for name, count in self._used.items() if count}

    @property
    def queued(self) -> dict[str, int]:
        """Waiting claims by pool, for metrics."""
        return {name: len(line) for name, line in self._lines.items()}

    # --- changes

    def take(self, claim: Claim) -> None:
        """Hold a slot, and wait no longer. To be called right after a `peek` that granted it, or by a holder.

        Does not refuse: a run that status announces exists, whatever the ledger would like.
        """
        self._leave(claim.key)
        self._let_go(claim.key)
        self._holding[claim.key] = claim
        self._used.update(name for name, _limit in claim.pools)

    def adopt(self, claim: Claim) -> None:
        """Register a run found at the operator's start, even beyond a limit that was lowered since."""
        self.take(claim)

    def wait(self, claim: Claim) -> list[str]:
        """Stand in line instead of holding a slot. Returns the keys to wake: itself, if room came in the meantime."""
        self._let_go(claim.key)
        self._leave(claim.key)
        self._waiting[claim.key] = claim
        bisect.insort(self._line, claim.order)
        for name in _pools(claim):
            bisect.insort(self._lines.setdefault(name, []), claim.order)
        return self._front()

    def release(self, key: str) -> list[str]:
        """Neither hold nor wait any longer. Returns the keys to wake: those that can be admitted now, in order."""
        left = self._leave(key)
        freed = self._let_go(key)
        return self._front() if left or freed else []

    def _let_go(self, key: str) -> bool:
        claim = self._holding.pop(key, None)
        if claim is None:
            return False
        self._used.subtract(name for name, _limit in claim.pools)
        return True

    def _leave(self, key: str) -> bool:
        claim = self._waiting.pop(key, None)
        if claim is None:
            return False
        _remove(self._line, claim.order)
        for name in _pools(claim):
            _remove(self._lines[name], claim.order)
            if not self._lines[name]:
                del self._lines[name]
        return True

    def _front(self) -> list[str]:
        return [claim.key for claim in self._admissible(self._used.copy())]

    def _admissible(self, used: collections.Counter[str], before: Claim | None = None) -> Iterator[Claim]:
        """Those in line who can run if all before them do, taking their room from `used` one after the other."""
        end = len(self._line) if before is None else bisect.bisect_left(self._line, before.order)
        for _priority, _created, key in itertools.islice(self._line, end):
            claim = self._waiting[key]
            if (before is None or key != before.key) and _full(claim, used) is None:
                used.update(name for name, _limit in claim.pools)
                yield claim


def _full(claim: Claim, used: collections.Counter[str]) -> tuple[str, int] | None:
    """The first pool of the claim that has no room, with its limit."""
    # More holders than the limit (adopted ones) is no room, never a debt.
    return next(((name, limit) for name, limit in claim.pools if limit is not None and used[name] >= limit), None)


def _pools(claim: Claim) -> Iterable[str]:
    return dict.fromkeys(name for name, _limit in claim.pools)


def _in_pool(claim: Claim, pool: str) -> bool:
    return any(name == pool for name, _limit in claim.pools)


def _remove(line: list[Order], order: Order) -> None:
    del line[bisect.bisect_left(line, order)]
