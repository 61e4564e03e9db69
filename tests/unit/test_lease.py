"""Of several operators one leads; another takes over when it has let go, or has been silent for long enough."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

import pytest

from workitems import cluster, errors, lease

JSON = dict[str, Any]


class Clock:
    """Time that passes when somebody waits, and hands over to whoever else waits."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)


class Api(cluster.Cluster):
    """One Lease on an API server that may be away."""

    def __init__(self) -> None:
        self.live: JSON | None = None
        self.writes = 0
        self.away = False
        self.refused = False

    async def get(self, resource: cluster.Resource, namespace: str | None, name: str) -> JSON | None:
        assert (resource, namespace, name) == (lease.LEASES, "workitem-operator", "leader")
        if self.away:
            raise errors.Transient("get leases: no answer")
        if self.refused:
            raise errors.Permanent("Forbidden", "get leases: no")
        return copy.deepcopy(self.live)

    async def create(self, resource: cluster.Resource, namespace: str | None, body: JSON) -> JSON | None:
        assert (resource, namespace) == (lease.LEASES, "workitem-operator")
        return self._store(body) if self.live is None else None

    async def replace(self, resource: cluster.Resource, body: JSON, *, subresource: str = "") -> JSON:
        assert (resource, subresource) == (lease.LEASES, "")
        assert self.live is not None
        if self.away:
            raise errors.Transient("update leases: no answer")
        if body["metadata"]["resourceVersion"] != self.live["metadata"]["resourceVersion"]:
            raise errors.Conflict("update leases: changed")
        return self._store(body)

    def _store(self, body: JSON) -> JSON:
        self.writes += 1
        self.live = copy.deepcopy(body)
        self.live["metadata"]["resourceVersion"] = str(self.writes)
        return copy.deepcopy(self.live)

    @property
    def holder(self) -> str:
        assert self.live is not None
        return str(self.live["spec"]["holderIdentity"])


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def api() -> Api:
    return Api()


def one(api: Api, clock: Clock, identity: str) -> lease.Lease:
    return lease.Lease(api, ("workitem-operator", "leader"), identity, clock, clock.sleep)


async def test_the_first_leads_at_once_and_keeps_its_lease(api: Api, clock: Clock) -> None:
    first = one(api, clock, "a")
    await first.acquire()
    assert (api.holder, clock.now) == ("a", 100.0)
    keeping = asyncio.create_task(first.keep())
    for _ in range(50):
        await asyncio.sleep(0)
    assert not keeping.done()
    assert api.writes > 10
    assert api.live is not None
    assert api.live["spec"]["leaseTransitions"] == 1
    keeping.cancel()


async def test_the_second_waits_while_the_first_renews(api: Api, clock: Clock) -> None:
    first, second = one(api, clock, "a"), one(api, clock, "b")
    await first.acquire()
    keeping, waiting = asyncio.create_task(first.keep()), asyncio.create_task(second.acquire())
    for _ in range(100):
        await asyncio.sleep(0)
    assert clock.now > 100 + 3 * lease.DURATION_SECONDS
    assert not waiting.done()
    keeping.cancel()
    # Killed without a word: after its silence the second leads.
    silent = clock.now
    await waiting
    assert api.holder == "b"
    assert clock.now - silent >= lease.DURATION_SECONDS - lease.PERIOD_SECONDS


async def test_what_is_let_go_is_free_at_once(api: Api, clock: Clock) -> None:
    first, second = one(api, clock, "a"), one(api, clock, "b")
    await first.acquire()
    await first.release()
    await second.acquire()
    assert (api.holder, clock.now) == ("b", 100.0)
    await first.release()
    assert api.holder == "b", "only the holder lets go"


async def test_a_pod_whose_container_starts_again_goes_on_leading(api: Api, clock: Clock) -> None:
    await one(api, clock, "a").acquire()
    await one(api, clock, "a").acquire()
    assert clock.now == 100.0


async def test_a_leader_that_cannot_renew_stops_before_another_begins(api: Api, clock: Clock) -> None:
    first = one(api, clock, "a")
    await first.acquire()
    api.away = True
    await first.keep()
    assert clock.now - 100.0 + lease.ATTEMPT_SECONDS < lease.DURATION_SECONDS


async def test_a_leader_whose_lease_was_taken_stops(api: Api, clock: Clock) -> None:
    first = one(api, clock, "a")
    await first.acquire()
    assert api.live is not None
    api._store({**api.live, "spec": {**api.live["spec"], "holderIdentity": "b"}})
    await first.keep()
    assert api.holder == "b"


async def test_a_short_absence_of_the_server_costs_nothing(api: Api, clock: Clock) -> None:
    first = one(api, clock, "a")
    await first.acquire()
    keeping = asyncio.create_task(first.keep())
    api.away = True
    for _ in range(2):
        await asyncio.sleep(0)
    api.away = False
    for _ in range(20):
        await asyncio.sleep(0)
    assert not keeping.done()
    keeping.cancel()


async def test_of_two_who_find_it_free_one_leads(api: Api, clock: Clock) -> None:
    await one(api, clock, "x").acquire()
    await one(api, clock, "x").release()
    first, second = one(api, clock, "a"), one(api, clock, "b")
    stale = copy.deepcopy(api.live)
    await first.acquire()
    assert stale is not None
    with pytest.raises(errors.Conflict):
        await api.replace(lease.LEASES, second._body(stale, holder="b"))
    assert api.holder == "a"


async def test_a_refusal_is_told_and_not_waited_out(api: Api, clock: Clock) -> None:
    api.refused = True
    with pytest.raises(errors.Permanent, match="get leases"):
        await one(api, clock, "a").acquire()
