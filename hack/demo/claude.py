"""The demo with Claude Code in place of the programs: `make demo AGENT=claude`.

With ANTHROPIC_API_KEY set the real model works (ANTHROPIC_BASE_URL, where set, is its address); without it the real CLI
talks to a scripted model in the cluster, which does what the demo's programs do. The demo says which.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from hack.cluster import images, shell
from hack.demo import install
from hack.demo.errors import DemoError
from hack.scriptedmodel import manifests
from hack.scriptedmodel.manifests import ModelServer

if TYPE_CHECKING:
    from hack.cluster.model import Cluster
    from hack.demo.cluster import Kubectl, Object

AGENTS = ("programs", "claude")
SECRET = "model-key"  # noqa: S105 - the name of a Secret, not one
SCRIPTED_KEY = "scripted"
STALL_SECONDS = 1800  # a real model may think for longer than a program runs


def wanted() -> bool:
    """Whether the person wants Claude Code. Raises DemoError for an agent that is none of the demo's."""
    name = os.environ.get("AGENT") or AGENTS[0]
    if name not in AGENTS:
        raise DemoError(f"AGENT={name} is none of the demo's agents: say AGENT={' or AGENT='.join(AGENTS)}")
    return name == "claude"


def prepare(kubectl: Kubectl, cluster: Cluster, built: images.Images) -> None:
    """Put Claude Code into the demo's Pipeline: its image, a key, and where there is none, a scripted model."""
    image = images.claude(cluster)
    key = os.environ.get("ANTHROPIC_API_KEY", "")
    address = os.environ.get("ANTHROPIC_BASE_URL") if key else None
    if key:
        where = f" at {address}" if address else ""
        shell.say(f"the agents are Claude Code with the model of your ANTHROPIC_API_KEY{where}: this costs money")
    else:
        files = {path.name: path.read_text() for path in sorted((install.DEMO / "agents").glob("*.py"))}
        model = ModelServer(install.NAMESPACE, built.agent, replies="model", files=files)
        kubectl.apply(manifests.manifests(model))
        kubectl.run("rollout", "status", f"deployment/{model.name}", f"--timeout={install.ROLLOUT_TIMEOUT}")
        address = model.url
        shell.say("the agents are Claude Code with a scripted model, because ANTHROPIC_API_KEY is not set")
    metadata = {"name": SECRET, "namespace": install.NAMESPACE}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"apiKey": key or SCRIPTED_KEY}}
    kubectl.apply([secret, pipeline(install.manifest("pipeline"), image, address)])


def pipeline(body: Object, image: str, address: str | None) -> Object:
    """Return the demo's Pipeline with Claude Code as every agent."""
    spec = body["spec"]
    credentials = {"secretName": SECRET, **({"baseURL": address} if address else {})}
    defaults = {
        "claudeCode": {"tools": ["Read", "Write", "Edit", "Bash"], "image": image, "credentials": credentials},
        "commitPaths": spec["agentDefaults"]["commitPaths"],
        "timeout": "30m",
        "resources": {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"memory": "1Gi"}},
    }
    agents = {
        name: {field: value for field, value in agent.items() if field != "command"}
        for name, agent in spec["agents"].items()
    }
    return {**body, "spec": {**spec, "agentDefaults": defaults, "agents": agents}}
