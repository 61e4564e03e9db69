"""The installation's Pipeline: applied while it is the operator's own, left alone once somebody has edited it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from workitems import cluster, default_pipeline, errors

JSON = dict[str, Any]
TEXT = "apiVersion: workitems.dev/v1alpha1\nkind: Pipeline\nmetadata: {name: default}\nspec: {queueName: new}\n"
OLD: JSON = {
    "queueName": "old",
    "limits": {"maxRuns": 3},
    "stages": [{"name": "a", "gates": [{"name": "g"}]}, {"name": "b"}],
}
"""What an earlier release brought."""


class Api(cluster.Cluster):
    """An API server that has one Pipeline, or none."""

    def __init__(self, live: JSON | None, *refusals: errors.WorkItemsError) -> None:
        self.live = live
        self.refusals = list(refusals)
        self.applied: list[JSON] = []

    async def get(self, resource: cluster.Resource, namespace: str | None, name: str) -> JSON | None:
        assert (resource, namespace, name) == (cluster.PIPELINES, "workitem-operator", "default")
        return self.live

    async def apply(self, resource: cluster.Resource, namespace: str | None, body: JSON, *, manager: str) -> JSON:
        assert (resource, namespace, manager) == (cluster.PIPELINES, "workitem-operator", default_pipeline.MANAGER)
        if self.refusals:
            raise self.refusals.pop(0)
        self.applied.append(body)
        return {**body, "metadata": {**body["metadata"], "generation": 2}}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return written(tmp_path, TEXT)


def written(folder: Path, text: str) -> Path:
    path = folder / "pipeline.yaml"
    path.write_text(text)
    return path


def live(*managers: tuple[str, str], spec: JSON = OLD, applied: JSON | None = OLD) -> JSON:
    fields = [{"manager": manager, "fieldsV1": {part: {}}} for manager, part in managers or [OURS]]
    annotations = {} if applied is None else {default_pipeline.APPLIED: json.dumps(applied)}
    metadata = {"name": "default", "generation": 1, "managedFields": fields, "annotations": annotations}
    return {"metadata": metadata, "spec": spec}


OURS = ("workitem-operator", "f:spec")


async def install(api: Api, file: Path) -> list[JSON]:
    await default_pipeline.install(api, "workitem-operator", file)
    return api.applied


async def test_it_is_created_where_there_is_none_and_says_what_was_applied(file: Path) -> None:
    (applied,) = await install(Api(None), file)
    said = {default_pipeline.APPLIED: '{"queueName":"new"}'}
    assert applied["metadata"] == {"name": "default", "namespace": "workitem-operator", "annotations": said}
    assert applied["spec"] == {"queueName": "new"}


async def test_a_release_brings_its_own_up_to_date(file: Path) -> None:
    assert await install(Api(live(OURS, ("kubectl-label", "f:metadata"))), file)


async def test_a_default_that_a_release_brings_is_nobodys_edit(file: Path) -> None:
    stages = [{**stage, "onRunFailure": {"hold": "Blocked"}} for stage in OLD["stages"]]
    assert await install(Api(live(spec={**OLD, "documents": "docs", "stages": stages})), file)


@pytest.mark.parametrize("manager", ["kubectl-edit", "argocd-controller", "demo"])
async def test_what_somebody_has_edited_stays_theirs(file: Path, manager: str) -> None:
    assert not await install(Api(live(OURS, (manager, "f:spec"))), file)


@pytest.mark.parametrize(
    "spec",
    [
        {**OLD, "limits": {}},
        {**OLD, "stages": OLD["stages"][:1]},
        {**OLD, "stages": [{"name": "a", "gates": []}, {"name": "b"}]},
        {**OLD, "stages": OLD["stages"][::-1]},
        {**OLD, "queueName": "other"},
    ],
    ids=["a limit", "a stage", "a gate", "the order of stages", "a value"],
)
async def test_what_somebody_has_removed_stays_removed(file: Path, spec: JSON) -> None:
    assert not await install(Api(live(spec=spec)), file), "no other manager owns what is not there"


async def test_one_that_was_there_before_is_not_ours(file: Path) -> None:
    assert not await install(Api(live(applied=None)), file)


async def test_an_edit_at_the_same_moment_wins(file: Path) -> None:
    assert not await install(Api(live(), errors.Conflict("kubectl-edit owns .spec.queueName")), file)


@pytest.mark.parametrize("text", ["", "a: [", "kind: WorkItem\nmetadata: {name: x}\n", "kind: Pipeline\n"])
async def test_a_file_without_a_pipeline_is_named(tmp_path: Path, text: str) -> None:
    file = written(tmp_path, text)
    with pytest.raises(errors.Invalid, match="WORKITEMS_DEFAULT_PIPELINE"):
        await install(Api(None), file)


async def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(errors.Invalid, match=r"nowhere\.yaml"):
        await install(Api(None), tmp_path / "nowhere.yaml")


async def installation(api: Api, file: str | None) -> tuple[list[float], list[Any]]:
    """How long it waited in between, and what the log says of refusals."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    with capture_logs() as logs:
        whole = default_pipeline.Installation(api, "workitem-operator", file, sleep)
        await whole.attempt()
        await whole.run()
    return slept, [entry for entry in logs if entry["log_level"] == "error"]


async def test_a_refusal_for_good_is_said_and_stops_nothing(file: Path) -> None:
    api = Api(live(), errors.Permanent("Invalid", "spec.limits.maxRuns: must be at least 1"))
    slept, (said,) = await installation(api, str(file))
    assert (slept, api.applied) == ([], [])
    assert "spec.limits.maxRuns" in said["error"]
    assert said["tried_again"] is False


async def test_what_may_go_away_is_tried_again(file: Path) -> None:
    api = Api(live(), errors.Transient("no answer"), errors.Transient(".spec.limits.maxRun: field not declared"))
    slept, said = await installation(api, str(file))
    assert slept == [default_pipeline.AGAIN_SECONDS] * 2
    assert [entry["tried_again"] for entry in said] == [True, True]
    assert len(api.applied) == 1


async def test_without_a_file_there_is_nothing_to_do() -> None:
    assert await installation(Api(None), None) == ([], [])
