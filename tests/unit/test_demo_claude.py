"""The demo with Claude Code: its Pipeline, its scripted model's objects, and what a person may ask for."""

from __future__ import annotations

import kubernetes_validate
import pytest

from hack.demo import claude, install
from hack.demo.errors import DemoError
from hack.scriptedmodel.manifests import ModelServer, manifests
from workitems.api import Pipeline
from workitems.core import stages


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
