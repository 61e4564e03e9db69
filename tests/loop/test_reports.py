"""What an agent's neighbour may have to say: reports that are absent, too long, of no known shape, or lies."""

from __future__ import annotations

import json

import pytest

from tests.loop.lab import NAMESPACE, URL, Lab
from tests.loop.store import JOBS, PODS
from tests.unit.core.world import one_stage
from workitems.protocol import RunTask

UNUSABLE: dict[str, str] = {
    "absent": "",
    "no JSON": "Traceback (most recent call last):",
    "half of one": '{"run": 1, "uid": "',
    "another shape": "[1, 2, 3]",
    "nothing that is needed": "{}",
    "another run's": '{"run": 99, "uid": "00000000-0000-4000-8000-000000000000"}',
    "longer than the kubelet lets through": json.dumps({"run": 1, "uid": "x", "padding": "x" * 5000}),
    "deeply nested": "[" * 4000,
    "what is left of bytes that are no Unicode": "\ufffd\x00\x1b[31m",
}


@pytest.mark.slow
@pytest.mark.parametrize("raw", UNUSABLE.values(), ids=UNUSABLE)
async def test_a_run_without_a_usable_report_is_lost_named_and_repeated(lab: Lab, raw: str) -> None:
    lab.pipeline(one_stage())
    lab.repository()
    lab.kubelet.tells = lambda task, report: raw if task.run == 1 else report
    lab.start()
    lab.item("et-1")
    await lab.until_phase("Done", "et-1")
    lost, again = lab.status("et-1").runs
    assert (lost.result, lost.reason) == ("Lost", "ReportLost")
    assert "the runner of pod et-1-build-1-" in (lost.message or "")
    assert "left no usable report (exit code 0, Completed)" in (lost.message or "")
    assert (again.result, again.attempt) == ("Succeeded", 1)
    assert lab.status("et-1").rework == ()
    assert lab.status("et-1").usage.runs == 1


@pytest.mark.parametrize("what", ["run", "gate"])
async def test_a_pod_that_went_while_nobody_looked_takes_its_report_along(lab: Lab, what: str) -> None:
    """The node of a finished pod is taken away before the operator is back: the Job is Complete, and says no more."""
    lab.pipeline(one_stage({"name": "tests", "command": {"run": ["true"]}}))
    lab.repository()
    lab.kubelet.holds = lambda job: ("workitems.dev/gate" in job["metadata"]["labels"]) == (what == "gate")
    lab.start()
    lab.item("et-1")
    await lab.until(lambda: bool(lab.kubelet.held), "a pod that works")
    await lab.kill()
    job = lab.kubelet.records[-1].job
    lab.kubelet.release()
    await lab.until(lambda: "conditions" in lab.store.get(JOBS, NAMESPACE, job).get("status", {}), "the Job's end")
    (pod,) = [p for p in lab.store.list(PODS) if p["metadata"]["labels"]["batch.kubernetes.io/job-name"] == job]
    lab.store.remove(PODS, pod)
    lab.start()
    await lab.until_phase("Done", "et-1")
    status = lab.status("et-1")
    if what == "run":
        lost = status.runs[0]
        assert (lost.result, lost.reason) == ("Lost", "PodDeleted")
        assert lost.message == f"Job {job} is over and its pod is gone, and the report with it"
    else:
        assert status.gates[0].message == f"exit code 0, as Job {job} says: its pod is gone"
    assert [run.attempt for run in status.runs] == ([1, 1] if what == "run" else [1])
    assert status.rework == ()


async def test_reports_that_never_come_block_the_item_with_the_cause_and_the_command(lab: Lab) -> None:
    lab.pipeline(one_stage())
    lab.repository()
    lab.kubelet.tells = lambda _task, _report: ""
    lab.start()
    lab.item("et-1")
    await lab.until_phase("Blocked", "et-1")
    reason, message = lab.ready("et-1")
    assert reason == "InfraRetriesExhausted"
    assert "left no usable report" in message
    assert "retry: {}" in message
    lab.kubelet.tells = lambda _task, report: report
    lab.decide("et-1", "retry")
    await lab.until_phase("Done", "et-1")


async def test_a_report_that_lies_about_the_commit_is_found_out_by_the_next_run(lab: Lab) -> None:
    """At a commit that nobody has: the next checkout tells what is there, and its gates are looked at."""

    def lie(task: RunTask, report: str) -> str:
        return json.dumps({**json.loads(report), "head": "f" * 40}) if task.run == 4 else report

    lab.repository()
    lab.pipeline()
    lab.approve_always()
    lab.kubelet.tells = lie
    lab.start()
    lab.item("et-1")
    await lab.until_phase("Done", "et-1")
    status = lab.status("et-1")
    assert status.head == lab.kubelet.branch(URL, "workitem/et-1").head
    runs = [(run.stage, str(run.result), run.reason) for run in status.runs]
    assert runs[3:6] == [
        ("review", "Succeeded", "Succeeded"),
        ("testing", "Lost", "HeadMoved"),
        ("testing", "Succeeded", "Succeeded"),
    ]
    assert status.rework == ()
    assert [gate.commit for gate in status.gates if gate.stage == "testing"] == [status.runs[5].commit]
