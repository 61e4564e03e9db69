"""Webhooks to a whole operator: what is genuine wakes its item, and nothing else costs anything."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import random
import re
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.loop.apiserver import Cut
from tests.loop.lab import NAMESPACE, Lab
from tests.loop.store import JSON, REPOSITORIES, SECRETS, WORKITEMS
from workitems import webhooks

SECRET = "a key that only the forge knows"
BRANCH = "feature/et-1,=x"
PATH = f"/hooks/{NAMESPACE}/shop/gitea"
FORGED = 200


class Forge:
    """Sends deliveries, good ones and others."""

    def __init__(self, port: int) -> None:
        self.client = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", timeout=None, verify=False, trust_env=False
        )

    async def send(self, body: bytes, *, path: str = PATH, signature: str | None = None, **headers: str) -> int:
        if signature is None:
            signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
        usual = {"Content-Type": "application/json", "X-Gitea-Event": "push", "X-Gitea-Signature": signature}
        named = {**usual, **{name.replace("_", "-"): value for name, value in headers.items()}}
        sent = {name.encode(): value.encode("latin-1") for name, value in named.items()}
        answer = await self.client.post(path, content=body, headers=sent)
        assert len(answer.content) < 64, "a refusal says no more than its code"
        return answer.status_code

    async def push(self, branch: str = BRANCH, **arguments: Any) -> int:
        return await self.send(push(branch), **arguments)


def push(branch: str) -> bytes:
    return json.dumps({"ref": f"refs/heads/{branch}", "before": "0" * 40, "after": "1" * 40}).encode()


def secret(value: bytes) -> JSON:
    body = {"gitea": base64.b64encode(value).decode()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "shop-webhooks"}, "data": body}


@pytest.fixture
async def port(lab: Lab) -> int:
    return lab.free_port()


@pytest.fixture
async def forge(port: int) -> AsyncIterator[Forge]:
    result = Forge(port)
    yield result
    await result.client.aclose()


async def an_item_that_waits(lab: Lab, port: int) -> None:
    """In review, with nothing left that would wake it before the sweep."""
    lab.repository(webhooks={"secretName": "shop-webhooks"})
    # An editor's line end at the end is no part of it.
    lab.store.create(SECRETS, NAMESPACE, secret(SECRET.encode() + b"\n"))
    lab.pipeline()
    lab.start(webhook_port=port, sweep_seconds=86400)
    lab.item("et-1", branch=BRANCH)
    await lab.until_phase("InReview", "et-1")
    await lab.rest()


def looks(lab: Lab) -> int:
    """How often the item was looked at."""
    return sum(call.verb == "get" and call.kind is WORKITEMS and call.name == "et-1" for call in lab.server.calls)


async def test_a_push_wakes_the_item_of_its_branch(lab: Lab, port: int, forge: Forge) -> None:
    await an_item_that_waits(lab, port)
    before = looks(lab)
    assert await forge.push() == 202
    await lab.rest(1)
    assert looks(lab) == before + 1
    assert await forge.push("feature/another") == 202
    await lab.rest(1)
    assert looks(lab) == before + 1


async def test_a_status_wakes_the_item_whose_head_it_is_about(lab: Lab, port: int, forge: Forge) -> None:
    await an_item_that_waits(lab, port)
    before = looks(lab)
    for sha, more in ((lab.status("et-1").head, 1), ("f" * 40, 1)):
        body = json.dumps({"sha": sha, "state": "success", "context": "build"}).encode()
        assert await forge.send(body, X_Gitea_Event="status") == 202
        await lab.rest(1)
        assert looks(lab) == before + more


async def test_a_finished_item_is_not_woken(lab: Lab, port: int, forge: Forge) -> None:
    await an_item_that_waits(lab, port)
    lab.decide("et-1", "abort")
    await lab.until_phase("Aborted", "et-1")
    await lab.rest()
    before = looks(lab)
    assert await forge.push() == 202
    await lab.rest(1)
    assert looks(lab) == before


def bad_delivery(number: int, luck: random.Random) -> tuple[dict[str, Any], set[int]]:
    """One of many ways to be no good, and the codes that it may be answered with."""
    body = push(BRANCH)
    other = hmac.new(b"another key", body, hashlib.sha256).hexdigest()
    genuine = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    junk = luck.randbytes(luck.randrange(1, 2000))
    kinds: list[tuple[dict[str, Any], set[int]]] = [
        ({"body": body, "signature": other}, {401}),
        ({"body": body, "signature": ""}, {401}),
        ({"body": body, "signature": "ä"}, {401}),
        ({"body": body, "signature": genuine[:-1]}, {401}),
        ({"body": body, "signature": genuine.upper()}, {401}),
        ({"body": body + b" ", "signature": genuine}, {401}),
        ({"body": junk, "signature": other}, {401}),
        ({"body": b"x" * (webhooks.BODY_LIMIT + 1)}, {413}),
        ({"body": body, "Content_Type": "application/x-www-form-urlencoded"}, {415}),
        ({"body": body, "Content_Type": "text/plain"}, {415}),
        # Signed, and yet nothing that Gitea sends.
        ({"body": junk}, {400}),
        ({"body": b"[" * 100_000}, {400}),
        ({"body": b'{"ref": 7}'}, {400}),
        ({"body": b"null"}, {400}),
        ({"body": b'{"ref": "refs/heads/' + b"x" * 500 + b'"}'}, {400}),
        ({"body": b'{"sha": "main"}', "X_Gitea_Event": "status"}, {400}),
        ({"body": b'{"pull_request": null}', "X_Gitea_Event": "pull_request"}, {400}),
        # Elsewhere. 503: too many names that nobody knows, at once.
        ({"body": body, "path": f"/hooks/{NAMESPACE}/shop-{number}/gitea"}, {404, 503}),
        ({"body": body, "path": f"/hooks/team-{number}/shop/gitea"}, {404, 503}),
        ({"body": body, "path": f"/hooks/{NAMESPACE}/shop/github"}, {404}),
        ({"body": body, "path": f"/hooks/{NAMESPACE}/SHOP%2F..%2F/gitea"}, {404}),
        ({"body": body, "path": "/hooks/"}, {404}),
        ({"body": body, "path": "/metrics"}, {404}),
    ]
    return kinds[number % len(kinds)]


@pytest.mark.slow
async def test_hundreds_of_forged_malformed_and_oversized_deliveries_do_nothing(
    lab: Lab, port: int, forge: Forge
) -> None:
    await an_item_that_waits(lab, port)
    looked, written, asked = looks(lab), len(lab.server.writes()), len(lab.server.calls)
    luck, codes = random.Random(7), Counter[int]()
    for number in range(FORGED):
        delivery, expected = bad_delivery(number, luck)
        code = await forge.send(**delivery)
        assert code in expected, (code, delivery)
        codes[code] += 1
    await lab.rest(1)
    assert (looks(lab), len(lab.server.writes())) == (looked, written)
    assert {400, 401, 404, 413, 415} <= codes.keys()
    shown = (await forge.client.get(f"{lab.health_url}/metrics")).text
    counted = re.findall(r'^workitem_webhook_deliveries_total{code="401",source="gitea"} (\d+)', shown, re.MULTILINE)
    assert counted == [str(codes[401])]
    # What nobody knows is asked for at a rate that no flood can raise; a known name costs two reads in fifteen seconds.
    assert len(lab.server.calls) - asked < 30
    assert await forge.push() == 202
    await lab.rest(1)
    assert looks(lab) == looked + 1


@pytest.mark.slow
async def test_a_replayed_delivery_is_one_more_look_and_nothing_else(lab: Lab, port: int, forge: Forge) -> None:
    await an_item_that_waits(lab, port)
    looked, written = looks(lab), len(lab.server.writes())
    for _ in range(FORGED):
        assert await forge.push() == 202
    await lab.rest(1)
    assert looks(lab) > looked
    assert len(lab.server.writes()) == written
    assert lab.phase("et-1") == "InReview"


async def test_a_new_secret_counts_after_seconds_and_a_missing_one_opens_nothing(
    lab: Lab, port: int, forge: Forge
) -> None:
    await an_item_that_waits(lab, port)
    body = push(BRANCH)
    assert await forge.push() == 202
    lab.store.patch(SECRETS, NAMESPACE, "shop-webhooks", {"data": secret(b"new")["data"]})
    await lab.rest(60)
    assert await forge.push() == 401
    assert await forge.send(body, signature=hmac.new(b"new", body, hashlib.sha256).hexdigest()) == 202
    lab.store.patch(SECRETS, NAMESPACE, "shop-webhooks", {"data": {"gitea": ""}})
    await lab.rest(60)
    assert await forge.send(body, signature=hmac.new(b"", body, hashlib.sha256).hexdigest()) == 404
    lab.store.patch(REPOSITORIES, NAMESPACE, "shop", {"spec": {"webhooks": None}})
    await lab.rest(60)
    assert await forge.push() == 404


async def test_the_first_fifty_deliveries_at_once_are_all_taken(lab: Lab, port: int, forge: Forge) -> None:
    await an_item_that_waits(lab, port)
    asked = len(lab.server.calls)
    codes = await asyncio.gather(*(forge.push() for _ in range(50)))
    assert codes == [202] * 50
    reads = [call for call in lab.server.calls[asked:] if call.kind in (REPOSITORIES, SECRETS) and call.verb == "get"]
    assert len(reads) == 2


async def test_a_body_without_a_length_is_cut_off_where_it_is_too_large(lab: Lab, port: int, forge: Forge) -> None:
    await an_item_that_waits(lab, port)

    async def chunks(count: int) -> AsyncIterator[bytes]:
        for _ in range(count):
            yield b" " * 65536

    async def send(content: AsyncIterator[bytes]) -> int:
        headers = {"Content-Type": "application/json", "X-Gitea-Event": "push", "X-Gitea-Signature": "0" * 64}
        return (await forge.client.post(PATH, content=content, headers=headers)).status_code

    assert await send(chunks(16)) == 401, "as much as anybody may send is read, and not signed"
    assert await send(chunks(17)) == 413


async def test_strangers_who_send_slowly_keep_no_delivery_out(
    lab: Lab, port: int, forge: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    await an_item_that_waits(lab, port)
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{{"
    strangers = [await asyncio.open_connection("127.0.0.1", port) for _ in range(webhooks.AT_ONCE + 8)]
    for _, writer in strangers:
        writer.write(head.encode())
        await writer.drain()
    assert await forge.push() == 202
    for reader, writer in strangers:
        assert (await reader.readline()).startswith(b"HTTP/1.1 408")
        writer.close()


async def test_more_than_can_be_held_is_put_off(
    lab: Lab, port: int, forge: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    await an_item_that_waits(lab, port)
    monkeypatch.setattr(webhooks, "HELD_LIMIT", 1000)
    assert await forge.send(b" " * 1001) == 503
    # Nothing of it is held any more.
    assert await forge.push() == 202


async def test_an_api_server_that_is_away_does_not_stop_known_deliveries(lab: Lab, port: int, forge: Forge) -> None:
    await an_item_that_waits(lab, port)
    assert await forge.push() == 202
    await lab.rest(60)
    lab.server.fault = lambda call: Cut.RESET if call.kind in (REPOSITORIES, SECRETS) else None
    assert await forge.push() == 202
    assert await forge.push(path=f"/hooks/{NAMESPACE}/unknown/gitea") == 503


async def test_no_port_no_receiver(lab: Lab, port: int, forge: Forge) -> None:
    lab.start()
    await lab.rest(1)
    with pytest.raises(httpx.ConnectError):
        await forge.push()
