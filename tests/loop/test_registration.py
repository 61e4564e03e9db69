"""`webhooks.manage`, by the whole operator: registered, repaired, replaced, and what stands in the way is said."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import httpx
import pytest

from tests.loop.apiserver import no_right_to
from tests.loop.lab import NAMESPACE, Lab
from tests.loop.store import JSON, REPOSITORIES, SECRETS
from tests.unit.core.world import FORGE
from workitems import errors

URL = f"https://hooks.example.com/hooks/{NAMESPACE}/shop/gitea"


def encoded(value: str) -> JSON:
    return {"gitea": base64.b64encode(value.encode()).decode()}


def prepare(lab: Lab, *, secret: bool = True, **webhooks: Any) -> None:
    lab.repository_with_forge()
    lab.repository(forge=FORGE, webhooks={"secretName": "shop-webhooks", "manage": True, **webhooks})
    if secret:
        lab.store.create(
            SECRETS,
            NAMESPACE,
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": "shop-webhooks"},
                "data": encoded("one\n"),
            },
        )


def start(lab: Lab, **settings: Any) -> None:
    lab.start(**{"webhook_port": lab.free_port(), "webhook_url": "https://hooks.example.com/", **settings})


def registered(lab: Lab, name: str = "shop") -> tuple[str, str, str]:
    """Status, reason and message of the condition."""
    status = lab.store.get(REPOSITORIES, NAMESPACE, name).get("status") or {}
    for condition in status.get("conditions") or ():
        if condition["type"] == "WebhookRegistered":
            return condition["status"], condition["reason"], condition["message"]
    return "", "", ""


def writes(lab: Lab) -> int:
    return sum(call.kind is REPOSITORIES for call in lab.server.writes())


@pytest.mark.slow
async def test_it_is_registered_repaired_and_replaced(lab: Lab) -> None:
    prepare(lab)
    start(lab)
    await lab.until(lambda: bool(registered(lab)[0]), "an outcome")
    assert registered(lab) == ("True", "Registered", f"deliveries go to {URL}")
    assert lab.forge.webhooks == {URL: "one"}
    assert writes(lab) == 1
    await lab.rest(3600)
    assert writes(lab) == 1
    lab.forge.webhooks.clear()
    await lab.rest(200)
    assert lab.forge.webhooks == {URL: "one"}
    # Nobody can see which secret a forge has: a new one means a new webhook.
    lab.store.patch(SECRETS, NAMESPACE, "shop-webhooks", {"data": encoded("two")})
    await lab.rest(200)
    assert lab.forge.webhooks == {URL: "two"}
    await lab.stop()


async def test_an_operator_that_moved_leaves_no_webhook_behind(lab: Lab) -> None:
    prepare(lab)
    start(lab)
    await lab.until(lambda: bool(registered(lab)[0]), "an outcome")
    # Somebody else's, who registered it by hand.
    lab.forge.webhooks["https://ci.example.com/"] = "theirs"
    await lab.stop()
    start(lab, webhook_url="https://elsewhere.example.com")
    moved = f"https://elsewhere.example.com/hooks/{NAMESPACE}/shop/gitea"
    await lab.until(lambda: registered(lab)[2] == f"deliveries go to {moved}", "its new address")
    assert lab.forge.webhooks == {"https://ci.example.com/": "theirs", moved: "one"}
    await lab.stop()


async def test_a_forge_that_hangs_holds_up_nobody_elses(lab: Lab) -> None:
    prepare(lab)
    lab.forge.hang = lambda: asyncio.sleep(86400)
    lab.repository("zoo", forge=FORGE, webhooks={"secretName": "none", "manage": True})
    start(lab)
    await lab.rest(5)
    assert registered(lab)[0] == ""
    assert registered(lab, "zoo")[1] == "SecretNotFound", "it was looked at meanwhile"
    await lab.rest(120)
    assert registered(lab) == ("False", "ForgeUnreachable", "no answer within 60 s")
    lab.forge.hang = None
    await lab.rest(200)
    assert registered(lab)[:2] == ("True", "Registered")
    await lab.stop()


async def test_a_repository_that_changes_is_seen_to_at_once(lab: Lab) -> None:
    prepare(lab, manage=False)
    start(lab, sweep_seconds=86400)
    await lab.rest(60)
    assert (lab.forge.webhooks, registered(lab)) == ({}, ("", "", ""))
    lab.repository(webhooks={"secretName": "shop-webhooks", "manage": True})
    await lab.rest(5)
    assert registered(lab)[0] == "True"
    lab.repository(webhooks={"secretName": "shop-webhooks", "manage": False})
    await lab.rest(5)
    assert registered(lab) == ("", "", "")
    # It is somebody else's now.
    assert lab.forge.webhooks == {URL: "one"}


def unverifiable(lab: Lab) -> tuple[str, str]:
    """Reason and message of the condition DeliveriesVerifiable; it is never anything but False."""
    status = lab.store.get(REPOSITORIES, NAMESPACE, "shop").get("status") or {}
    for condition in status.get("conditions") or ():
        if condition["type"] == "DeliveriesVerifiable":
            assert condition["status"] == "False"
            assert "observedGeneration" not in status, "nobody waits for what is not managed"
            return condition["reason"], condition["message"]
    return "", ""


@pytest.mark.slow
async def test_a_secret_that_the_operator_may_not_read_is_said_once_where_nobody_manages_webhooks(lab: Lab) -> None:
    prepare(lab, manage=False)
    lab.server.fault = no_right_to("shop-webhooks")
    port = lab.free_port()
    start(lab, webhook_port=port)
    await lab.until(lambda: bool(unverifiable(lab)[0]), "a condition")
    assert unverifiable(lab)[0] == "Forbidden"
    assert "if the chart's rbac.secretNames names Secrets, add shop-webhooks" in unverifiable(lab)[1]
    async with httpx.AsyncClient(trust_env=False, timeout=None) as client:
        for _ in range(20):
            address = f"http://127.0.0.1:{port}/hooks/{NAMESPACE}/shop/gitea"
            answer = await client.post(address, json={"ref": "refs/heads/x"})
            assert answer.status_code == 503
    await lab.rest(3600)
    assert (writes(lab), registered(lab)) == (1, ("", "", ""))
    lab.server.fault = lambda _call: None
    await lab.until(lambda: not unverifiable(lab)[0], "no condition")
    await lab.rest(3600)
    assert writes(lab) == 2


async def test_a_secret_without_a_key_of_any_source_is_said_where_nobody_manages_webhooks(lab: Lab) -> None:
    prepare(lab, secret=False, manage=False)
    start(lab)
    await lab.until(lambda: bool(unverifiable(lab)[0]), "a condition")
    assert unverifiable(lab)[0] == "SecretNotFound"
    assert (
        "Secret shop-webhooks in namespace team-a, which spec.webhooks names, has no key gitea" in unverifiable(lab)[1]
    )
    # Managed, the one condition says all of it.
    lab.repository(webhooks={"secretName": "shop-webhooks", "manage": True})
    await lab.until(lambda: registered(lab)[1] == "SecretNotFound", "the other condition")
    assert unverifiable(lab) == ("", "")
    lab.repository(webhooks=None)
    await lab.until(lambda: registered(lab) == ("", "", ""), "no condition")
    assert unverifiable(lab) == ("", "")


async def test_an_operator_that_receives_nothing_reads_no_secret_of_webhooks(lab: Lab) -> None:
    prepare(lab, secret=False, manage=False)
    lab.start()
    await lab.rest(600)
    assert (unverifiable(lab), writes(lab)) == (("", ""), 0)


async def test_what_stands_in_the_way_is_said_and_mends_itself(lab: Lab) -> None:
    prepare(lab, secret=False)
    lab.start()
    await lab.until(lambda: bool(registered(lab)[0]), "an outcome")
    assert registered(lab)[:2] == ("False", "NoReceiver")
    assert "set the chart's webhooks.enabled, and webhooks.url or webhooks.host" in registered(lab)[2]
    await lab.stop()
    start(lab)
    await lab.rest(60)
    assert registered(lab)[:2] == ("False", "SecretNotFound")
    assert "Secret shop-webhooks in namespace team-a" in registered(lab)[2]
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "shop-webhooks"}, "data": encoded("one")}
    lab.store.create(SECRETS, NAMESPACE, body)
    lab.forge.away = "no connection"
    await lab.rest(200)
    assert registered(lab) == ("False", "ForgeUnreachable", "no connection")
    lab.forge.away = ""
    lab.forge.refuses = errors.Permanent("Forbidden", "needs to administer it")
    await lab.rest(200)
    assert registered(lab) == ("False", "Forbidden", "needs to administer it")
    lab.forge.refuses = None
    await lab.rest(200)
    assert registered(lab)[:2] == ("True", "Registered")
    assert writes(lab) == 5
