"""Items among each other, with what they refer to, and at their end."""

from __future__ import annotations

import pytest

from tests.loop.apiserver import Call, no_right_to
from tests.loop.lab import Lab
from tests.loop.store import (
    DECISIONS,
    JOBS,
    PIPELINES,
    PODS,
    REPOSITORIES,
    REVISIONS,
    SECRETS,
    WORKITEMS,
)
from tests.unit.core.world import one_stage


async def test_an_item_deleted_in_the_middle_of_a_run_leaves_nothing(lab: Lab) -> None:
    lab.pipeline(one_stage())
    lab.repository()
    lab.kubelet.holds = lambda _job: True
    lab.start()
    lab.item("et-1")
    await lab.until(lambda: bool(lab.kubelet.live()), "a run")
    lab.store.delete(WORKITEMS, "team-a", "et-1")
    await lab.rest(10)
    writes = len(lab.server.writes())
    name = lab.decide("et-1", "retry")
    await lab.until(lambda: lab.decision(name) == ("Ignored", "NoSuchItem"), "an answer")
    await lab.rest(1200)
    assert len(lab.server.writes()) == writes + 1, [str(call) for call in lab.server.writes()[writes:]]
    assert len(lab.kubelet.records) == 1
    for kind in (JOBS, PODS, REVISIONS, WORKITEMS):
        assert list(lab.store.list(kind)) == []
    asked = [call for call in lab.server.calls if call.name == "et-1"]
    await lab.rest(1200)
    assert [call for call in lab.server.calls if call.name == "et-1"] == asked, "the queue does not forget"


async def test_an_item_deleted_just_before_its_job_is_made(lab: Lab) -> None:
    """The Job is made all the same, owned by nobody who lives, and the garbage collector takes it."""
    lab.pipeline(one_stage())
    lab.repository()

    def fault(call: Call) -> None:
        if call.kind is JOBS and call.verb == "create" and lab.store.find(WORKITEMS, "team-a", "et-1"):
            lab.store.delete(WORKITEMS, "team-a", "et-1")

    lab.server.fault = fault
    lab.start()
    lab.item("et-1")
    await lab.until(lambda: lab.jobs("et-1") != [], "the Job")
    await lab.rest(600)
    assert list(lab.store.list(JOBS)) == []
    assert len(lab.kubelet.records) == 1


async def test_an_item_that_somebody_elses_finalizer_keeps_is_left_alone(lab: Lab) -> None:
    lab.pipeline(one_stage())
    lab.repository()
    lab.start()
    lab.item("et-1")
    lab.store.patch(WORKITEMS, "team-a", "et-1", {"metadata": {"finalizers": ["example.com/kept"]}})
    await lab.until(lambda: bool(lab.kubelet.live()), "a run")
    lab.store.delete(WORKITEMS, "team-a", "et-1")
    writes = len(lab.server.writes())
    await lab.rest(1200)
    assert len(lab.server.writes()) == writes
    lab.store.patch(WORKITEMS, "team-a", "et-1", {"metadata": {"finalizers": None}})
    await lab.rest()
    assert list(lab.store.list(JOBS)) == []


async def test_a_name_used_again_is_another_item(lab: Lab) -> None:
    lab.pipeline(one_stage())
    lab.repository()
    lab.kubelet.holds = lambda _job: True
    lab.start()
    lab.item("et-1")
    await lab.until(lambda: bool(lab.kubelet.live()), "a run")
    lab.store.delete(WORKITEMS, "team-a", "et-1")
    lab.item("et-1")
    await lab.until(lambda: len(lab.kubelet.live()) == 1 and len(lab.jobs("et-1")) == 2, "another run")
    lab.kubelet.release()
    await lab.until_phase("Done", "et-1")
    first, second = lab.jobs("et-1")
    assert first != second


@pytest.mark.slow
@pytest.mark.parametrize("together", [True, False], ids=["created at once", "one after the other"])
@pytest.mark.parametrize("branch", ["feature/shared", "feature/a,b=c"])
async def test_a_branch_belongs_to_one_item_at_a_time(lab: Lab, together: bool, branch: str) -> None:
    lab.pipeline(one_stage())
    lab.repository()
    lab.kubelet.holds = lambda _job: True
    if not together:
        lab.start()
    lab.item("a", branch=branch)
    if not together:
        await lab.until(lambda: bool(lab.kubelet.live()), "a run")
    lab.item("b", branch=branch, adoptBranch=True)
    lab.item("c", branch="feature/other")
    if together:
        lab.start()
    await lab.until(lambda: "Blocked" in (lab.phase("a"), lab.phase("b")) and len(lab.kubelet.live()) == 2, "Blocked")
    first, second = ("b", "a") if lab.phase("a") == "Blocked" else ("a", "b")
    reason, message = lab.ready(second)
    assert reason == "BranchInUse"
    assert f"belongs to WorkItem team-a/{first} until that is over" in message
    await lab.rest(600)
    assert lab.jobs(second) == []
    lab.kubelet.release()
    await lab.until_phase("Done", "a", "b", "c")


async def test_an_item_that_cannot_start_is_looked_at_once_a_time_and_holds_up_no_start(lab: Lab) -> None:
    """Starts go one by one; who only waits for a reference does not stand in that line."""
    lab.pipeline(one_stage())
    lab.start()
    lab.item("et-1")
    await lab.until_phase("Pending", "et-1")
    await lab.rest(5)
    lab.server.calls.clear()
    await lab.rest(150)
    looks = [call for call in lab.server.calls if (call.verb, call.kind, call.name) == ("get", WORKITEMS, "et-1")]
    assert 9 <= len(looks) <= 12


@pytest.mark.parametrize("missing", ["Repository", "Pipeline"])
async def test_what_an_item_refers_to_may_come_later(lab: Lab, missing: str) -> None:
    if missing == "Pipeline":
        lab.repository()
    else:
        lab.pipeline(one_stage())
    lab.start()
    lab.item("et-1")
    await lab.until_phase("Pending", "et-1")
    await lab.until(lambda: lab.ready("et-1")[0] == f"{missing}NotFound", "the reason")
    name = "shop" if missing == "Repository" else "default"
    assert f"there is no {missing} {name} in namespace" in lab.ready("et-1")[1]
    await lab.rest(100)
    assert len(lab.writes("et-1")) == 1
    asleep = len(lab.server.calls)
    if missing == "Pipeline":
        lab.pipeline(one_stage(), namespace="team-a")
    else:
        lab.repository()
    await lab.rest(3)
    assert len(lab.server.calls) > asleep, "its event wakes nobody"
    assert lab.status("et-1").last_run == 1
    await lab.until_phase("Done", "et-1")


async def test_a_missing_secret_is_named_and_the_item_goes_on_when_it_is_there(lab: Lab) -> None:
    lab.pipeline(one_stage())
    lab.repository(credentials={"secretName": "git"})
    lab.start()
    lab.item("et-1")
    await lab.until(lambda: lab.ready("et-1")[0] == "SecretNotFound", "the reason")
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "git"}, "data": {}}
    lab.store.create(SECRETS, "team-a", secret)
    await lab.until_phase("Done", "et-1")


async def test_a_missing_key_of_a_model_is_named_and_the_item_goes_on_when_it_is_there(lab: Lab) -> None:
    spec = one_stage()
    settings = {"image": "claude:1", "credentials": {"secretName": "model-key", "apiKey": "key"}}
    lab.pipeline({**spec, "agents": {name: {"claudeCode": settings} for name in spec["agents"]}})
    lab.repository()
    lab.start()
    lab.item("et-1")
    await lab.until(lambda: lab.ready("et-1")[0] == "SecretNotFound", "the reason")
    assert "create secret generic model-key --from-literal=key=KEY" in lab.ready("et-1")[1]
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "model-key"}, "data": {"other": "eA=="}}
    lab.store.create(SECRETS, "team-a", secret)
    await lab.until(lambda: lab.ready("et-1")[0] == "SecretKeyNotFound", "the other reason")
    lab.store.put(SECRETS, {**lab.store.get(SECRETS, "team-a", "model-key"), "data": {"key": "eA=="}})
    await lab.until_phase("Done", "et-1")


@pytest.mark.parametrize("secret", ["other-git", "other-model"])
async def test_a_secret_that_the_operator_may_not_read_is_a_condition_and_people_are_heard(
    lab: Lab, secret: str
) -> None:
    lab.server.fault = no_right_to(secret)
    claude = {"image": "claude:1", "credentials": {"secretName": "other-model", "apiKey": "key"}}
    spec = one_stage()
    lab.pipeline({**spec, "agents": {name: {"claudeCode": claude} for name in spec["agents"]}})
    lab.repository(credentials={"secretName": "other-git"})
    for name in ("other-git", "other-model"):
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": {"key": "eA=="}}
        lab.store.create(SECRETS, "team-a", body)
    lab.start()
    for name in ("et-1", "et-2"):
        lab.item(name, branch=f"feature/{name}")
    await lab.until(lambda: lab.ready("et-1")[0] == lab.ready("et-2")[0] == "Forbidden", "the reason")
    assert lab.phase("et-1") == "Blocked"
    assert f"get secrets team-a/{secret}: " in lab.ready("et-1")[1]
    assert f"if the chart's rbac.secretNames names Secrets, add {secret}" in lab.ready("et-1")[1]
    abort = lab.decide("et-1", "abort")
    await lab.until(lambda: lab.decision(abort) == ("Accepted", "Aborted"), "an answer")
    lab.server.fault = lambda _call: None
    await lab.until_phase("Done", "et-2")


async def test_a_replaced_copy_of_the_pipeline_is_refused(lab: Lab) -> None:
    """Whoever may write ControllerRevisions must not take an item's gates away."""
    lab.repository()
    lab.pipeline()
    lab.start()
    lab.item("et-1")
    await lab.until_phase("InReview", "et-1")
    (copy,) = lab.store.list(REVISIONS)
    stages = [{key: value for key, value in stage.items() if key != "gates"} for stage in copy["data"]["stages"]]
    lab.store.put(REVISIONS, {**copy, "data": {**copy["data"], "stages": stages}})
    # What this operator has read it knows; the next one reads it anew.
    await lab.restart()
    await lab.until(lambda: lab.ready("et-1")[0] == "SnapshotChanged", "the reason")
    assert lab.phase("et-1") == "Blocked"
    assert copy["metadata"]["name"] in lab.ready("et-1")[1]
    retry = lab.decide("et-1", "retry")
    await lab.until(lambda: lab.decision(retry) == ("Ignored", "SnapshotChanged"), "an answer")
    lab.store.put(REVISIONS, copy)
    await lab.until_phase("InReview", "et-1")


async def test_one_item_that_cannot_be_read_stops_no_other(lab: Lab) -> None:
    lab.pipeline(one_stage())
    lab.repository()
    poison = lab.store.get(WORKITEMS, "team-a", lab.item("poison"))
    lab.store.put(WORKITEMS, {**poison, "status": {"stage": ["no", "word"], "run": 7}})
    lab.item("before")
    lab.start()
    await lab.until_phase("Done", "before")
    lab.item("after")
    await lab.until_phase("Done", "after")
    assert "WorkItemUnreadable" in {entry.get("reason") for entry in lab.log}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["Decision", "Repository", "Pipeline", "branch's other item"])
async def test_another_object_that_cannot_be_read_harms_only_who_needs_it(lab: Lab, kind: str) -> None:
    lab.pipeline(one_stage())
    lab.repository()
    lab.repository("broken")
    lab.pipeline(one_stage(), "broken", "team-a")
    lab.item("ill", repository="broken", pipeline="broken", branch="feature/x")
    lab.item("well", branch="feature/x" if kind.startswith("branch") else "feature/y")
    lab.decide("ill", "retry")
    if kind == "Decision":
        body = lab.store.get(DECISIONS, "team-a", "ill-retry-1")
        lab.store.put(DECISIONS, {**body, "spec": {"workItem": "ill"}})
    elif kind == "Repository":
        body = lab.store.get(REPOSITORIES, "team-a", "broken")
        lab.store.put(REPOSITORIES, {**body, "spec": {"url": 7}})
    elif kind == "Pipeline":
        body = lab.store.get(PIPELINES, "team-a", "broken")
        lab.store.put(PIPELINES, {**body, "spec": {"stages": 7}})
    else:
        body = lab.store.get(WORKITEMS, "team-a", "ill")
        lab.store.put(WORKITEMS, {**body, "status": {"branch": "feature/x", "stage": ["no"]}})
    lab.start()
    if kind.startswith("branch"):
        await lab.until(lambda: lab.ready("well")[0] == "BranchInUse", "BranchInUse")
        assert "team-a/ill" in lab.ready("well")[1]
        lab.store.delete(WORKITEMS, "team-a", "ill")
    elif kind != "Decision":
        await lab.until(lambda: lab.ready("ill")[0] == f"{kind}Unreadable", "the reason")
    await lab.until_phase("Done", "well")
    assert [entry for entry in lab.log if entry["event"] == "bug"] == []


@pytest.mark.slow
@pytest.mark.parametrize("at", ["InReview", "Done", "Pending"])
async def test_events_that_tell_nothing_new_cause_no_write(lab: Lab, at: str) -> None:
    lab.pipeline()
    if at != "Pending":
        lab.repository()
    if at == "Done":
        lab.approve_always()
    lab.start()
    lab.item("et-1")
    await lab.until(lambda: lab.phase("et-1") == at and lab.ready("et-1")[0] != "", at)
    await lab.rest()
    writes = len(lab.server.writes())
    for number in range(100):
        lab.store.patch(WORKITEMS, "team-a", "et-1", {"metadata": {"labels": {"touched": str(number)}}})
        await lab.rest(1)
    for job in list(lab.store.list(JOBS)):
        lab.store.patch(JOBS, "team-a", job["metadata"]["name"], {"metadata": {"labels": {"touched": "yes"}}})
    await lab.rest(600)
    assert [str(call) for call in lab.server.writes()[writes:]] == []
