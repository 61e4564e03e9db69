"""Whatever happens to an item, people are told once, and the tracker is right at the end."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.core.people import PLANE, People, team
from tests.unit.core.test_properties import HISTORIES, Event, heal
from tests.unit.core.world import World, small_pipeline
from workitems import errors
from workitems.api.integrations import PlaneStates
from workitems.core import announce

OUTAGES = st.lists(st.booleans(), min_size=60, max_size=60)


@pytest.mark.slow
@settings(max_examples=8)
@given(HISTORIES, OUTAGES)
def test_no_history_tells_anything_twice_and_the_tracker_is_right_at_the_end(
    history: list[Event], outages: list[bool]
) -> None:
    people = team(small_pipeline())
    world = people.world
    world.twice = False
    for happens, away in zip(history, outages, strict=False):
        people.away = errors.Transient("no connection") if away else None
        happens(world)
        world.rest(40)
    people.away = None
    heal(world)
    settle(world)
    check(people)


def settle(world: World) -> None:
    """Time passes until nothing waits to be told."""
    for _ in range(60):
        if world.status.outbox is None:
            return
        world.pass_time(seconds=400)
        world.rest(40)
    raise AssertionError(f"never told: {[e for e in world.status.effects if e.state == 'Intended'][:3]}")


def check(people: People) -> None:
    status = people.world.status
    assert set(people.posts.values()) <= {1}
    ids = [effect.id for effect in status.effects]
    assert len(ids) == len(set(ids))
    # Messages that may have been sent are given up, never sent again: no text of one step twice.
    sent = [effect.ref for effect in status.effects if effect.kind == "Notify" and effect.state == "Done"]
    assert len(sent) == len(set(sent))
    wanted = announce.state_key(status, PlaneStates.model_validate(PLANE["states"]))
    if wanted is not None and people.states:
        name = announce.state_named(wanted, PlaneStates.model_validate(PLANE["states"]))
        assert people.states[-1] == name
