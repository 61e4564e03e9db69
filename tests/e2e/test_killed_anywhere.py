"""The operator killed again and again while eight items are under way: nothing is lost, nothing happens twice.

`make test` kills it 8 times; `make soak` (SOAK_KILLS=40) for as long as CI cannot wait. The moments are random on
purpose, with the seed in the output: what a kill between two given lines does, tests/loop tries exhaustively.
"""

from __future__ import annotations

import collections
import itertools
import json
import os
import random
import threading
import time
from datetime import datetime
from typing import Any

import pytest

from tests.e2e.lab import PATIENCE_SECONDS, Git, Lab

pytestmark = [pytest.mark.e2e, pytest.mark.alone]

ITEMS = 8
KILLS = int(os.environ.get("SOAK_KILLS", "8"))
STAGES = ["analysis", "architecture", "development", "review", "testing", "deploy"]


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
            # Each is sent back once: a rework is where counting goes wrong.
            lab.item(name, {"review": [{"write": {"{docs}/12-review.md": "Verdict: REQUEST_CHANGES\n"}}, _approved()]})
        killer = _Killer(lab, random.Random(seed + number), KILLS // rounds)
        killer.start()
        for name in names:
            lab.approve(name)
        killer.join()
        assert killer.failure is None, killer.failure
        killed += killer.kills
        for name in names:
            status = lab.wait_phase(name, "Done", seconds=PATIENCE_SECONDS * 2)
            _nothing_twice(lab, git, name, status)
    assert killed == KILLS // rounds * rounds


def _approved() -> dict[str, Any]:
    return {"write": {"{docs}/12-review.md": "Verdict: APPROVED\n"}}


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


def _nothing_twice(lab: Lab, git: Git, name: str, status: dict[str, Any]) -> None:
    """No run had two Jobs, no two runs overlapped, no commit was pushed twice, no gate was passed over."""
    jobs = json.loads(lab.kubectl("get", "jobs", "-l", f"workitems.dev/item={name},!workitems.dev/gate", "-o", "json"))
    numbers = collections.Counter(job["metadata"]["labels"]["workitems.dev/run"] for job in jobs["items"])
    assert {number: count for number, count in numbers.items() if count > 1} == {}

    pods = json.loads(lab.kubectl("get", "pods", "-l", f"workitems.dev/item={name},!workitems.dev/gate", "-o", "json"))
    spans = sorted(_span(pod) for pod in pods["items"])
    assert len(spans) == len(jobs["items"]), "a Job had more than one pod"
    overlapping = [(one, two) for one, two in itertools.pairwise(spans) if two[0] < one[1]]
    assert overlapping == []

    pushed = [push["new"] for push in git.pushes() if push["ref"] == f"refs/heads/workitem/{name}"]
    assert len(pushed) == len(set(pushed))
    subjects = git.subjects(f"workitem/{name}")
    assert len(subjects) == len(set(subjects)), "a run was committed twice"

    assert status["stage"] == "done"
    assert {gate["result"] for gate in status["gates"]} <= {"Passed", "Skipped"}
    done = [run["stage"] for run in status["runs"] if run["result"] == "Succeeded"]
    assert done == [*STAGES[:4], *STAGES[2:]], "one rework, every stage once or twice, none passed over"


def _span(pod: dict[str, Any]) -> tuple[datetime, datetime]:
    """From the first container's start to the last one's end."""
    states = [status["state"]["terminated"] for status in pod["status"]["containerStatuses"]]
    started = min(datetime.fromisoformat(state["startedAt"]) for state in states)
    return started, max(datetime.fromisoformat(state["finishedAt"]) for state in states)
