"""An HTTP server on loopback that answers what a test tells it, in order, and remembers what it was asked."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

Answer = web.Response | Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Asked:
    """One request as it arrived."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass
class Scripted:
    """`answers` are given in order; one more question than answers fails the test."""

    url: str = ""
    answers: list[Answer] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        text = await request.text()
        self.asked.append(
            Asked(
                request.method,
                request.raw_path.partition("?")[0],
                dict(request.query),
                dict(request.headers),
                json.loads(text) if text else None,
            )
        )
        answer = self.answers.pop(0)
        return answer if isinstance(answer, web.Response) else await answer(request)


@contextlib.asynccontextmanager
async def serving(ssl_context: Any = None) -> AsyncIterator[Scripted]:
    """Serve on a free port until the block ends."""
    scripted = Scripted()
    app = web.Application()
    app.router.add_route("*", "/{anything:.*}", scripted.handle)
    server = TestServer(app)
    await server.start_server(ssl=ssl_context)
    scripted.url = str(server.make_url("")).rstrip("/")
    try:
        yield scripted
    finally:
        await server.close()


async def hang_up(request: web.Request) -> web.StreamResponse:
    """Cut the connection without a word."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()
