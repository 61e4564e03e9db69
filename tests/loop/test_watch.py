"""What the operator hears of Jobs and pods: at once, nothing twice, and without reading what is over."""

from __future__ import annotations

import asyncio

import pytest

from tests.loop.apiserver import Call
from tests.loop.lab import NAMESPACE, Lab
from tests.loop.store import JOBS, JSON, PODS, WORKITEMS, Refused
from workitems.api import Repository
from workitems.core import runs
from workitems.memory import Memory


async def test_a_whole_way_takes_about_two_looks_and_two_writes_a_job(lab: Lab) -> None:
    """A pod's start, a dozen events, is no reason to look, nor is the echo of an own write."""
    lab.repository()
    lab.pipeline()
    lab.approve_always()
    lab.start()
    lab.item("et-1")
    await lab.until_phase("Done", "et-1")
    jobs = len(lab.jobs("et-1"))
    looks = [call for call in lab.server.calls if (call.kind, call.verb) == (WORKITEMS, "get")]
    assert jobs > 6
    # Each Job's end, and before it the look that comes by itself after 20 s; two at the start, the approval, the end.
    assert len(looks) <= 2 * jobs + 8, [str(call) for call in lab.server.calls]
    assert len(lab.writes("et-1")) <= 2 * jobs + 3


async def test_the_good_end_of_a_run_costs_one_read_of_the_item(lab: Lab) -> None:
    """The pod's end is final, and nobody has decided anything or changed the Repository: an event would have told."""
    await _a_run_that_is_left_alone(lab, sweep_seconds=86400)
    before, runs = len(lab.server.calls), lab.status("et-1").last_run
    lab.approve_always()
    lab.kubelet.release()
    await lab.until(lambda: len(lab.status("et-1").runs) == runs, "its end")
    reads = [str(call) for call in lab.server.calls[before:] if call.verb in ("get", "list") and not call.writes]
    assert reads[0] == "get workitems et-1"
    others = ("get repositories", "get jobs", "get pods", "list pods")
    assert not [read for read in reads if read.startswith(others)], reads


@pytest.mark.parametrize("what", ["an abort", "a repository without room"])
async def test_what_was_known_is_read_again_after_a_sweep_where_no_event_tells(lab: Lab, what: str) -> None:
    await _a_run_that_is_left_alone(lab, sweep_seconds=600)
    lab.server.deaf = True
    if what == "an abort":
        lab.decide("et-1", "abort")
        await lab.until_phase("Aborted", "et-1")
    else:
        # The look at the second item reads what the first one's looks knew.
        lab.repository(limits={"maxConcurrentRuns": 1})
        lab.item("et-2")
        await lab.until_phase("Queued", "et-2")


def test_a_repository_that_changes_while_it_is_read_is_read_again() -> None:
    """What was read before an event must not be kept after it."""
    memory = Memory()
    news = memory.repository_news
    memory.repositories_changed()
    shop = Repository.parse(
        {
            "metadata": {"name": "shop", "namespace": "team-a", "uid": "u", "generation": 1},
            "spec": {"url": "https://git.example.com/shop.git", "baseBranch": "main"},
        }
    )
    memory.repository_read(shop, news)
    assert memory.repository("team-a", "shop") is None
    memory.repository_read(shop, memory.repository_news)
    assert memory.repository("team-a", "shop") is shop


@pytest.mark.slow
async def test_finished_jobs_are_not_read_at_a_start(lab: Lab) -> None:
    lab.repository()
    lab.pipeline()
    lab.approve_always()
    lab.start()
    lab.item("et-1")
    await lab.until_phase("Done", "et-1")
    await lab.rest()
    before = len(lab.server.calls)
    await lab.restart()
    await lab.rest(3600)
    read = [c for c in lab.server.calls[before:] if c.kind in (JOBS, PODS) and c.verb in ("get", "list")]
    assert {call.query.get("limit") for call in read} == {"1"}
    assert all(call.name == "" for call in read)


async def test_an_end_in_a_part_of_history_that_is_forgotten_is_found_at_once(lab: Lab) -> None:
    """The pod ends while the watch is deaf; then the API server no longer knows where the watch was."""
    await _a_run_that_is_left_alone(lab, sweep_seconds=86400)
    lab.server.deaf = True
    lab.kubelet.release()
    await lab.rest(3)
    lab.store.version += 1
    lab.store.compact()
    lab.server.deaf = False
    ended = asyncio.get_running_loop().time()
    lab.server.cut_watches()
    await lab.until(lambda: lab.phase("et-1") == "InReview", "the next step")
    assert asyncio.get_running_loop().time() - ended < 5


async def test_the_last_word_of_an_evicted_pod_outlives_the_pod(lab: Lab) -> None:
    """It is gone a second after its end, and the report and the reason with it: a look that comes later knows both."""
    await _a_run_that_is_left_alone(lab, sweep_seconds=86400)
    pod = next(iter(lab.store.list(PODS)))
    lab.server.fault = _no_item_can_be_read
    _evict(lab, pod)
    await lab.until(lambda: lab.store.find(PODS, NAMESPACE, pod["metadata"]["name"]) is None, "its end")
    lab.server.fault = lambda _call: None
    lab.kubelet.holds = lambda _job: False
    await lab.until(lambda: bool(lab.status("et-1").runs), "the end of the run")
    assert (lab.status("et-1").runs[0].result, lab.status("et-1").runs[0].reason) == ("Evicted", "Evicted")


async def test_the_last_word_of_a_pod_is_not_lost_to_an_older_pod_that_goes(lab: Lab) -> None:
    await _a_run_that_is_left_alone(lab, sweep_seconds=86400)
    pod = next(iter(lab.store.list(PODS)))
    older = {**pod, "metadata": {**pod["metadata"], "name": "older", "uid": "older-uid"}}
    another = lab.store.get(WORKITEMS, NAMESPACE, "et-1")["metadata"]["uid"]
    older["metadata"]["creationTimestamp"] = "2026-11-22T13:00:00Z"
    older["metadata"]["ownerReferences"] = [{**pod["metadata"]["ownerReferences"][0], "uid": another}]
    older["status"] = {"phase": "Succeeded"}
    lab.store.put(PODS, older)
    await lab.rest(5)
    lab.server.fault = _no_item_can_be_read
    _evict(lab, pod)
    lab.store.remove(PODS, lab.store.get(PODS, NAMESPACE, "older"))
    await lab.rest(1)
    lab.server.fault = lambda _call: None
    lab.kubelet.holds = lambda _job: False
    await lab.rest(5)
    assert [(run.result, run.reason) for run in lab.status("et-1").runs][:1] == [("Evicted", "Evicted")], lab.told()


def _evict(lab: Lab, pod: JSON) -> None:
    disrupted = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
    ended = {"terminated": {"exitCode": 143, "reason": "Error", "message": ""}}
    containers = [{"name": name, "state": ended} for name in ("runner", "agent")]
    status = {"phase": "Failed", "conditions": [disrupted], "containerStatuses": containers}
    lab.store.put(PODS, {**pod, "status": status})
    lab.store.delete(PODS, NAMESPACE, pod["metadata"]["name"])


def _no_item_can_be_read(call: Call) -> Refused | None:
    if (call.kind, call.verb) == (WORKITEMS, "get"):
        return Refused(503, "ServiceUnavailable", "away")
    return None


async def _a_run_that_is_left_alone(lab: Lab, sweep_seconds: float) -> None:
    """Item et-1 with a run that does not end, just after the look that comes by itself: the next is minutes away."""
    lab.repository()
    lab.pipeline()
    lab.kubelet.holds = lambda _job: True
    lab.start(sweep_seconds=sweep_seconds)
    lab.item("et-1")
    await lab.until(lambda: bool(lab.kubelet.held), "a run")
    await lab.rest(runs.USUAL_START.total_seconds() + 5)
