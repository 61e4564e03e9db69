"""Events become keys on the queue, and nothing else: no decision, no write, no read happens in a handler.

kopf watches and reconnects; what it hands over may be stale, doubled or lost, and none of that matters, because the
worker reads for itself and the sweep brings back what was lost. No annotations, no finalizers: with the operator
away, everything can still be deleted. Jobs and pods, which bring most of the events, are `watch.py`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Protocol

import kopf

from workitems import cluster, storages
from workitems.api import GROUP, VERSION


@dataclass(frozen=True)
class Hearers:
    """Who hears of an event before its key is put on the queue."""

    item: Callable[[str], None]
    """Of a WorkItem in this namespace."""
    decision: Callable[[str], None]
    """Of a Decision about the item with this key, not acknowledged yet."""
    repository: Callable[[], None]
    """Of any Repository."""


class Work(Protocol):
    """Where keys are put."""

    def add(self, key: str) -> None:
        """There is news."""

    def add_behind(self, key: str) -> None:
        """There is none, as far as anybody knows."""


class Items(Protocol):
    """What is known of the items that no event tells."""

    @property
    def stranded(self) -> Collection[str]:
        """Keys of those that wait for a reference."""

    def is_echo(self, key: str, version: str) -> bool:
        """Whether this resourceVersion of an item is our own write, after which it was looked at or will be."""


def register(registry: kopf.OperatorRegistry, work: Work, items: Items, hearers: Hearers) -> None:
    """Register the handlers."""
    add = work.add

    async def item_changed(
        namespace: str | None, name: str | None, meta: kopf.Meta, event: kopf.RawEvent, **_: Any
    ) -> None:
        hearers.item(namespace or "")
        key = f"{namespace}/{name}"
        if event["type"] is None:
            # Listed when the watch began: whatever it is, it was so before.
            work.add_behind(key)
        elif not items.is_echo(key, meta["resourceVersion"]):
            add(key)

    async def decision_changed(namespace: str | None, spec: kopf.Spec, status: kopf.Status, **_: Any) -> None:
        if not status.get("result"):
            key = f"{namespace}/{spec.get('workItem')}"
            hearers.decision(key)
            add(key)

    async def reference_changed(**_: Any) -> None:
        for key in tuple(items.stranded):
            add(key)

    async def repository_changed(**_: Any) -> None:
        hearers.repository()
        await reference_changed()

    on_event = kopf.on.event
    on_event(GROUP, VERSION, "workitems", registry=registry)(item_changed)
    on_event(GROUP, VERSION, "decisions", registry=registry)(decision_changed)
    on_event(GROUP, VERSION, "repositories", registry=registry, id="repository_changed")(repository_changed)
    on_event(GROUP, VERSION, "pipelines", registry=registry, id="pipeline_changed")(reference_changed)


def configure(settings: kopf.OperatorSettings) -> None:
    """Make kopf do without everything that writes to objects or asks for more rights than the operator has."""
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.persistence.diffbase_storage = storages.NoDiffBase()
    settings.persistence.progress_storage = storages.NoProgress()
    # What is over is not watched: memory stays flat in the number of finished items.
    settings.watching.field_selectors[GROUP, "workitems"] = cluster.UNFINISHED
