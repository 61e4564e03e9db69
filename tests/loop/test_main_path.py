"""The default pipeline from the first event to Done, by the whole operator."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from tests.loop.lab import Lab
from tests.loop.store import DECISIONS, JOBS, NAMESPACES, REVISIONS, WORKITEMS
from tests.unit.core.world import default_pipeline, review
from workitems import crd

PATH = [
    "analysis-1",
    "architecture-1",
    "development-1",
    "development-tests-local",
    "review-1",
    "development-2",
    "development-tests-local",
    "review-2",
    "testing-1",
    "deploy-1",
]


async def whole_path(lab: Lab) -> None:
    lab.repository()
    lab.pipeline()
    lab.approve_always()
    lab.kubelet.scripts["et-1", "review"] = [review("REQUEST_CHANGES")]
    lab.start()
    lab.item("et-1", branch="feature/et-1")
    await lab.until_phase("Done", "et-1")
    await lab.rest()


async def test_the_default_pipeline_with_an_approval_and_a_rework(lab: Lab) -> None:
    await whole_path(lab)
    names = lab.jobs("et-1")
    assert [name.rsplit("-", 1)[0] for name in names] == [f"et-1-{step}" for step in PATH]
    assert all(re.fullmatch(r"[0-9a-f]{10}", name.rsplit("-", 1)[1]) for name in names)
    status = lab.status("et-1")
    assert (status.stage, status.branch) == ("done", "feature/et-1")
    assert [(run.number, run.stage, run.attempt, str(run.result)) for run in status.runs] == [
        (number, step.rsplit("-", 1)[0], int(step[-1]), "Succeeded")
        for number, step in enumerate((step for step in PATH if step[-1].isdigit()), start=1)
    ]
    assert {gate.name: (str(gate.result), gate.reason) for gate in status.gates} == {
        "analysis-complete": ("Passed", "FilesPresent"),
        "analysis-approved": ("Passed", "Approved"),
        "architecture-done": ("Passed", "FilesPresent"),
        "ci-green": ("Skipped", "NoForge"),
        "tests-local": ("Passed", "CommandSucceeded"),
        "review-approved": ("Passed", "Approved"),
        "tests-passed": ("Passed", "Pass"),
    }
    assert lab.decision("et-1-approve-1") == ("Accepted", "Approved")
    assert lab.ready("et-1")[0] == "Done"
    assert all(job["spec"]["ttlSecondsAfterFinished"] >= 604_800 for job in lab.store.list(JOBS))
    await lab.stop()


async def test_jobs_stay_so_long_after_the_items_end_however_long_it_took(lab: Lab) -> None:
    """A Job's TTL counts from its own end, and an item may wait for people for longer than that."""
    lab.repository()
    spec = default_pipeline()
    lab.pipeline({**spec, "ttlSecondsAfterFinished": 60})
    lab.start()
    lab.item("et-1")
    await lab.until_phase("InReview", "et-1")
    await lab.rest(600)
    lab.decide("et-1", "approve", {"gate": "analysis-approved", "commit": lab.status("et-1").head})
    await lab.until_phase("Done", "et-1")
    await lab.rest()
    over = lab.status("et-1").finished_at
    assert over is not None
    gone = {
        job["metadata"]["name"]: datetime.fromisoformat(job["status"]["conditions"][0]["lastTransitionTime"])
        + timedelta(seconds=job["spec"]["ttlSecondsAfterFinished"])
        for job in lab.store.list(JOBS)
    }
    assert len(gone) > 1
    assert {name for name, when in gone.items() if when < over + timedelta(seconds=60)} == set()
    # The last Job's own end is seen after the item's.
    assert max(gone.values()) - over < timedelta(seconds=120)
    await lab.stop()


async def test_a_transition_costs_three_writes_at_most(lab: Lab) -> None:
    """One that ends a step and announces the next, the Job, and one that records the Job's uid."""
    await whole_path(lab)
    assert [str(call) for call in lab.server.writes() if call.code >= 300] == []
    costs, cost = [], 0
    for call in lab.server.writes():
        if call.kind is WORKITEMS:
            cost += 1
        elif call.kind is JOBS and call.verb == "create":
            costs.append(cost + 1)
            cost = 0
        else:
            assert (call.verb, call.kind) in {("create", REVISIONS), ("patch", DECISIONS), ("patch", JOBS)}, str(call)
    # The first has no uid to record before it; the second waits for the approval in between.
    assert costs[0] == 2
    assert costs[1] <= 4
    assert max(costs[2:]) <= 3
    assert cost <= 3
    decisions = [call for call in lab.server.writes() if call.kind is DECISIONS]
    assert len(decisions) == 2


async def test_the_operator_may_be_limited_to_namespaces(lab: Lab) -> None:
    lab.repository()
    lab.pipeline()
    lab.namespace("team-b")
    lab.apply(WORKITEMS, "other", {"repository": "shop", "title": "Not ours"}, "team-b")
    lab.item("et-1")
    lab.start(watch_namespaces=("team-a",))
    await lab.until_phase("InReview", "et-1")
    other = lab.store.get(WORKITEMS, "team-b", "other")
    assert other["status"] == {"observedGeneration": crd.UNSEEN}
    asked = [call for call in lab.server.calls if call.namespace != "team-a" and call.kind is not NAMESPACES]
    assert [str(call) for call in asked if call.namespace != "workitem-operator"] == []
    await lab.stop()


async def test_stopping_ends_within_the_grace_period_and_a_new_operator_goes_on(lab: Lab) -> None:
    lab.repository()
    lab.pipeline()
    lab.start()
    lab.item("et-1")
    await lab.until(lambda: bool(lab.kubelet.live()), "a run")
    await lab.stop()
    await lab.rest()
    assert lab.status("et-1").run is not None
    lab.start()
    await lab.until_phase("InReview", "et-1")
