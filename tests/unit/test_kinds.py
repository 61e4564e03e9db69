"""An operator that is started together with its CRDs waits for them, and for nothing else."""

from __future__ import annotations

import pytest

from workitems import cluster, errors, kinds


class Api(cluster.Cluster):
    """An API server that does not serve a kind for its first few questions."""

    def __init__(self, absent: dict[cluster.Resource, int], reason: str = "NotFound") -> None:
        self.absent = absent
        self.reason = reason
        self.asked: list[tuple[cluster.Resource, str | None]] = []
        self.slept = 0.0

    async def version(self, resource: cluster.Resource, namespace: str | None) -> str:
        self.asked.append((resource, namespace))
        left = self.absent.get(resource, 0)
        self.absent[resource] = left - 1
        if left > 0:
            raise errors.Permanent(self.reason, f"list {resource}: 404")
        return "1"

    async def sleep(self, seconds: float) -> None:
        self.slept += seconds


@pytest.mark.parametrize("scope", [None, "team-a"])
async def test_kinds_that_are_served_are_asked_for_once(scope: str | None) -> None:
    api = Api({})
    await kinds.served(api, scope, api.sleep)
    assert api.asked == [(kind, scope) for kind in kinds.OURS]
    assert api.slept == 0


async def test_a_crd_that_is_not_established_yet_is_waited_for() -> None:
    api = Api({cluster.DECISIONS: 3})
    await kinds.served(api, None, api.sleep)
    assert api.slept == 3 * kinds.PERIOD_SECONDS


async def test_crds_that_never_come_are_named() -> None:
    api = Api({cluster.WORKITEMS: 10_000})
    with pytest.raises(errors.Permanent, match="workitems"):
        await kinds.served(api, None, api.sleep)
    assert api.slept == (kinds.ATTEMPTS - 1) * kinds.PERIOD_SECONDS


async def test_a_missing_right_is_not_waited_out() -> None:
    api = Api({cluster.WORKITEMS: 1}, "Forbidden")
    with pytest.raises(errors.Permanent, match="workitems"):
        await kinds.served(api, None, api.sleep)
    assert api.slept == 0
