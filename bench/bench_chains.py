"""Twenty items of six no-op stages at once, with real pods: the operator's CPU time a transition, and the wall time.

The scenario in which other controllers have been measured (bench/README.md). CPU time is the operator process's own;
wall time is mostly the node's, which starts 240 containers.

    make bench-chains
"""

from __future__ import annotations

import collections
import shutil
import tempfile
import time
import urllib.request
from datetime import datetime
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bench.bench_stages import STAGES, six_stages
from bench.load.process import usage_of
from tests.e2e.lab import JSON, Lab
from workitems.api import API_VERSION

ITEMS = 20
PATIENCE_SECONDS = 600.0
LOG = Path(tempfile.gettempdir()) / "bench-chains-operator.log"
"""Kept for whoever wants to know what the steps were."""


@pytest.mark.timeout(1500)  # building the images included
def test_twenty_items_at_once(lab: Lab) -> None:
    """Print both."""
    lab.repository()
    lab.pipeline(change=_all_at_once)
    # As it is installed: the tests let it sweep more often.
    lab.operator.settings["WORKITEMS_SWEEP_SECONDS"] = "180"
    lab.operator.restart()
    items = [f"chain-{number:02d}" for number in range(ITEMS)]
    began = time.monotonic()
    before = usage_of(lab.operator.pid, began)
    lab.apply(*(_item(name) for name in items))
    statuses = [lab.wait_phase(name, "Done", PATIENCE_SECONDS) for name in items]
    used = usage_of(lab.operator.pid, began).since(before)
    assert all(len(status["runs"]) == STAGES for status in statuses)
    first = min(datetime.fromisoformat(status["startedAt"]) for status in statuses)
    last = max(datetime.fromisoformat(status["finishedAt"]) for status in statuses)
    transitions = ITEMS * STAGES
    shutil.copy(lab.operator.log, LOG)
    print(f"\n{ITEMS} items of {STAGES} stages: {(last - first).total_seconds():.0f} s")
    print(f"operator: {used.cpu * 1000 / transitions:.1f} ms CPU a transition, {used.rss:.0f} MB")
    print(f"requests a transition: {_requests(lab, transitions)}")
    print(f"it was ready to run and had to wait for a core {used.waited / used.wall:.0%} of the time")


def _requests(lab: Lab, transitions: int) -> str:
    """What the operator has asked the API server for since its start, which began with the items."""
    with urllib.request.urlopen(f"http://127.0.0.1:{lab.operator.port}/metrics", timeout=10) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    asked: collections.Counter[str] = collections.Counter()
    for family in families:
        if family.name == "workitem_api_requests":
            for sample in family.samples:
                asked[f"{sample.labels['verb']} {sample.labels['resource']}"] += int(sample.value)
    parts = ", ".join(f"{what} {count / transitions:.2f}" for what, count in asked.most_common(12))
    return f"{sum(asked.values()) / transitions:.1f} ({parts})"


def _item(name: str) -> JSON:
    return {
        "apiVersion": API_VERSION,
        "kind": "WorkItem",
        "metadata": {"name": name},
        "spec": {"repository": "shop", "title": f"Item {name}"},
    }


def _all_at_once(spec: JSON) -> None:
    six_stages(spec)
    spec["limits"] = {**(spec.get("limits") or {}), "maxConcurrentRuns": ITEMS}
