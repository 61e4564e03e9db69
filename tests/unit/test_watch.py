"""Watches that a server does not serve."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from workitems import cluster
from workitems.memory import Memory
from workitems.watch import PartsWatch


class Shut:
    """An API server on its way down, or a proxy before none: a watch is accepted and ends at once."""

    def __init__(self) -> None:
        self.watches = 0

    async def version(self, *_: Any) -> str:
        return "7"

    async def watch(self, *_: Any, **__: Any) -> AsyncIterator[tuple[str, cluster.JSONObject]]:
        self.watches += 1
        await asyncio.sleep(0)
        nothing: tuple[tuple[str, cluster.JSONObject], ...] = ()
        for event in nothing:
            yield event


async def test_a_watch_that_ends_at_once_is_not_begun_again_at_once() -> None:
    """client-go counts one as an error too (reflector.go, VeryShortWatchError)."""
    api: Any = Shut()
    watch = PartsWatch(api, cluster.PODS, None, lambda: datetime.now(UTC), Memory())
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(watch.run(lambda _key: None, lambda: None), timeout=0.1)
    assert api.watches == 1
