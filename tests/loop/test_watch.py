"""What the operator hears of Jobs and pods: at once, nothing twice, and without reading what is over."""

from __future__ import annotations

import asyncio

from tests.loop.lab import Lab
from tests.loop.store import JOBS, PODS, WORKITEMS
from workitems.core import settle


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
    lab.repository()
    lab.pipeline()
    lab.kubelet.holds = lambda _job: True
    lab.start(sweep_seconds=86400)
    lab.item("et-1")
    await lab.until(lambda: bool(lab.kubelet.held), "a run")
    # Just after the look that comes by itself: the next one is minutes away.
    await lab.rest(settle.LOOK_AGAIN_AT_START.total_seconds() + 5)
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
