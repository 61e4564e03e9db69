"""Answers the Messages API (streaming, tool use, errors) with what a script says instead of what a model thinks.

The real CLI must not notice the difference, so a request that the real API would refuse is refused here too: without
a key, a version or `messages`, with a tool_use that the next message does not answer, or an answer to none. What is
answered depends on the conversation in the request alone: the same one gets the same answer, however often it is sent.

A script is a list of moves, one an answer: `{"say": TEXT}`, `{"use": TOOL, "input": {...}}` (`{cwd}` in it stands for
the CLI's working directory, `{docs}` for the item's documents), `{"fail": STATUS, "type": T, "message": M, "times": N}`
(N times, then the next move; always without `times`), `{"hang": SECONDS}`. After the last move the answer is "Done.".
It stands in the prompt as a fenced block ```model: stage -> list of scripts, one for each attempt, the last one for all
later ones. A stage that is not in it, or whose script is null, writes what the default Pipeline's gates want.

    server.py --port 8080 [--key KEY] [--log requests.jsonl] [--replies MODULE]   MODULE: reply(conversation) -> Move
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import http.server
import importlib
import json
import re
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

JSON = dict[str, Any]
Move = dict[str, Any]

_PROMPT = re.compile(r"(?m)^Attempt: \d+$")
"""By this line the operator's prompt is known."""
INPUT_TOKENS, OUTPUT_TOKENS = 100, 20
KEY_HEADERS = ("x-api-key", "authorization")

_DOCUMENTS = ("02-brd.md", "03-trz.md", "04-acceptance-criteria.md", "05-test-plan.md")
DEFAULTS: dict[str, dict[str, str]] = {
    "analysis": {f"{{docs}}/{name}": f"{name} of this item\n" for name in _DOCUMENTS},
    "architecture": {"{docs}/11-architecture.md": "One file.\n"},
    "development": {"src/feature.txt": "a feature\n"},
    "review": {"{docs}/12-review.md": "---\nverdict: APPROVED\n---\nFine.\n"},
    "testing": {"{docs}/13-test-report.md": "Verdict: PASS\n"},
    "deploy": {"{docs}/14-deploy.md": "Released.\n"},
}
"""Stage -> the files that its agent writes where no script says otherwise."""


class RefusedError(Exception):
    """A request that the real API would not take: status, error type, message."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status, self.kind = status, kind


@dataclasses.dataclass(frozen=True)
class Conversation:
    """What a request says: the last prompt, and what has happened since."""

    prompt: str
    system: str
    results: tuple[JSON, ...]
    """The tool_result blocks since the prompt, in order."""
    answers: int
    """How many answers the model has given since the prompt."""
    request: JSON

    @property
    def stage(self) -> str:
        """The stage that the prompt names."""
        return _first(r"in stage (\S+)\.", self.prompt)

    @property
    def attempt(self) -> int:
        """The attempt that the prompt names."""
        return int(_first(r"(?m)^Attempt: (\d+)$", self.prompt) or 1)

    @property
    def documents(self) -> str:
        """The folder of the item's documents."""
        return _first(r"(?m)^Documents: (\S+)$", self.prompt)

    @property
    def folder(self) -> str:
        """The CLI's working directory, which its system prompt names."""
        return _first(r"(?i)working directory: (\S+)", f"{self.system}\n{self.prompt}")


def parse(request: JSON) -> Conversation:
    """Read a request. Raises RefusedError as the real API would."""
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages or "model" not in request or "max_tokens" not in request:
        raise RefusedError(400, "invalid_request_error", "model, max_tokens and messages are required")
    _check_tools(messages)
    prompt, results, answers, notes = "", list[JSON](), 0, list[str]()
    for message in messages:
        if message["role"] == "assistant":
            answers += 1
            continue
        for block in _blocks(message.get("content")):
            text = block["text"] if block.get("type") == "text" else ""
            if block.get("type") == "tool_result":
                results.append(block)
            elif message["role"] == "system":
                notes.append(text)
            # The CLI's own remarks stand beside the person's words; and where an earlier prompt got no answer, a
            # further one stands in the same message.
            elif _PROMPT.search(text) or (text and not prompt and not text.startswith("<system-reminder>")):
                prompt, results, answers = text, [], 0
    system = "\n".join([*(block["text"] for block in _blocks(request.get("system"))), *notes])
    return Conversation(prompt, system, tuple(results), answers, request)


def _check_tools(messages: list[JSON]) -> None:
    """Each tool_use is answered in the very next message, and nothing else is. Raises RefusedError."""
    open_uses: set[str] = set()
    for message in [m for m in messages if m["role"] != "system"]:
        blocks = _blocks(message.get("content"))
        answered = {str(block.get("tool_use_id")) for block in blocks if block.get("type") == "tool_result"}
        if answered - open_uses:
            said = f"unexpected `tool_use_id` found in `tool_result` blocks: {', '.join(sorted(answered - open_uses))}"
            raise RefusedError(400, "invalid_request_error", said)
        if open_uses - answered:
            break
        open_uses = {str(block["id"]) for block in blocks if block.get("type") == "tool_use"}
    if open_uses:
        said = "`tool_use` ids were found without `tool_result` blocks immediately after"
        raise RefusedError(400, "invalid_request_error", f"{said}: {', '.join(sorted(open_uses))}")


class Script:
    """Answers with the moves in the prompt; remembers only how often a failure with `times` has been given."""

    def __init__(self) -> None:
        self._failed: Counter[tuple[str, int]] = Counter()
        self._lock = threading.Lock()

    def __call__(self, conversation: Conversation) -> Move:
        """The next answer."""
        left = conversation.answers
        for position, move in enumerate(_moves(conversation)):
            if left == 0 and ("times" not in move or self._is_due(conversation, position, move["times"])):
                return move
            left -= "times" not in move
        return {"say": "Done."}

    def _is_due(self, conversation: Conversation, position: int, times: int) -> bool:
        key = (hashlib.sha256(conversation.prompt.encode()).hexdigest(), position)
        with self._lock:
            self._failed[key] += 1
            return self._failed[key] <= times


def _moves(conversation: Conversation) -> list[Move]:
    block = re.search(r"```model\n(.*?)\n```", conversation.prompt, re.DOTALL)
    script: JSON = json.loads(block.group(1)) if block else {}
    attempts = script.get(conversation.stage, [None])
    moves: list[Move] | None = attempts[min(conversation.attempt, len(attempts)) - 1]
    if moves is not None:
        return moves
    files = DEFAULTS.get(conversation.stage, {})
    return [
        {"use": "Write", "input": {"file_path": f"{{cwd}}/{name}", "content": text}} for name, text in files.items()
    ]


def answer(conversation: Conversation, move: Move) -> JSON:
    """The message of the API for a move. Raises RefusedError for a move that is a failure."""
    if "fail" in move:
        raise RefusedError(move["fail"], move.get("type", "api_error"), move.get("message", "as the script says"))
    content: list[JSON] = []
    if "say" in move:
        content.append({"type": "text", "text": move["say"]})
    if "use" in move:
        words = {"{cwd}": conversation.folder, "{docs}": conversation.documents}
        arguments = _filled(move.get("input", {}), words)
        # Of the conversation, so that a repeated request gets the same id.
        digest = hashlib.sha256(json.dumps([conversation.prompt, conversation.answers]).encode()).hexdigest()[:24]
        content.append({"type": "tool_use", "id": f"toolu_{digest}", "name": move["use"], "input": arguments})
    return {
        "id": f"msg_{hashlib.sha256(json.dumps([content, conversation.answers]).encode()).hexdigest()[:24]}",
        "type": "message",
        "role": "assistant",
        "model": conversation.request["model"],
        "content": content,
        "stop_reason": "tool_use" if "use" in move else "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": INPUT_TOKENS,
            "output_tokens": OUTPUT_TOKENS,
            "cache_read_input_tokens": 0,
            "cache_creation_input_tokens": 0,
            **move.get("usage", {}),
        },
    }


def events(message: JSON) -> Iterator[bytes]:
    """A message as server-sent events, in the real API's order."""
    begun = {**message, "content": [], "stop_reason": None, "usage": {**message["usage"], "output_tokens": 1}}
    yield _event("message_start", {"message": begun})
    for index, block in enumerate(message["content"]):
        if block["type"] == "text":
            start: JSON = {"type": "text", "text": ""}
            delta = {"type": "text_delta", "text": block["text"]}
        else:
            start = {**block, "input": {}}
            delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
        yield _event("content_block_start", {"index": index, "content_block": start})
        yield _event("content_block_delta", {"index": index, "delta": delta})
        yield _event("content_block_stop", {"index": index})
    stop = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    used = {"output_tokens": message["usage"]["output_tokens"]}
    yield _event("message_delta", {"delta": stop, "usage": used})
    yield _event("message_stop", {})


class Server(http.server.ThreadingHTTPServer):
    """The API on one port. `requests` has all that was asked: method, path, headers, body, the key's presence."""

    daemon_threads = True
    key = ""
    """The only key that it takes; empty: any."""

    def __init__(
        self, address: tuple[str, int], reply: Callable[[Conversation], Move], log: Path | None = None
    ) -> None:
        super().__init__(address, _Handler)
        self.reply, self.log = reply, log
        self.requests: list[JSON] = []

    def note(self, entry: JSON) -> None:
        """Remember a request, in memory and in the log."""
        self.requests.append(entry)
        if self.log is not None:
            with self.log.open("a") as file:
                file.write(json.dumps(entry) + "\n")


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_HEAD(self) -> None:
        """The CLI's greeting."""
        self._note(None)
        self._send(200, b"", "application/json")

    def do_GET(self) -> None:
        """A probe, or something that the real API would not know."""
        if self.path == "/healthz":
            self._send(200, b"{}", "application/json")
            return
        self._note(None)
        self._refuse(RefusedError(404, "not_found_error", self.path))

    def do_POST(self) -> None:
        """A message."""
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        try:
            request: JSON = json.loads(body)
        except ValueError:
            self._note(None)
            self._refuse(RefusedError(400, "invalid_request_error", "the body is not JSON"))
            return
        self._note(request)
        try:
            self._answer(request)
        except RefusedError as error:
            self._refuse(error)

    def _answer(self, request: JSON) -> None:
        path = self.path.partition("?")[0]
        key = next((self.headers[name] for name in KEY_HEADERS if self.headers.get(name)), "")
        if not key or key.removeprefix("Bearer ") != (self.server.key or key.removeprefix("Bearer ")):
            raise RefusedError(401, "authentication_error", "invalid x-api-key" if key else "x-api-key is required")
        if not self.headers.get("anthropic-version"):
            raise RefusedError(400, "invalid_request_error", "anthropic-version: header is required")
        if path == "/v1/messages/count_tokens":
            self._send(200, b'{"input_tokens": 100}', "application/json")
            return
        if path != "/v1/messages":
            raise RefusedError(404, "not_found_error", path)
        conversation = parse(request)
        move = self.server.reply(conversation)
        time.sleep(move.get("hang", 0))
        message = answer(conversation, move)
        if not request.get("stream"):
            self._send(200, json.dumps(message).encode(), "application/json")
            return
        self._send(200, b"".join(events(message)), "text/event-stream; charset=utf-8")

    def _refuse(self, error: RefusedError) -> None:
        body = {"type": "error", "error": {"type": error.kind, "message": str(error)}}
        self._send(error.status, json.dumps(body).encode(), "application/json")

    def _send(self, status: int, body: bytes, kind: str) -> None:
        try:
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.send_header("request-id", "req_scripted")
            self.end_headers()
            self.wfile.write(body)
        except ConnectionError:
            # The CLI was killed while it waited: nobody is left to answer.
            self.close_connection = True

    def _note(self, request: JSON | None) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.note({"method": self.command, "path": self.path, "headers": headers, "body": request})

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class' name
        """Nothing: the log is `note`."""


def _event(kind: str, data: JSON) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **data})}\n\n".encode()


def _blocks(content: object) -> list[JSON]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return content if isinstance(content, list) else []


def _filled(value: Any, words: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {name: _filled(inner, words) for name, inner in value.items()}
    if isinstance(value, str):
        for word, text in words.items():
            value = value.replace(word, text)
    return value


def _first(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    return found.group(1) if found else ""


def main(arguments: list[str]) -> int:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description="A scripted Messages API.")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--log", type=Path, help="where every request is written, as a line of JSON")
    parser.add_argument("--key", default="", help="the only key to take; default: any")
    parser.add_argument("--replies", help="a module with reply(conversation); default: the script in the prompt")
    chosen = parser.parse_args(arguments)
    sys.path.insert(0, str(Path(__file__).parent))
    reply = importlib.import_module(chosen.replies).reply if chosen.replies else Script()
    server = Server(("", chosen.port), reply, chosen.log)
    server.key = chosen.key
    server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
