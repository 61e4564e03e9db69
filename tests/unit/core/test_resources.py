"""What an agent gets of a node: its own words first, a default for every resource of which it says nothing."""

from __future__ import annotations

import pytest

from workitems.api import Agent
from workitems.api.container import Resources
from workitems.core import resources

REQUESTS, LIMITS = resources.DEFAULT_REQUESTS, resources.DEFAULT_LIMITS


@pytest.mark.parametrize(
    ("own", "requests", "limits"),
    [
        pytest.param(None, REQUESTS, LIMITS, id="says nothing"),
        pytest.param(
            Resources(requests={"memory": "8Gi"}),
            {**REQUESTS, "memory": "8Gi"},
            {"ephemeral-storage": "20Gi"},
            id="a request above the default limit",
        ),
        pytest.param(
            Resources(limits={"memory": "128Mi"}),
            {"cpu": "100m", "ephemeral-storage": "256Mi"},
            {"memory": "128Mi", "ephemeral-storage": "20Gi"},
            id="a limit below the default request",
        ),
        pytest.param(
            Resources(requests={"example.com/gpu": "1"}, limits={"example.com/gpu": "1"}),
            {**REQUESTS, "example.com/gpu": "1"},
            {**LIMITS, "example.com/gpu": "1"},
            id="a resource that has no default",
        ),
    ],
)
def test_an_agent_gets(own: Resources | None, requests: dict[str, str], limits: dict[str, str]) -> None:
    assert resources.of(Agent(resources=own)) == {"requests": requests, "limits": limits}


def test_no_default_limit_becomes_a_request() -> None:
    """Kubernetes requests the limit of what has no request: a node would be full of agents that take nothing."""
    assert set(LIMITS) <= set(REQUESTS)
