"""A bad day of the API server: refusals, lost answers, cut watches, forgotten history, restarts and deafness, at once.

Only the operator meets the refusals (fault_proxy.py); the restarts are everybody's. All along several items are under
way, each with one rework. What must be true afterwards is told by witnesses that the operator cannot talk to.
"""

from __future__ import annotations

import random
import time

import pytest

from hack.cluster.local import LocalCluster
from tests.e2e.evidence import REWORKED, audited, nothing_twice, reworked
from tests.e2e.fault_proxy import FaultProxy
from tests.e2e.lab import PATIENCE_SECONDS, Lab, until

pytestmark = [pytest.mark.e2e, pytest.mark.alone]

ITEMS = [f"item-{n}" for n in range(4)]
LATE = [f"late-{n}" for n in range(2)]
DEAF_SECONDS = 120


@pytest.mark.timeout(2400)
def test_a_bad_day_of_the_api_server_loses_nothing_and_does_nothing_twice(lab: Lab, subtests: pytest.Subtests) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    git = lab.repository()
    lab.pipeline()
    operator = lab.operator
    with (
        FaultProxy(operator.kubeconfig, seed) as proxy,
        operator.differently(proxy.kubeconfig, WORKITEMS_SWEEP_SECONDS="10"),
    ):
        proxy.rate = 0.1
        for name in ITEMS:
            lab.item(name, reworked())
        for name in ITEMS:
            lab.approve(name)
        _restart_api_server(lab)
        until(lambda: proxy.watching, "watched again")
        proxy.cut_watches()
        lab.wait(ITEMS[0], lambda s: s.get("stage") not in ("created", "analysis", "architecture"), "development")
        until(lambda: proxy.watching, "watched again")
        proxy.forget_history()
        _restart_api_server(lab)

        # From here on no event arrives: the sweep brings back what happened.
        proxy.deaf = True
        began = time.monotonic()
        for name in LATE:
            lab.item(name, reworked())
        for name in LATE:
            lab.approve(name)
        for name in (*ITEMS, *LATE):
            lab.wait_phase(name, "Done", seconds=PATIENCE_SECONDS * 2)
        # Whoever was quick was not lucky: it stays deaf for as long as it was said to.
        time.sleep(max(0.0, DEAF_SECONDS - (time.monotonic() - began)))
        proxy.deaf = False
    counts = dict(proxy.counts)
    print(f"{counts}; the operator ended {operator.ended} times by itself")
    assert {kind for kind, count in counts.items() if count} >= {"409", "429", "500", "lost", "swallowed", "410", "cut"}
    wrong = sum(counts[kind] for kind in ("409", "429", "500", "lost"))
    # A tenth of six hundred requests or more: a third of that never falls short by chance.
    assert wrong > 20
    assert wrong > 0.03 * counts["passed"]

    for name in (*ITEMS, *LATE):
        nothing_twice(lab, git, name, REWORKED)
    with subtests.test("the audit log and the restarts"):
        if not isinstance(lab.cluster, LocalCluster):
            pytest.skip("only the local cluster lets a test restart its API server and read its audit log")
        assert counts["away"], "nobody noticed that the API server was away"
        assert audited(lab, dict.fromkeys((*ITEMS, *LATE), REWORKED)) >= 60


def _restart_api_server(lab: Lab) -> None:
    if isinstance(lab.cluster, LocalCluster):
        lab.cluster.restart_api_server()
