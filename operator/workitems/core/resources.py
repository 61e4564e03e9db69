"""What a runner, and an agent or command gate whose Pipeline does not say, may take of a node: never all of it."""

from __future__ import annotations

from workitems.api import Agent
from workitems.api.container import Resources

# Of what has a limit and no request Kubernetes requests the limit: five agents would fill a node's disk with nothing.
DEFAULT_REQUESTS = {"cpu": "100m", "memory": "256Mi", "ephemeral-storage": "256Mi"}
CLAUDE_REQUESTS = {**DEFAULT_REQUESTS, "memory": "512Mi"}
"""Claude Code alone takes 220 MB."""
DEFAULT_LIMITS = {"memory": "4Gi", "ephemeral-storage": "20Gi"}
RUNNER_MEBIBYTES = 64
"""What the runner requests. What git takes grows with the repository: the limit is the operator's to set."""


def of(agent: Agent) -> dict[str, dict[str, str]]:
    """The agent's own requests and limits, and the defaults for every resource of which it names neither."""
    own = agent.resources or Resources()
    requests, limits = own.requests or {}, own.limits or {}
    # A default limit below a request of the agent's own would be refused: who names one of the two has decided.
    named = {*requests, *limits}
    both = {
        "requests": {**_without(CLAUDE_REQUESTS if agent.claude_code else DEFAULT_REQUESTS, named), **requests},
        "limits": {**_without(DEFAULT_LIMITS, named), **limits},
    }
    return {kind: amounts for kind, amounts in both.items() if amounts}


def of_runner(memory: str) -> dict[str, dict[str, str]]:
    """The runner's requests, and its limit of memory."""
    return {"requests": {"cpu": "50m", "memory": f"{RUNNER_MEBIBYTES}Mi"}, "limits": {"memory": memory}}


def _without(amounts: dict[str, str], names: set[str]) -> dict[str, str]:
    return {name: amount for name, amount in amounts.items() if name not in names}
