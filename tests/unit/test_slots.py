"""The ledger: cases that a person would ask about, then its promises over generated histories."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from workitems.slots import Admission, Claim, Slots

START = datetime(2026, 11, 22, tzinfo=UTC)


def claim(key: str, age: int = 0, priority: int = 0, **pools: int | None) -> Claim:
    """A claim by an item created `age` minutes before START."""
    return Claim(key, tuple((pools or {"p": 1}).items()), priority, START - timedelta(minutes=age))


@pytest.fixture
def slots() -> Slots:
    return Slots()


def test_an_empty_ledger_grants(slots: Slots) -> None:
    assert slots.peek(claim("a")) == Admission(granted=True)
    assert not slots.held("a")


def test_a_full_pool_refuses_and_says_behind_whom(slots: Slots) -> None:
    slots.take(claim("a"))
    assert slots.held("a")
    slots.wait(claim("b", age=9))
    assert slots.peek(claim("c")) == Admission(granted=False, ahead=1, pool="p", limit=1, behind="a, b")


def test_at_most_three_are_named(slots: Slots) -> None:
    for key in "abcde":
        slots.take(claim(key, p=5))
    assert slots.peek(claim("f", p=5)).behind == "a, b, c and 2 more"


def test_both_pools_must_have_room_and_the_full_one_is_named(slots: Slots) -> None:
    slots.take(claim("a", repository=1, pipeline=9))
    answer = slots.peek(claim("b", pipeline=9, repository=1))
    assert (answer.granted, answer.pool, answer.limit) == (False, "repository", 1)


def test_no_limit_is_always_room(slots: Slots) -> None:
    for n in range(100):
        assert slots.peek(claim(f"item-{n}", p=None)).granted
        slots.take(claim(f"item-{n}", p=None))


def test_who_asks_again_with_less_urgency_is_not_behind_its_own_earlier_claim(slots: Slots) -> None:
    slots.take(claim("x"))
    slots.wait(claim("a", priority=5))
    assert slots.peek(claim("a")) == Admission(granted=False, ahead=0, pool="p", limit=1, behind="x")


def test_asking_changes_nothing(slots: Slots) -> None:
    slots.wait(claim("a"))
    slots.peek(claim("b"))
    slots.peek(claim("a"))
    assert (slots.running, slots.queued) == ({}, {"p": 1})


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (claim("z", priority=1), claim("a", age=99, priority=0)),
        (claim("z", age=2), claim("a", age=1)),
        (claim("a"), claim("b")),
    ],
    ids=["priority", "age", "name"],
)
def test_the_line_is_ordered_by_priority_then_age_then_name(slots: Slots, first: Claim, second: Claim) -> None:
    slots.take(claim("holder"))
    slots.wait(second)
    slots.wait(first)
    assert slots.release("holder") == [first.key]
    assert slots.peek(first).granted
    assert not slots.peek(second).granted


def test_a_newcomer_does_not_overtake_who_waits_for_the_same_room(slots: Slots) -> None:
    slots.wait(claim("old", age=5))
    assert slots.peek(claim("new")) == Admission(granted=False, ahead=1, pool="p", limit=1, behind="old")
    assert slots.peek(claim("older", age=6)).granted


def test_room_for_two_admits_two(slots: Slots) -> None:
    slots.take(claim("x", p=2))
    slots.take(claim("y", p=2))
    for key in "abc":
        slots.wait(claim(key, p=2))
    slots.release("x")
    assert slots.release("y") == ["a", "b"]
    assert slots.peek(claim("b", p=2)).granted
    assert not slots.peek(claim("c", p=2)).granted


def test_who_waits_for_another_pool_holds_up_nobody(slots: Slots) -> None:
    slots.take(claim("x", shared=2, busy=1))
    slots.wait(claim("stuck", age=9, shared=2, busy=1))
    assert slots.peek(claim("free", shared=2)).granted


def test_a_holder_that_asks_again_counts_its_own_slot_as_free(slots: Slots) -> None:
    slots.take(claim("a"))
    assert slots.peek(claim("a")).granted


def test_a_holder_that_asks_again_lets_the_one_before_it_go_first(slots: Slots) -> None:
    slots.take(claim("a"))
    slots.wait(claim("b", age=9))
    assert slots.peek(claim("a")) == Admission(granted=False, ahead=1, pool="p", limit=1, behind="b")
    assert slots.wait(claim("a")) == ["b"]
    assert not slots.held("a")


def test_room_that_came_while_a_claim_was_on_its_way_into_the_line_wakes_it(slots: Slots) -> None:
    slots.take(claim("x"))
    assert not slots.peek(claim("a")).granted
    assert slots.release("x") == []
    assert slots.wait(claim("a")) == ["a"]


def test_waiting_again_replaces_the_old_claim(slots: Slots) -> None:
    slots.take(claim("x"))
    slots.wait(claim("a"))
    slots.wait(claim("b", age=1))
    slots.wait(claim("a", priority=5))
    assert slots.queued == {"p": 2}
    assert slots.release("x") == ["a"]


def test_taking_again_moves_the_hold_to_the_new_pools(slots: Slots) -> None:
    slots.take(claim("a", old=1))
    slots.take(claim("a", new=1))
    assert slots.running == {"new": 1}


def test_leaving_the_line_wakes_the_next(slots: Slots) -> None:
    slots.wait(claim("a", age=1))
    slots.wait(claim("b"))
    assert slots.release("a") == ["b"]


def test_releasing_a_stranger_wakes_nobody(slots: Slots) -> None:
    slots.wait(claim("a"))
    assert slots.release("stranger") == []


def test_adopted_runs_beyond_a_lowered_limit_are_no_debt(slots: Slots) -> None:
    for key in "abc":
        slots.adopt(claim(key))
    slots.wait(claim("w"))
    assert slots.release("a") == []
    assert slots.release("b") == []
    assert slots.release("c") == ["w"]
    assert slots.running == {}


KEYS = st.sampled_from([f"team/{letter}" for letter in "abcdefgh"])
POOLS = ("pipeline-1", "pipeline-2", "repository-1", "repository-2")


class Ledger(RuleBasedStateMachine):
    """A slow and obvious model beside the ledger; limits are the same for all claims on a pool."""

    def __init__(self) -> None:
        super().__init__()
        self.slots = Slots()
        self.holding: dict[str, Claim] = {}
        self.waiting: dict[str, Claim] = {}
        self.excess: dict[str, int] = {}

    @initialize(limits=st.fixed_dictionaries({pool: st.one_of(st.none(), st.integers(1, 3)) for pool in POOLS}))
    def limits(self, limits: dict[str, int | None]) -> None:
        self.limit = limits

    def claim(self, key: str, pools: tuple[str, ...], priority: int, age: int) -> Claim:
        return Claim(key, tuple((pool, self.limit[pool]) for pool in pools), priority, START + timedelta(seconds=age))

    def used(self, pool: str, but: str = "") -> int:
        return sum(pool in dict(holder.pools) for key, holder in self.holding.items() if key != but)

    def admitted(self, but: str = "") -> list[str]:
        """Everybody in line who runs if the line is served from its front; `but` gives up its slot first."""
        room = {pool: limit - self.used(pool, but) for pool, limit in self.limit.items() if limit is not None}
        result = []
        for waiting in sorted(self.waiting.values(), key=lambda one: one.order):
            if all(room[pool] > 0 for pool, limit in waiting.pools if limit is not None):
                result.append(waiting.key)
                for pool, limit in waiting.pools:
                    if limit is not None:
                        room[pool] -= 1
        return result

    claims = (
        KEYS,
        st.tuples(st.sampled_from(POOLS[:2]), st.sampled_from(POOLS[2:])),
        st.integers(-1, 1),
        st.integers(0, 3),
    )

    @rule(key=KEYS, pools=claims[1], priority=claims[2], age=claims[3])
    def ask(self, key: str, pools: tuple[str, ...], priority: int, age: int) -> None:
        """An item wants a run: it runs if it may, else it waits."""
        claim = self.claim(key, pools, priority, age)
        answer = self.slots.peek(claim)
        self.waiting[key] = claim  # the model: stand in line, and see whether the line is served down to you
        expected = key in self.admitted(but=key)
        assert answer.granted is expected
        if answer.granted:
            del self.waiting[key]
            self.slots.take(claim)
            self.holding[key] = claim
        else:
            assert answer.pool in pools
            assert answer.limit == self.limit[str(answer.pool)]
            assert answer.behind
            assert key not in answer.behind
            assert answer.ahead == sum(
                other.order < claim.order and answer.pool in dict(other.pools) for other in self.waiting.values()
            )
            self.holding.pop(key, None)
            assert self.slots.wait(claim) == self.admitted()

    @rule(key=KEYS, pools=claims[1])
    def adopt(self, key: str, pools: tuple[str, ...]) -> None:
        """At the start of the operator, before anybody waits."""
        assume(not self.waiting)
        claim = self.claim(key, pools, 0, 0)
        self.slots.adopt(claim)
        self.holding[key] = claim
        for pool in POOLS:
            self.excess[pool] = max(self.excess.get(pool, 0), self.used(pool))

    @precondition(lambda self: self.holding or self.waiting)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.holding.keys() | self.waiting.keys())))
        self.holding.pop(key, None)
        self.waiting.pop(key, None)
        woken = self.slots.release(key)
        assert woken == self.admitted()
        # Those who are woken are granted, in whatever order they come.
        assert all(self.slots.peek(self.waiting[other]).granted for other in woken)

    @rule()
    def serve(self) -> None:
        """The next one who can run does, and only those who were woken can."""
        admitted = self.admitted()
        for key, waiting in self.waiting.items():
            assert self.slots.peek(waiting).granted is (key in admitted)
        if admitted:
            self.slots.take(self.waiting[admitted[0]])
            self.holding[admitted[0]] = self.waiting.pop(admitted[0])

    @invariant()
    def no_pool_holds_more_than_its_limit_or_what_was_adopted(self) -> None:
        for pool, count in self.slots.running.items():
            limit = getattr(self, "limit", {}).get(pool)
            assert limit is None or count <= max(limit, self.excess.get(pool, 0))

    @invariant()
    def the_books_agree(self) -> None:
        assert {pool for pool in POOLS if self.used(pool)} == self.slots.running.keys()
        assert all(self.slots.running[pool] == self.used(pool) for pool in self.slots.running)
        assert all(self.slots.held(key) for key in self.holding)
        assert not any(self.slots.held(key) for key in self.waiting)
        assert sum(self.slots.queued.values()) == 2 * len(self.waiting)


TestLedger = Ledger.TestCase
TestLedger.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
