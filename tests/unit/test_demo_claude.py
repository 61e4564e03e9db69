"""The demo with Claude Code: its Pipeline, its scripted model's objects, and what a person may ask for."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import kubernetes_validate
import pytest

from hack.cluster import images, shell
from hack.demo import claude, install
from hack.demo.errors import DemoError
from hack.scriptedmodel.manifests import ModelServer, manifests
from workitems.api import Pipeline
from workitems.core import stages

if TYPE_CHECKING:
    from hack.cluster.model import Cluster
    from hack.demo.cluster import Object


@dataclasses.dataclass
class Recorded:
    """A kubectl that writes down what it was told."""

    applied: list[Object] = dataclasses.field(default_factory=list)
    ran: list[tuple[str, ...]] = dataclasses.field(default_factory=list)

    def apply(self, manifests: Sequence[Object]) -> None:
        self.applied += manifests

    def run(self, *arguments: str) -> str:
        self.ran.append(arguments)
        return ""


PREPARED: dict[str, tuple[dict[str, str], str, str | None, str]] = {
    "no key": ({}, "scripted", "http://model.workitems-demo.svc", "scripted model, because ANTHROPIC_API_KEY is not"),
    "an address without a key is nobody's": (
        {"ANTHROPIC_BASE_URL": "https://gateway.example.com"},
        "scripted",
        "http://model.workitems-demo.svc",
        "a scripted model",
    ),
    "a key": ({"ANTHROPIC_API_KEY": "sk-real"}, "sk-real", None, "your ANTHROPIC_API_KEY: this costs money"),
    "a key for a gateway": (
        {"ANTHROPIC_API_KEY": "sk-real", "ANTHROPIC_BASE_URL": "https://gateway.example.com"},
        "sk-real",
        "https://gateway.example.com",
        "your ANTHROPIC_API_KEY at https://gateway.example.com",
    ),
}


@pytest.mark.parametrize(("environment", "key", "address", "sentence"), PREPARED.values(), ids=PREPARED)
def test_the_demo_says_which_model_works_and_gives_it_the_right_key(
    environment: dict[str, str], key: str, address: str | None, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(images, "claude", lambda _cluster: "claude:1")
    monkeypatch.setattr(shell, "say", said.append)
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    kubectl: Any = Recorded()
    claude.prepare(kubectl, cast("Cluster", None), images.Images("operator:1", "agent:1"))

    made = {body["kind"]: body for body in kubectl.applied}
    assert made["Secret"]["stringData"] == {"apiKey": key}
    credentials = made["Pipeline"]["spec"]["agentDefaults"]["claudeCode"]["credentials"]
    assert credentials == {"secretName": "model-key"} | ({"baseURL": address} if address else {})
    assert ("Deployment" in made, bool(kubectl.ran)) == (key == "scripted", key == "scripted")
    assert sentence in " ".join(said)
    assert key == "scripted" or "sk-real" not in " ".join(said)


@pytest.mark.parametrize("address", [None, "http://model.workitems-demo.svc"])
def test_every_agent_of_the_pipeline_is_claude_code_with_the_demos_key(address: str | None) -> None:
    spec = Pipeline.parse(claude.pipeline(install.manifest("pipeline"), "claude:1", address)).spec
    assert stages.mistakes(spec) == ()
    for stage in spec.stages:
        agent = stages.agent_of(spec, stage.agent)
        assert agent.command is None
        assert agent.claude_code is not None
        assert agent.claude_code.credentials is not None
        assert (agent.claude_code.image, agent.claude_code.credentials.base_url) == ("claude:1", address)
        assert agent.system_prompt_file == f".openclaw/agents/{stage.agent}.md"


def test_the_scripted_models_objects_are_valid() -> None:
    server = ModelServer("demo", "agent:1", key="k", replies="model", files={"model.py": "x = 1\n"})
    made = {body["kind"]: body for body in manifests(server)}
    for body in made.values():
        kubernetes_validate.validate(body, kubernetes_validate.latest_version(), strict=True)
    assert set(made["ConfigMap"]["data"]) == {"model.py", "server.py"}
    assert server.url == "http://model.demo.svc"


def test_an_agent_that_the_demo_does_not_have_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT", "")
    assert not claude.wanted()
    monkeypatch.setenv("AGENT", "claude")
    assert claude.wanted()
    monkeypatch.setenv("AGENT", "gpt")
    with pytest.raises(DemoError, match="AGENT=programs or AGENT=claude"):
        claude.wanted()
