"""Questions to a forge on behalf of items that wait there, asked apart from their steps.

A step asks by its plan; the answer is in memory for the next step, which the item is woken for, and for that one
alone: nothing is decided from what was read earlier. A forge that does not answer costs the items that wait for it
their patience and nobody else a worker: they are told so, and how long to wait before it is asked again.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace

import structlog

from workitems import errors
from workitems.api import WorkItem
from workitems.core.forge import Checks, Question, Reading
from workitems.integrations.forge import Forge

log = structlog.stdlib.get_logger(__name__)

BASE_SECONDS = 10.0
MAX_SECONDS = 300.0
LONGEST_RETRY_AFTER_SECONDS = 3600.0
"""A forge that asks for more is asked again then."""
PATIENCE_SECONDS = 60.0
"""For all requests of one question together."""
CLOCKS_DIFFER_SECONDS = 0.01
"""A timer may ring so much early."""
AT_ONCE = 16
"""Questions under way at the same time."""

ForgeOf = Callable[[str, str], Awaitable[Forge]]
"""The forge of a Repository by namespace and name. Raises Transient and Permanent."""


class Readings:
    """What forges said a moment ago, by item."""

    def __init__(self, forge_of: ForgeOf, wake: Callable[[str], None], monotonic: Callable[[], float]) -> None:
        """Take how to reach a forge, whom to tell of an answer, and a clock in seconds."""
        self._forge_of = forge_of
        self._wake = wake
        self._monotonic = monotonic
        self._answers: dict[str, tuple[Reading, float]] = {}
        """The answer, and until when it stands: an error until the forge may be asked again."""
        self._failures: dict[str, int] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._room = asyncio.Semaphore(AT_ONCE)

    def take(self, key: str) -> Reading | None:
        """The answer to what the item asked last; a good one is given once."""
        answer = self._answers.get(key)
        if answer is None:
            return None
        reading, until = answer
        left = until - self._monotonic()
        if reading.error and left > CLOCKS_DIFFER_SECONDS:
            return replace(reading, again_seconds=left)
        del self._answers[key]
        return None if reading.error else reading

    def ask(self, key: str, item: WorkItem, question: Question | None) -> None:
        """Find out, and wake the item then; None: it wants to know nothing (any more)."""
        if question is None:
            return
        task = self._tasks.get(key)
        if task is not None:
            # Its answer wakes the item, which asks again if it is another question by then.
            return
        self._tasks[key] = asyncio.create_task(self._find_out(key, item, question), name=f"ask {key}")

    def forget(self, key: str) -> None:
        """The item is gone or over."""
        self._answers.pop(key, None)
        self._failures.pop(key, None)

    async def close(self) -> None:
        """Stop asking."""
        tasks = tuple(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _find_out(self, key: str, item: WorkItem, question: Question) -> None:
        try:
            async with self._room, asyncio.timeout(PATIENCE_SECONDS):
                reading = await self._read(item, question)
            self._failures.pop(key, None)
        except errors.Permanent as error:
            reading = self._error(key, question, str(error), reason=error.reason)
        except errors.Transient as error:
            reading = self._error(key, question, str(error), at_least=error.delay_seconds or 0.0)
        except TimeoutError:
            reading = self._error(key, question, f"no answer within {PATIENCE_SECONDS:.0f} s")
        except Exception:
            # Our bug: it must neither end the process nor leave the item waiting for ever.
            log.exception("bug", item=key)
            reading = self._error(key, question, "see the operator's log", reason="OperatorBug")
        finally:
            del self._tasks[key]
        self._answers[key] = (reading, self._monotonic() + reading.again_seconds)
        self._wake(key)

    async def _read(self, item: WorkItem, question: Question) -> Reading:
        forge = await self._forge_of(item.metadata.namespace, item.spec.repository)
        found = await forge.get(question.number) if question.number is not None else None
        head = await forge.head(question.branch) if question.branch else None
        checks = await forge.checks(question.commit) if question.checks else Checks(question.commit)
        reviews = await forge.reviews(question.number) if question.reviews and question.number is not None else ()
        return Reading(question=question, pull_request=found, head=head, checks=checks, reviews=reviews)

    def _error(self, key: str, question: Question, error: str, *, reason: str = "", at_least: float = 0.0) -> Reading:
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        full = min(BASE_SECONDS * 2 ** min(failures - 1, 16), MAX_SECONDS)
        delay = max(full * (0.5 + 0.5 * random.random()), min(at_least, LONGEST_RETRY_AFTER_SECONDS))  # noqa: S311 - spreads load, guards nothing
        log.warning("forge", item=key, error=error, reason=reason, seconds=round(delay, 1))
        return Reading(question=question, error=error, reason=reason, again_seconds=delay)
