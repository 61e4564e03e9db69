"""A stand-in for the Telegram Bot API: it refuses what that refuses.

Enforced: the token in the address, known chats, 4,096 UTF-16 code units after the markup is read, the tags and entities
that parse_mode=HTML knows, well-formed markup, empty messages, 429 with parameters.retry_after (20 a minute a group).
"""

from __future__ import annotations

import asyncio
import collections
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any, Self

from aiohttp import web
from aiohttp.test_utils import TestServer

TOKEN = "123456:AAtelegram-bot-token"
TAGS = frozenset({"b", "strong", "i", "em", "u", "ins", "s", "strike", "del", "code", "pre", "a", "blockquote"})
CHAT_LIMITS = ((1, 1.0),)
GROUP_LIMITS = ((1, 1.0), (20, 60.0))
BOT_LIMITS = ((30, 1.0),)


class _Strict(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.read = ""
        self.error = ""

    def handle_starttag(self, tag: str, _attrs: list[tuple[str, str | None]]) -> None:
        if tag not in TAGS:
            self.error = self.error or f'Unsupported start tag "{tag}"'
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.error = self.error or f'Unmatched end tag "{tag}"'

    def handle_data(self, data: str) -> None:
        self.read += data


def read(html: str) -> tuple[str, str]:
    """What a person reads, and what is wrong with the markup."""
    parser = _Strict()
    parser.feed(html)
    parser.close()
    if parser.open and not parser.error:
        parser.error = f'Can\'t find end tag corresponding to start tag "{parser.open[-1]}"'
    return parser.read, parser.error


@dataclass
class Sent:
    """One message that arrived."""

    chat: str
    text: str
    """As a person reads it."""
    html: str
    thread: int | None = None


@dataclass
class Telegram:
    """`async with` it."""

    chats: set[str] = field(default_factory=lambda: {"-100200300"})
    sent: list[Sent] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    answers: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    """Said to the next requests instead of the truth, before anything is done."""
    hidden: int = 0
    """How many messages to send and then cut the connection."""
    away: bool = False
    changed: Callable[[], None] = field(default=lambda: None)
    """Called after a message arrived and before its answer."""
    url: str = ""
    clock: Callable[[], float] = field(default=lambda: asyncio.get_running_loop().time())

    def __post_init__(self) -> None:
        self._hits: dict[str, list[float]] = collections.defaultdict(list)
        self._server: TestServer | None = None

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_route("*", "/{anything:.*}", self._answer)
        self._server = TestServer(app)
        await self._server.start_server()
        self.url = str(self._server.make_url("")).rstrip("/")
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        await self._server.close()

    @property
    def texts(self) -> list[str]:
        """What a person reads in the chat."""
        return [sent.text for sent in self.sent]

    async def _answer(self, request: web.Request) -> web.Response:
        assert request.transport is not None
        if self.away:
            request.transport.abort()
            return web.Response()
        code, body = self.answers.pop(0) if self.answers else self._decide(request.path, await request.json())
        if code != 200:
            self.refusals.append(str(body.get("description")))
        elif self.hidden:
            self.hidden -= 1
            request.transport.abort()
        return web.json_response(body, status=code)

    def _decide(self, path: str, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if path != f"/bot{TOKEN}/sendMessage":
            return _no(401, "Unauthorized")
        chat, text = str(asked.get("chat_id")), str(asked.get("text") or "")
        if chat not in self.chats:
            return _no(400, "Bad Request: chat not found")
        said, error = read(text) if asked.get("parse_mode") == "HTML" else (text, "")
        if error:
            return _no(400, f"Bad Request: can't parse entities: {error} at byte offset 0")
        if not said.strip():
            return _no(400, "Bad Request: message text is empty")
        if len(said.encode("utf-16-le")) // 2 > 4096:
            return _no(400, "Bad Request: message is too long")
        wait = self._too_many(chat)
        if wait:
            return 429, {**_no(429, f"Too Many Requests: retry after {wait}")[1], "parameters": {"retry_after": wait}}
        self.sent.append(Sent(chat, said, text, asked.get("message_thread_id")))
        self.changed()
        return 200, {"ok": True, "result": {"message_id": len(self.sent)}}

    def _too_many(self, chat: str) -> int:
        now, waits = self.clock(), [0.0]
        limits = GROUP_LIMITS if chat.startswith(("-", "@")) else CHAT_LIMITS
        for hits, kept in ((self._hits[chat], limits), (self._hits[""], BOT_LIMITS)):
            waits += [hits[-most] + seconds - now for most, seconds in kept if len(hits) >= most]
        if max(waits) > 0:
            return math.ceil(max(waits))
        self._hits[chat].append(now)
        self._hits[""].append(now)
        return 0


def _no(code: int, description: str) -> tuple[int, dict[str, Any]]:
    return code, {"ok": False, "error_code": code, "description": description}
