"""The operator's process ends at every boundary of a whole path: the end is the same, and every Job is made once."""

from typing import Any

import pytest

from tests.unit.core.world import End, World, review, small_pipeline, writes


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
