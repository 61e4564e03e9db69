"""The installation's Pipeline: applied while it is the operator's own, left alone once somebody has edited it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from workitems import cluster, default_pipeline, errors

JSON = dict[str, Any]
TEXT = "apiVersion: workitems.dev/v1alpha1\nkind: Pipeline\nmetadata: {name: default}\nspec: {queueName: new}\n"


class Api(cluster.Cluster):
    """An API server that has one Pipeline, or none."""

    def __init__(self, live: JSON | None, *, conflict: bool = False) -> None:
        self.live = live
        self.conflict = conflict
        self.applied: list[JSON] = []

    async def get(self, resource: cluster.Resource, namespace: str | None, name: str) -> JSON | None:
        assert (resource, namespace, name) == (cluster.PIPELINES, "workitem-operator", "default")
        return self.live

    async def apply(self, resource: cluster.Resource, namespace: str | None, body: JSON, *, manager: str) -> JSON:
        assert (resource, namespace, manager) == (cluster.PIPELINES, "workitem-operator", default_pipeline.MANAGER)
        if self.conflict:
            raise errors.Conflict("kubectl-edit owns .spec.queueName")
        self.applied.append(body)
        return {**body, "metadata": {**body["metadata"], "generation": 2}}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return written(tmp_path, TEXT)


def written(folder: Path, text: str) -> Path:
    path = folder / "pipeline.yaml"
    path.write_text(text)
    return path


def live(*managers: tuple[str, str]) -> JSON:
    fields = [{"manager": manager, "fieldsV1": {part: {}}} for manager, part in managers]
    return {"metadata": {"name": "default", "generation": 1, "managedFields": fields}, "spec": {"queueName": "old"}}


async def install(api: Api, file: Path) -> list[JSON]:
    await default_pipeline.install(api, "workitem-operator", file)
    return api.applied


async def test_it_is_created_where_there_is_none(file: Path) -> None:
    (applied,) = await install(Api(None), file)
    assert applied["metadata"] == {"name": "default", "namespace": "workitem-operator"}
    assert applied["spec"] == {"queueName": "new"}


async def test_a_release_brings_its_own_up_to_date(file: Path) -> None:
    assert await install(Api(live(("workitem-operator", "f:spec"), ("kubectl-label", "f:metadata"))), file)


@pytest.mark.parametrize("manager", ["kubectl-edit", "argocd-controller", "demo"])
async def test_what_somebody_has_edited_stays_theirs(file: Path, manager: str) -> None:
    assert not await install(Api(live(("workitem-operator", "f:spec"), (manager, "f:spec"))), file)


async def test_an_edit_at_the_same_moment_wins(file: Path) -> None:
    assert not await install(Api(live(("workitem-operator", "f:spec")), conflict=True), file)


@pytest.mark.parametrize("text", ["", "a: [", "kind: WorkItem\nmetadata: {name: x}\n", "kind: Pipeline\n"])
async def test_a_file_without_a_pipeline_is_named(tmp_path: Path, text: str) -> None:
    file = written(tmp_path, text)
    with pytest.raises(errors.Invalid, match="WORKITEMS_DEFAULT_PIPELINE"):
        await install(Api(None), file)


async def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(errors.Invalid, match=r"nowhere\.yaml"):
        await install(Api(None), tmp_path / "nowhere.yaml")
