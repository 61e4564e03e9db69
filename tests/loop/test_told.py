"""What the operator tells about its work: metrics without names, Events with stable reasons, health that means it."""

from __future__ import annotations

import re

import aiohttp
import pytest

from tests.loop.apiserver import Call, Cut
from tests.loop.lab import Lab
from tests.loop.store import DECISIONS, EVENTS
from tests.unit.core.world import End, one_stage, review
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


async def test_each_step_is_one_line_with_item_stage_and_run(lab: Lab) -> None:
    lab.repository()
    lab.pipeline(one_stage())
    lab.start()
    lab.item("et-1")
    await lab.until_phase("Done", "et-1")
    await lab.rest()
    steps = [entry for entry in lab.log if entry["event"] == "step"]
    assert len(steps) == len(lab.writes("et-1"))
    fields = {"event", "level", "item", "stage", "phase", "run", "reason", "changed", "plan"}
    assert all(entry.keys() == fields for entry in steps)
    assert {entry["item"] for entry in steps} == {"team-a/et-1"}
    # Announced, its Job recorded, its end, and the Jobs released.
    assert [(e["stage"], str(e["phase"]), e["run"]) for e in steps] == [
        ("build", "InProgress", 1),
        ("build", "InProgress", 1),
        ("done", "Done", 1),
        ("done", "Done", None),
    ]
    await lab.stop()


@pytest.mark.parametrize("namespaces", [(), ("team-a", "workitem-operator")], ids=["all", "given"])
async def test_it_is_ready_once_the_api_server_has_accepted_every_watch(lab: Lab, namespaces: tuple[str, ...]) -> None:
    last = namespaces[-1] if namespaces else None

    def fault(call: Call) -> Cut | None:
        refused = (call.verb, call.kind, call.namespace) == ("watch", DECISIONS, last)
        return Cut.RESET if refused else None

    lab.server.fault = fault
    lab.start(watch_namespaces=namespaces)
    await lab.rest(10)
    where = f"namespaces/{last}/" if last else ""
    assert await _get(lab, "/readyz") == f"starting: no watch of /apis/workitems.dev/v1alpha1/{where}decisions yet\n"
    assert await _get(lab, "/healthz") == "ok\n"
    lab.server.fault = lambda _call: None
    await lab.rest(60)
    assert await _get(lab, "/readyz") == "ok\n"
    await lab.stop()


async def test_a_deaf_watch_is_found(lab: Lab) -> None:
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
    assert "no event from the watch of namespace team-a" in await _get(lab, "/readyz")


async def _get(lab: Lab, path: str) -> str:
    async with aiohttp.ClientSession() as session, session.get(f"{lab.health_url}{path}") as answer:
        return await answer.text()
