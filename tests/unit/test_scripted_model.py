"""The scripted model refuses what the real Messages API refuses, so that the CLI is never spared a mistake."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from hack.scriptedmodel.server import RefusedError, Script, Server, parse

JSON = dict[str, Any]


def _user(*blocks: JSON) -> JSON:
    return {"role": "user", "content": list(blocks)}


def _text(words: str) -> JSON:
    return {"type": "text", "text": words}


def _uses(*names: str) -> JSON:
    return {"role": "assistant", "content": [{"type": "tool_use", "id": n, "name": "Bash", "input": {}} for n in names]}


def _result(name: str) -> JSON:
    return {"type": "tool_result", "tool_use_id": name, "content": "fine"}


def _request(*messages: JSON) -> JSON:
    return {"model": "opus", "max_tokens": 100, "messages": list(messages)}


PROMPT = "You are the developer of work item et-1, in stage development.\n\nAttempt: {}\nDocuments: docs/et-1\n"
FIRST, SECOND = _text(PROMPT.format(1)), _text(PROMPT.format(2))

REFUSED: dict[str, tuple[JSON, str]] = {
    "no messages": (_request(), "messages are required"),
    "no limit": ({"model": "opus", "messages": [_user(FIRST)]}, "max_tokens"),
    "a tool call at the end": (_request(_user(FIRST), _uses("a")), "without `tool_result` blocks immediately after: a"),
    "a tool call that is passed over": (
        _request(_user(FIRST), _uses("a"), _user(SECOND)),
        "without `tool_result` blocks immediately after: a",
    ),
    "one of two tool calls is answered": (
        _request(_user(FIRST), _uses("a", "b"), _user(_result("a"))),
        "without `tool_result` blocks immediately after",
    ),
    "a result of no call": (_request(_user(FIRST, _result("a"))), "unexpected `tool_use_id`"),
    "a result of an earlier call": (
        _request(_user(FIRST), _uses("a"), _user(_result("a")), _uses("b"), _user(_result("b"), _result("a"))),
        "unexpected `tool_use_id` found in `tool_result` blocks: a",
    ),
}


@pytest.mark.parametrize(("request_", "words"), REFUSED.values(), ids=REFUSED)
def test_a_request_that_the_real_api_refuses_is_refused(request_: JSON, words: str) -> None:
    with pytest.raises(RefusedError, match=words) as refused:
        parse(request_)
    assert (refused.value.status, refused.value.kind) == (400, "invalid_request_error")


def test_the_last_prompt_is_the_one_that_is_answered() -> None:
    before = (_user(FIRST), _uses("a"), _user(_result("a")))
    assert (parse(_request(*before)).attempt, parse(_request(*before)).answers) == (1, 1)
    # A system message may stand between a call and its result.
    note = {"role": "system", "content": "Primary working directory: /w"}
    found = parse(_request(_user(FIRST), _uses("a"), note, _user(_result("a"))))
    assert (found.folder, len(found.results)) == ("/w", 1)
    # A prompt that got no answer and the next one, in one message, as the CLI sends them.
    both = parse(_request(*before, {"role": "assistant", "content": "Done."}, _user(FIRST, SECOND)))
    assert (both.attempt, both.answers, both.results) == (2, 0, ())


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server(("127.0.0.1", 0), Script())
    made.key = "right"
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


HEADERS: dict[str, tuple[dict[str, str], int]] = {
    "right": ({"x-api-key": "right", "anthropic-version": "2023-06-01"}, 200),
    "a bearer token": ({"authorization": "Bearer right", "anthropic-version": "2023-06-01"}, 200),
    "no key": ({"anthropic-version": "2023-06-01"}, 401),
    "another key": ({"x-api-key": "wrong", "anthropic-version": "2023-06-01"}, 401),
    "no version": ({"x-api-key": "right"}, 400),
}


@pytest.mark.parametrize(("headers", "status"), HEADERS.values(), ids=HEADERS)
def test_a_request_needs_a_key_and_a_version(server: Server, headers: dict[str, str], status: int) -> None:
    host, port = server.server_address[:2]
    connection = http.client.HTTPConnection(str(host), int(port), timeout=10)
    connection.request("POST", "/v1/messages", json.dumps(_request(_user(FIRST))), headers)
    answered = connection.getresponse()
    body = json.loads(answered.read())
    connection.close()
    assert (answered.status, body["type"]) == (status, "message" if status == 200 else "error")
