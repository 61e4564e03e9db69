"""What the operator tells about its work: metrics without names, Events with stable reasons, health that means it."""

from __future__ import annotations

import re

import aiohttp
import pytest

from tests.loop.lab import Lab
from tests.loop.store import EVENTS
from tests.unit.core.world import End, review
from workitems.core import events


async def test_a_path_with_a_rework_and_a_failure_is_counted_and_told(lab: Lab) -> None:
    lab.repository()
    lab.pipeline()
    lab.approve_always()
    lab.kubelet.scripts["et-1", "review"] = [review("REQUEST_CHANGES")]
    lab.kubelet.scripts["et-1", "testing"] = [End(exit_code=3)]
    lab.start(sweep_seconds=60.0)
    lab.item("et-1", branch="feature/et-1")
    await lab.until_phase("Blocked", "et-1")
    await lab.rest(90)
    text = await _get(lab, "/metrics")
    lab.decide("et-1", "retry")
    await lab.until_phase("Done", "et-1")
    await lab.rest(90)
    after = await _get(lab, "/metrics")

    assert 'workitem_unfinished_items{phase="Blocked"} 1.0' in text
    assert 'workitem_runs_total{agent="tester",result="Failed",stage="testing"} 1.0' in after
    assert 'workitem_runs_total{agent="developer",result="Succeeded",stage="development"} 2.0' in after
    assert 'workitem_gate_results_total{gate="review-approved",result="Failed",stage="review"} 1.0' in after
    assert 'workitem_gate_results_total{gate="review-approved",result="Passed",stage="review"} 1.0' in after
    assert 'workitem_phase_transitions_total{phase="Done"} 1.0' in after
    assert 'workitem_duration_seconds_count{phase="Done"} 1.0' in after
    # The scripted agents cost a cent a run, the one that failed too.
    cost = sum(float(n) for n in re.findall(r"^workitem_cost_usd_total{.*} (\S+)$", after, re.MULTILINE))
    assert cost == pytest.approx(float(lab.status("et-1").usage.cost_usd))
    assert re.search(
        r'^workitem_api_requests_total{code="201",resource="jobs.batch",verb="create"} \d', after, re.MULTILINE
    )
    assert re.search(r'^workitem_reconcile_seconds_count{outcome="done"} \d', after, re.MULTILINE)
    assert "workitem_queue_depth 0.0" in after
    assert "et-1" not in after, "a metric has the name of an item in it"

    told = sorted(lab.store.list(EVENTS), key=lambda body: int(body["metadata"]["resourceVersion"]))
    assert [body["reason"] for body in told] == [
        "Started",
        "WaitingForApproval",
        "GateFailed",
        "RunFailed",
        "Blocked",
        "Done",
    ]
    assert {body["reason"] for body in told} <= set(events.REASONS)
    assert "retry: {}" in told[4]["message"]


async def test_ready_comes_after_the_start_and_a_deaf_watch_is_found(lab: Lab) -> None:
    lab.repository()
    lab.pipeline()
    lab.start()
    lab.item("et-1")
    await lab.until_phase("InReview", "et-1")
    assert await _get(lab, "/readyz") == "ok\n"
    assert await _get(lab, "/healthz") == "ok\n"
    lab.server.deaf = True
    lab.server.cut_watches()
    await lab.rest(10)
    lab.decide("et-1", "approve", {"gate": "analysis-approved", "commit": lab.status("et-1").head or ""})
    await lab.until_phase("Done", "et-1")
    await lab.rest(600)
    assert "no event from the watch of namespace team-a" in await _get(lab, "/healthz")


async def _get(lab: Lab, path: str) -> str:
    async with aiohttp.ClientSession() as session, session.get(f"{lab.health_url}{path}") as answer:
        return await answer.text()
