"""Events become keys on the queue, and nothing else: no decision, no write, no read happens in a handler.

kopf watches and reconnects; what it hands over may be stale, doubled or lost, and none of that matters, because the
worker reads for itself and the sweep brings back what was lost. No annotations, no finalizers: with the operator
away, everything can still be deleted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import kopf

from workitems import cluster, storages
from workitems.api import GROUP, VERSION
from workitems.protocol import ITEM_LABEL

Add = Callable[[str], None]
Heard = Callable[[str], None]
"""Takes the namespace of a WorkItem of which an event came."""


def register(registry: kopf.OperatorRegistry, add: Add, stranded: Callable[[], Collection[str]], heard: Heard) -> None:
    """Register the handlers: `add` takes a key, `stranded` names the items that wait for a reference."""

    async def item_changed(namespace: str | None, name: str | None, **_: Any) -> None:
        heard(namespace or "")
        add(f"{namespace}/{name}")

    async def decision_changed(namespace: str | None, spec: kopf.Spec, status: kopf.Status, **_: Any) -> None:
        if not status.get("result"):
            add(f"{namespace}/{spec.get('workItem')}")

    async def part_changed(namespace: str | None, labels: kopf.Labels, **_: Any) -> None:
        add(f"{namespace}/{labels[ITEM_LABEL]}")

    async def reference_changed(**_: Any) -> None:
        for key in tuple(stranded()):
            add(key)

    on_event = kopf.on.event
    on_event(GROUP, VERSION, "workitems", registry=registry)(item_changed)
    on_event(GROUP, VERSION, "decisions", registry=registry)(decision_changed)
    on_event(GROUP, VERSION, "repositories", registry=registry, id="repository_changed")(reference_changed)
    on_event(GROUP, VERSION, "pipelines", registry=registry, id="pipeline_changed")(reference_changed)
    # The Pod's end is the signal: the Job controller reports the same one to three seconds later.
    labels = {ITEM_LABEL: kopf.PRESENT}
    on_event("batch", "v1", "jobs", labels=labels, registry=registry, id="job_changed")(part_changed)
    on_event("v1", "pods", labels=labels, registry=registry, id="pod_changed")(part_changed)


def configure(settings: kopf.OperatorSettings) -> None:
    """Make kopf do without everything that writes to objects or asks for more rights than the operator has."""
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.persistence.diffbase_storage = storages.NoDiffBase()
    settings.persistence.progress_storage = storages.NoProgress()
    # What is over is not watched: memory stays flat in the number of finished items.
    settings.watching.field_selectors[GROUP, "workitems"] = cluster.UNFINISHED
    settings.watching.label_selectors["", "pods"] = ITEM_LABEL
    settings.watching.label_selectors["batch", "jobs"] = ITEM_LABEL
