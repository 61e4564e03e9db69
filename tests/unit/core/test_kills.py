"""The operator's process ends at every boundary of a whole path: the end is the same, and every Job is made once."""

import functools
from typing import Any

import pytest

from tests.unit.core.truth import check_may_merge
from tests.unit.core.world import FORGE, End, World, forge_pipeline, review, small_pipeline, writes
from workitems.api import RunKind
from workitems.core.forge import Check, Commit


def path() -> World:
    """All stages with one rework, a lost gate, a lost run, questions, an answer and an approval."""
    world = World(small_pipeline())
    world.script("plan", End(writes={"questions.md": "One or many?\n"}))
    world.script("build", End(reported=False, exit_code=None), writes())
    world.script("review", review("REQUEST_CHANGES"))
    world.gate_scripts["tests"] = [None, 0]
    return world


def travel(world: World) -> dict[str, Any]:
    world.go()
    assert world.at == ("plan", "NeedsInput")
    world.say("answer", comment="One.")
    world.go()
    status: dict[str, Any] = world.item["status"]
    assert world.at == ("done", "Done")
    assert set(world.created.values()) == {1}, world.created
    assert world.live_runs() == world.live_gates() == []
    assert world.released is not None
    assert all(d["status"]["result"] == "Accepted" for d in world.decisions.values())
    return status


@pytest.fixture(scope="module")
def undisturbed() -> tuple[World, dict[str, Any]]:
    world = path()
    return world, travel(world)


def test_the_path_has_what_it_promises(undisturbed: tuple[World, dict[str, Any]]) -> None:
    world, _ = undisturbed
    assert [t.stage for t in world.tasks] == ["plan", "plan", "build", "build", "review", "build", "review"]
    assert [(r.gate, r.attempts) for r in world.status.rework] == [("reviewed", 1)]
    assert world.boundaries > 60


@pytest.mark.slow
def test_a_kill_at_any_boundary_changes_nothing(undisturbed: tuple[World, dict[str, Any]]) -> None:
    calm, expected = undisturbed
    for boundary in range(1, calm.boundaries + 1):
        world = path()
        world.kill_at = frozenset({boundary})
        try:
            assert travel(world) == expected
        except AssertionError as error:
            raise AssertionError(f"killed at boundary {boundary} of {calm.boundaries}") from error
        assert world.branch.trees == calm.branch.trees


def test_a_kill_at_every_boundary_in_turn_changes_nothing(undisturbed: tuple[World, dict[str, Any]]) -> None:
    calm, expected = undisturbed
    world = path()
    # Each boundary is reached once, dies, and is reached again by the next start.
    world.kill_at = frozenset(range(1, 2000, 7))
    assert travel(world) == expected
    assert world.branch.trees == calm.branch.trees


@pytest.mark.parametrize("boundary", range(1, 12))
def test_an_abort_deletes_the_job_wherever_the_operator_dies(boundary: int) -> None:
    world = World(small_pipeline())
    world.go(until="plan")
    job = world.run_job().name
    world.say("abort")
    world.kill_at = frozenset({world.boundaries + boundary})
    world.rest()
    assert world.at == ("plan", "Aborted")
    assert job not in world.jobs
    assert world.released is not None
    assert all(effect.state == "Done" for effect in world.status.effects)
    assert next(iter(world.decisions.values()))["status"]["result"] == "Accepted"


def forge_path() -> World:
    """A pull request, red checks and rework, a base that moved, a merge; and people's pushes are none of it."""
    world = World(forge_pipeline(), {"forge": FORGE})
    red: set[str] = set()

    def reports(commit: str) -> list[Check]:
        if not red:
            red.add(commit)
        return [Check("build", "failure" if commit in red else "success", "https://ci.example.com/1")]

    world.forge.reports = reports
    world.forge.base_ahead = (Commit("c0ffee" * 6 + "beef", "Prices in cents"),)
    world.forge.guard = functools.partial(check_may_merge, world)
    return world


def travel_to_the_merge(world: World) -> dict[str, Any]:
    world.go()
    status: dict[str, Any] = world.item["status"]
    assert world.at == ("done", "Done")
    assert set(world.created.values()) == {1}, world.created
    world.forge.check()
    assert world.forge.merges == [(7, world.branch.head)]
    assert world.status.outbox is None
    assert all(effect.state != "Intended" for effect in world.status.effects)
    return status


@pytest.fixture(scope="module")
def merged() -> tuple[World, dict[str, Any]]:
    world = forge_path()
    return world, travel_to_the_merge(world)


def test_the_path_to_the_merge_has_what_it_promises(merged: tuple[World, dict[str, Any]]) -> None:
    world, _ = merged
    assert [t.stage for t in world.tasks if t.kind is RunKind.AGENT] == ["plan", "build", "build", "review", "review"]
    assert [(r.gate, r.attempts) for r in world.status.rework] == [("checks", 1), ("reviewed", 1)]
    requests = [request for request in world.forge.requests if not request.startswith("update 7")]
    assert requests == ["open 7", "update branch of 7 by rebase", "merge 7 and delete the branch"]
    assert world.boundaries > 90


@pytest.mark.slow
def test_a_kill_at_any_boundary_on_the_way_to_the_merge_changes_nothing(merged: tuple[World, dict[str, Any]]) -> None:
    calm, expected = merged
    for boundary in range(1, calm.boundaries + 1):
        world = forge_path()
        world.kill_at = frozenset({boundary})
        try:
            assert travel_to_the_merge(world) == expected
            requests = [request for request in world.forge.requests if not request.startswith("update 7")]
            assert requests == [request for request in calm.forge.requests if not request.startswith("update 7")]
        except AssertionError as error:
            raise AssertionError(f"killed at boundary {boundary} of {calm.boundaries}") from error


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1, 8))
def test_a_kill_at_every_boundary_on_the_way_to_the_merge_in_turn_changes_nothing(
    merged: tuple[World, dict[str, Any]], first: int
) -> None:
    _, expected = merged
    world = forge_path()
    world.kill_at = frozenset(range(first, 4000, 7))
    assert travel_to_the_merge(world) == expected


@pytest.mark.slow
@pytest.mark.parametrize("boundary", range(1, 16))
def test_an_abort_closes_the_pull_request_wherever_the_operator_dies(boundary: int) -> None:
    world = forge_path()
    world.go(until="review")
    world.say("abort")
    world.kill_at = frozenset({world.boundaries + boundary})
    world.rest()
    assert world.at == ("review", "Aborted")
    assert world.forge.pulls[7].state == "closed"
    assert world.status.pull_request is not None
    assert world.status.pull_request.state == "closed"
    assert world.forge.merges == []
    assert world.forge.requests.count("close 7") == 1
