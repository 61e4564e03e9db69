"""The operator killed again and again while eight items are under way: nothing is lost, nothing happens twice.

`make test` kills it 8 times; `make soak` (SOAK_KILLS=40) for as long as CI cannot wait. The moments are random on
purpose, with the seed in the output: what a kill between two given lines does, tests/loop tries exhaustively.
"""

from __future__ import annotations

import os
import random
import threading
import time

import pytest

from hack.cluster.local import LocalCluster
from tests.e2e.evidence import REWORKED, audited, nothing_twice, reworked
from tests.e2e.lab import PATIENCE_SECONDS, Lab

pytestmark = [pytest.mark.e2e, pytest.mark.alone]

ITEMS = 8
KILLS = int(os.environ.get("SOAK_KILLS", "8"))


@pytest.mark.timeout(KILLS * 60 + 900)
def test_eight_items_survive_an_operator_that_is_killed_at_random(lab: Lab) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}, {KILLS} kills")
    git = lab.repository()
    lab.pipeline()
    killed = 0
    rounds = max(KILLS // 8, 1)
    for number in range(rounds):
        names = [f"item-{number}-{n}" for n in range(ITEMS)]
        for name in names:
            lab.item(name, reworked())
        killer = _Killer(lab, random.Random(seed + number), KILLS // rounds)
        killer.start()
        for name in names:
            lab.approve(name)
        killer.join()
        assert killer.failure is None, killer.failure
        killed += killer.kills
        for name in names:
            lab.wait_phase(name, "Done", seconds=PATIENCE_SECONDS * 2)
            nothing_twice(lab, git, name, REWORKED)
    assert killed == KILLS // rounds * rounds
    if isinstance(lab.cluster, LocalCluster):
        everyone = [f"item-{number}-{n}" for number in range(rounds) for n in range(ITEMS)]
        print(f"{audited(lab, dict.fromkeys(everyone, REWORKED))} Jobs in the audit log")


class _Killer(threading.Thread):
    """SIGKILLs the operator at random moments and starts it again, so many times."""

    def __init__(self, lab: Lab, chance: random.Random, times: int) -> None:
        super().__init__(daemon=True)
        self._lab, self._chance, self._times = lab, chance, times
        self.kills = 0
        self.failure: str | None = None

    def run(self) -> None:
        for _ in range(self._times):
            # Not waiting for anything: a moment that nobody chose is the point.
            time.sleep(self._chance.uniform(0.5, 6))
            try:
                self._lab.operator.restart()
            except AssertionError as error:
                self.failure = str(error)
                return
            self.kills += 1
