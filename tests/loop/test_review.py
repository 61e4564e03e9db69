"""What the review found."""

from __future__ import annotations

import asyncio
import gc
import random
from typing import Any

import pytest

from tests.loop.lab import NAMESPACE, Lab
from tests.loop.store import PODS, WORKITEMS
from tests.loop.test_forge import prepare
from tests.loop.test_watch import _a_run_that_is_left_alone, _no_item_can_be_read
from workitems.core.forge import Check
from workitems.echoes import Echoes


async def test_d4_last_word_and_an_older_pod(lab: Lab) -> None:
    await _a_run_that_is_left_alone(lab, sweep_seconds=86400)
    pod = next(iter(lab.store.list(PODS)))
    older = {**pod, "metadata": {**pod["metadata"], "name": "older", "uid": "older-uid"}}
    reference = {**pod["metadata"]["ownerReferences"][0], "uid": lab.store.get(WORKITEMS, NAMESPACE, "et-1")["metadata"]["uid"]}
    older["metadata"]["creationTimestamp"] = "2026-11-22T13:00:00Z"
    older["metadata"]["ownerReferences"] = [reference]
    older["status"] = {"phase": "Succeeded"}
    lab.store.put(PODS, older)
    await lab.rest(5)
    lab.server.fault = _no_item_can_be_read
    disrupted = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
    ended = {"terminated": {"exitCode": 143, "reason": "Error", "message": ""}}
    containers = [{"name": "agent", "state": ended}, {"name": "runner", "state": ended}]
    status = {"phase": "Failed", "conditions": [disrupted], "containerStatuses": containers}
    lab.store.put(PODS, {**pod, "status": status})
    lab.store.delete(PODS, NAMESPACE, pod["metadata"]["name"])
    lab.store.remove(PODS, lab.store.get(PODS, NAMESPACE, "older"))
    await lab.rest(1)
    lab.server.fault = lambda _call: None
    lab.kubelet.holds = lambda _job: False
    await lab.rest(5)
    assert [(run.result, run.reason) for run in lab.status("et-1").runs][:1] == [("Evicted", "Evicted")], lab.told()


async def test_d6_a_version_whose_event_was_lost_in_a_gap_of_the_watch(lab: Lab) -> None:
    lab.repository()
    lab.pipeline()
    lab.approve_always()
    lab.start()
    await lab.rest(5)
    lab.server.deaf = True
    lab.item("et-1")
    await lab.until(lambda: bool(lab.status("et-1").run and lab.status("et-1").run.job_uid), "a run")
    lab.store.version += 1
    lab.store.compact()
    lab.server.deaf = False
    lab.server.cut_watches()
    await lab.until_phase("Done", "et-1")
    await lab.rest(3600)
    kept = [each._own for each in _all(Echoes) if each._own]
    assert kept == []


async def test_d3_a_look_meanwhile_does_not_put_off_the_next_question(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(random, "random", lambda: 1.0)
    prepare(lab)
    lab.forge.reports = lambda _commit: [Check("build", "pending")]
    lab.start(sweep_seconds=86400)
    await lab.until(lambda: lab.ready("et-1")[0] == "WaitingForChecks", "the wait")
    await lab.rest(60)
    asked: list[float] = []
    clock = asyncio.get_running_loop().time

    async def note() -> None:
        asked.append(clock())

    lab.forge.hang = note
    lab.forge.away = "no answer"
    await lab.rest(3600)
    count = len(asked)
    while len(asked) == count:
        await lab.rest(1)
    last = asked[-1]
    await lab.rest(290)
    lab.store.patch(WORKITEMS, NAMESPACE, "et-1", {"metadata": {"labels": {"a": "b"}}})
    await lab.rest(600)
    assert next(a for a in asked if a > last) - last < 330


def _all(kind: Any) -> list[Any]:
    gc.collect()
    return [each for each in gc.get_objects() if isinstance(each, kind)]
