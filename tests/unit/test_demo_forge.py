"""The demo's repository and bot on a real Gitea; of the cluster only the Secrets are kept here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

from hack.demo import forge, install
from hack.demo.cluster import Kubectl
from hack.gitea import local
from hack.gitea.client import Client


@dataclass
class Secrets:
    """The two calls of kubectl that matter, on a dictionary."""

    namespace: str = "demo"
    there: dict[str, dict[str, Any]] = field(default_factory=dict)

    def find(self, kind: str, name: str) -> dict[str, Any] | None:
        assert kind == "secret"
        return self.there.get(name)

    def apply(self, objects: list[dict[str, Any]]) -> None:
        self.there.update({body["metadata"]["name"]: body for body in objects})


def test_the_shop_and_its_bot_are_made_once_and_the_bot_may_do_what_the_operator_does(gitea: local.Server) -> None:
    secrets = Secrets()
    kubectl = cast("Kubectl", secrets)
    repository = forge.shop(kubectl, gitea.admin, install.DEMO / "repository")
    before = {name: body["stringData"] for name, body in secrets.there.items()}
    again = forge.shop(kubectl, gitea.admin, install.DEMO / "repository")
    assert {name: body["stringData"] for name, body in secrets.there.items()} == before
    assert again == repository
    assert repository.subjects("main") == ["Start the shop"]

    given = before["shop-gitea"]
    assert given["password"] == given["token"]
    bot = repository.by(Client(gitea.url, given["username"], token=given["token"]))
    bot.commit("feature/x", "src/x.py", "x = 1\n")
    number = bot.open_pull_request("feature/x")["number"]
    config = {"url": "http://127.0.0.1:9/hooks", "content_type": "json", "secret": before["shop-webhooks"]["gitea"]}
    bot.ask("POST", "/hooks", {"type": "gitea", "config": config, "events": ["push"], "active": True})
    bot.merge(number)
    assert repository.has("feature/x")
    assert repository.pull_requests()[0]["merged"]
    spec = install.manifest("repository")["spec"]["forge"]["gitea"]
    assert (spec["owner"], spec["name"]) == (repository.owner, repository.name)
