"""The HTTP client against a real server: what is repeated, what is waited for, and what is never said."""

from __future__ import annotations

import logging
import ssl
import subprocess
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web

from tests.unit.integrations.scripted import Scripted, hang_up, serving
from workitems import errors, log
from workitems.integrations import http

TOKEN = "s3cr3t/token"


@pytest.fixture
async def server() -> AsyncIterator[Scripted]:
    async with serving() as scripted:
        yield scripted


@pytest.fixture
async def connections() -> AsyncIterator[http.Connections]:
    result = http.Connections()
    yield result
    await result.close()


class Clients:
    """Makes clients whose waits are remembered instead of waited for."""

    def __init__(self, connections: http.Connections) -> None:
        self.connections = connections
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def to(self, url: str, **access: Any) -> http.Client:
        access = {"headers": {"Authorization": f"token {TOKEN}"}, "hidden": (TOKEN,), **access}
        return http.Client(self.connections, http.Access(url, **access), sleep=self.sleep, jitter=lambda: 1.0)


@pytest.fixture
def clients(connections: http.Connections) -> Clients:
    return Clients(connections)


async def test_a_question_carries_the_credential_the_query_and_json(server: Scripted, clients: Clients) -> None:
    server.answers = [web.json_response({"number": 7}, status=201)]
    answer = await clients.to(server.url).request("POST", "/pulls", params={"page": 2}, body={"title": "Ä"})
    assert (answer.code, answer.good, answer.json()) == (201, True, {"number": 7})
    asked = server.asked[0]
    assert (asked.method, asked.path, asked.query, asked.body) == ("POST", "/pulls", {"page": "2"}, {"title": "Ä"})
    assert asked.headers["Authorization"] == f"token {TOKEN}"
    assert asked.headers["User-Agent"].startswith("workitem-operator/")


@pytest.mark.parametrize("code", [200, 204, 302, 400, 401, 403, 404, 405, 409, 422, 423])
async def test_what_a_server_decided_is_an_answer(server: Scripted, clients: Clients, code: int) -> None:
    server.answers = [web.Response(status=code, headers={"Location": "http://127.0.0.1:1/elsewhere"})]
    assert (await clients.to(server.url).request("GET", "/x")).code == code
    assert clients.slept == []


@pytest.mark.parametrize("code", [408, 425, 429, 500, 502, 503, 504])
async def test_what_may_be_repeated_is_repeated_with_growing_waits(
    server: Scripted, clients: Clients, code: int
) -> None:
    server.answers = [*(web.Response(status=code) for _ in range(3)), web.json_response("fine")]
    assert (await clients.to(server.url).request("GET", "/x")).json() == "fine"
    assert clients.slept == [0.5, 1.0, 2.0]


async def test_after_four_attempts_it_is_somebody_elses_turn(server: Scripted, clients: Clients) -> None:
    server.answers = [web.json_response({"message": "database is locked"}, status=500) for _ in range(5)]
    with pytest.raises(errors.Transient, match=r"GET http://127.0.0.1:\d+/x: it answered 500: database is locked"):
        await clients.to(server.url).request("GET", "/x")
    assert len(server.asked) == 4


async def test_a_short_retry_after_is_waited_for(server: Scripted, clients: Clients) -> None:
    server.answers = [web.Response(status=429, headers={"Retry-After": "3"}), web.Response()]
    await clients.to(server.url).request("POST", "/x", body={})
    assert clients.slept == [3.0]


async def test_a_long_retry_after_goes_to_the_caller(server: Scripted, clients: Clients) -> None:
    server.answers = [web.Response(status=503, headers={"Retry-After": "120"})]
    with pytest.raises(errors.Transient) as caught:
        await clients.to(server.url).request("GET", "/x")
    assert (caught.value.delay_seconds, clients.slept) == (120.0, [])


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7.0),
        ("Sun, 22 Nov 2026 14:00:30 GMT", 30.0),
        ("Sun, 22 Nov 2026 13:00:00 GMT", 0.0),
        ("", None),
        ("soon", None),
        ("99999999999999", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(text: str, seconds: float | None) -> None:
    now = datetime(2026, 11, 22, 14, tzinfo=UTC)
    assert http.retry_after_seconds({"Retry-After": text}, now) == seconds


@pytest.mark.parametrize("ours", [datetime(2026, 11, 22, 13, tzinfo=UTC), datetime(2026, 11, 22, 15, tzinfo=UTC)])
def test_a_date_to_come_back_at_is_by_the_servers_clock(ours: datetime) -> None:
    headers = {"Retry-After": "Sun, 22 Nov 2026 14:00:30 GMT", "Date": "Sun, 22 Nov 2026 14:00:00 GMT"}
    assert http.retry_after_seconds(headers, ours) == 30.0


@pytest.mark.parametrize("answer", [web.Response(status=502), web.Response(status=500), hang_up])
async def test_a_post_that_may_have_been_carried_out_is_not_repeated(
    server: Scripted, clients: Clients, answer: Any
) -> None:
    server.answers = [answer]
    with pytest.raises(errors.Unanswered):
        await clients.to(server.url).request("POST", "/x", body={})
    assert len(server.asked) == 1


async def test_a_patch_is_repeated_if_the_caller_says_that_it_may(server: Scripted, clients: Clients) -> None:
    server.answers = [hang_up, web.Response(status=502), web.Response(status=200)]
    answer = await clients.to(server.url).request("PATCH", "/x", body={}, repeat=True)
    assert (answer.code, len(server.asked)) == (200, 3)


async def test_a_post_that_found_no_server_was_surely_not_carried_out(clients: Clients) -> None:
    with pytest.raises(errors.Transient, match="no connection") as caught:
        await clients.to("http://127.0.0.1:1").request("POST", "/x", body={})
    assert not isinstance(caught.value, errors.Unanswered)
    assert len(clients.slept) == 3


async def test_an_answer_without_end_is_not_read(server: Scripted, clients: Clients) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 65536)

    server.answers = [endless]
    with pytest.raises(errors.Permanent, match="more than 8388608 bytes") as caught:
        await clients.to(server.url).request("GET", "/x")
    assert caught.value.reason == "AnswerTooLarge"


async def test_a_small_answer_that_unpacks_to_a_huge_one_is_not_read(server: Scripted, clients: Clients) -> None:
    response = web.Response(body=b"0" * (9 * 1024 * 1024))
    response.enable_compression(web.ContentCoding.gzip)
    server.answers = [response]
    with pytest.raises(errors.Permanent, match="bytes and was not read"):
        await clients.to(server.url).request("GET", "/x")


async def test_a_foreign_page_is_no_answer_and_is_not_quoted(server: Scripted, clients: Clients) -> None:
    server.answers = [web.Response(text="<h1>Log in, please</h1>", content_type="text/html")]
    answer = await clients.to(server.url).request("GET", "/x")
    with pytest.raises(errors.Transient, match="is no JSON") as caught:
        answer.json()
    assert "Log in" not in str(caught.value)
    assert answer.message == ""


@pytest.mark.parametrize("words", [f"bad token {TOKEN}", f"{'x' * 290} {TOKEN}"])
@pytest.mark.parametrize("code", [400, 401, 403, 405, 409])
async def test_a_refusal_that_repeats_the_request_does_not_repeat_its_token(
    server: Scripted, clients: Clients, code: int, words: str
) -> None:
    server.answers = [web.json_response({"message": words}, status=code)]
    answer = await clients.to(server.url).request("GET", "/x")
    assert "***" in answer.message
    assert "s3cr3t" not in f"{answer.message} {answer!r}"


@pytest.mark.parametrize("words", [f"bad token {TOKEN}", f"{'x' * 290} {TOKEN}"])
async def test_no_token_is_said_anywhere(
    server: Scripted, clients: Clients, caplog: pytest.LogCaptureFixture, words: str
) -> None:
    caplog.set_level(logging.DEBUG, "workitems")
    client = clients.to(server.url)
    server.answers = [web.json_response({"message": words}, status=500) for _ in range(4)]
    with pytest.raises(errors.Transient) as caught:
        await client.request("GET", f"/bot{TOKEN.replace('/', '%2F')}/send")
    said = (
        f"{caught.value} {caught.value!r} {client!r} {caplog.text} {caught.value.__cause__} {caught.value.__context__}"
    )
    assert "s3cr3t" not in said
    assert "/bot***/send" in str(caught.value)
    assert "s3cr3t" not in repr(http.Access("http://x", {"Authorization": TOKEN}, (TOKEN,)))


def test_httpx_does_not_log_addresses_that_may_hold_a_token() -> None:
    assert {log.LEVELS["httpx"], log.LEVELS["httpcore"]} == {logging.WARNING}


async def test_a_redirect_is_not_followed_to_whoever_is_named(server: Scripted, clients: Clients) -> None:
    server.answers = [web.Response(status=307, headers={"Location": f"{server.url}/thief"})]
    assert (await clients.to(server.url).request("GET", "/x")).code == 307
    assert len(server.asked) == 1


async def test_a_session_of_one_repository_is_not_anothers(server: Scripted, clients: Clients) -> None:
    server.answers = [web.Response(headers={"Set-Cookie": "session=mine; Path=/"}), web.Response()]
    for _ in range(2):
        await clients.to(server.url).request("GET", "/x")
    assert "Cookie" not in server.asked[1].headers


def certificate(folder: Path) -> tuple[ssl.SSLContext, str]:
    """A server's context with a certificate that signs itself, and the certificate."""
    key, pem = folder / "key.pem", folder / "cert.pem"
    extensions = ["-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", str(key), "-out", str(pem), "-days", "1", "-subj", "/CN=127.0.0.1", *extensions]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pem, key)
    return context, pem.read_text()


async def test_a_repositorys_ca_bundle_is_trusted_and_nothing_less(clients: Clients, tmp_path: Path) -> None:
    context, pem = certificate(tmp_path)
    async with serving(context) as server:
        server.answers = [web.json_response("fine")]
        with pytest.raises(errors.Transient, match=r"put its CA into the ConfigMap that caBundle names"):
            await clients.to(server.url).request("GET", "/x")
        assert (await clients.to(server.url, ca_pem=pem).request("GET", "/x")).json() == "fine"


async def test_a_ca_bundle_that_is_none_is_said_without_its_content(clients: Clients) -> None:
    with pytest.raises(errors.Permanent, match="are no PEM: mend the ConfigMap") as caught:
        await clients.to("https://127.0.0.1:1", ca_pem="not a certificate").request("GET", "/x")
    assert caught.value.reason == "CABundleInvalid"


async def test_pools_of_servers_that_nobody_asks_any_more_go(clients: Clients) -> None:
    transport = httpx.MockTransport(lambda _request: httpx.Response(200))
    connections = http.Connections(transport)
    for number in range(http.SERVERS_KEPT + 10):
        await http.Client(connections, http.Access(f"http://server-{number}")).request("GET", "/")
    assert len(connections._pools) == http.SERVERS_KEPT
    assert connections._busy == {}
    await connections.close()
