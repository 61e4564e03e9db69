"""A proxy between the operator and the API server that does to its requests what a bad day does.

Only the operator goes through it, with its own token; everything else in the cluster has fair weather. A share of all
requests is answered 409, 429 or 500 without being carried out, or is carried out and the answer never arrives.
Watches can be cut, answered 410, or kept open in silence. What happened is counted, so that a test can tell that it
did.
"""

from __future__ import annotations

import asyncio
import base64
import collections
import contextlib
import json
import pathlib
import random
import ssl
import threading
from collections.abc import AsyncIterator
from typing import Any, Self

import aiohttp
import yaml
import yarl
from aiohttp import web

REASONS = {409: "Conflict", 429: "TooManyRequests", 500: "InternalError"}
LOST = "lost"
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host", "accept-encoding"}


class FaultProxy:
    """Listens on a port of 127.0.0.1; `with` it. Its knobs may be turned from any thread at any time."""

    def __init__(self, kubeconfig: pathlib.Path, seed: int) -> None:
        """Take the operator's own kubeconfig, and what its chance begins with."""
        self._view: dict[str, Any] = yaml.safe_load(kubeconfig.read_text())
        self._folder = kubeconfig.parent
        self._chance = random.Random(seed)
        self._watches: set[asyncio.Task[None]] = set()
        self._forgotten: set[str] = set()
        self._watched: set[str] = set()
        self._stop: asyncio.Event | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))
        self._started = threading.Event()
        self._port = 0
        self.rate = 0.0
        """The share of requests, watches left out, that goes wrong."""
        self.deaf = False
        """Watches stay open and deliver nothing."""
        self.counts: collections.Counter[str] = collections.Counter()
        """What was done: `passed`, `409`, `429`, `500`, `lost`, `swallowed` (events), `410`, `cut` (watches)."""

    def __enter__(self) -> Self:
        """Start."""
        self._thread.start()
        assert self._started.wait(60), "the proxy did not start"
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        stop = self._stop
        assert stop is not None
        self._loop.call_soon_threadsafe(stop.set)
        self._thread.join(60)
        self._loop.close()

    @property
    def kubeconfig(self) -> pathlib.Path:
        """The operator's kubeconfig with the proxy in place of the API server."""
        view = json.loads(json.dumps(self._view))
        view["clusters"][0]["cluster"] = {"server": f"http://127.0.0.1:{self._port}"}
        path = self._folder / "kubeconfig-proxy"
        path.write_text(yaml.safe_dump(view))
        return path

    @property
    def watching(self) -> bool:
        """Whether there is a watch to be cut."""
        return bool(self._watches)

    def cut_watches(self) -> None:
        """End all watches in the middle, without a word."""
        self._loop.call_soon_threadsafe(self._cut)

    def forget_history(self) -> None:
        """Cut all watches, and answer the next one of each kind with 410: where it was is no longer known."""
        self._loop.call_soon_threadsafe(self._forget)

    def _cut(self) -> None:
        self.counts["cut"] += len(self._watches)
        for watch in self._watches:
            watch.cancel()

    def _forget(self) -> None:
        self._forgotten = set(self._watched)
        self._cut()

    # --- the proxy's own thread

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        cluster = self._view["clusters"][0]["cluster"]
        authority = cluster.get("certificate-authority-data")
        context = ssl.create_default_context(cadata=_pem(authority) if authority else None)
        connector = aiohttp.TCPConnector(ssl=context, limit=0)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5)
        async with aiohttp.ClientSession(cluster["server"], connector=connector, timeout=timeout) as self._session:
            runner = web.ServerRunner(web.Server(self._handle, access_log=None), shutdown_timeout=1)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self._port = runner.addresses[0][1]
            self._started.set()
            await self._stop.wait()
            self._cut()
            await runner.cleanup()
        # What was aborted is closed in the loop's next round.
        await asyncio.sleep(0)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        try:
            if request.query.get("watch") == "true":
                return await self._watch(request)
            return await self._pass(request, body)
        except aiohttp.ClientConnectorError:
            # The API server is away: so is whoever stands in front of it.
            self.counts["away"] += 1
            return _hang_up(request)
        except aiohttp.ClientError:
            # Either side has gone in the middle.
            return _hang_up(request)

    async def _pass(self, request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        fault = self._fault(request)
        if isinstance(fault, int):
            self.counts[str(fault)] += 1
            return _refusal(fault)
        async with self._ask(request, body) as answer:
            content = await answer.read()
            if fault == LOST:
                self.counts[LOST] += 1
                return _hang_up(request)
            self.counts["passed"] += 1
            return web.Response(body=content, status=answer.status, headers=_headers(answer.headers))

    @contextlib.asynccontextmanager
    async def _ask(self, request: web.BaseRequest, body: bytes) -> AsyncIterator[aiohttp.ClientResponse]:
        asked = self._session.request(request.method, _url(request), headers=_asked(request), data=body or None)
        async with asked as answer:
            try:
                yield answer
            finally:
                # Left to close politely, what is cut would wait for the API server's farewell after the loop's end.
                if answer.connection is not None and answer.connection.transport is not None:
                    answer.connection.transport.abort()

    def _fault(self, request: web.BaseRequest) -> int | str | None:
        if self._chance.random() >= self.rate:
            return None
        # A read has nothing to be in conflict with.
        kinds: list[int | str] = [429, 500, LOST] if request.method == "GET" else [409, 429, 500, LOST]
        # What has not been yet comes first: writes are the fewer, and 409 is theirs alone.
        return self._chance.choice([kind for kind in kinds if not self.counts[str(kind)]] or kinds)

    async def _watch(self, request: web.BaseRequest) -> web.StreamResponse:
        self._watched.add(request.path)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        if request.path in self._forgotten:
            self._forgotten.discard(request.path)
            self.counts["410"] += 1
            await response.prepare(request)
            await response.write(_event("ERROR", _status(410, "Expired", "too old resource version")))
            return response
        # A task of its own, so that it can be cut without the server's taking it for its own end.
        watch = asyncio.ensure_future(self._relay(request, response))
        self._watches.add(watch)
        try:
            with contextlib.suppress(asyncio.CancelledError):
                await watch
                return response
        finally:
            watch.cancel()
            self._watches.discard(watch)
        return _hang_up(request)

    async def _relay(self, request: web.BaseRequest, response: web.StreamResponse) -> None:
        async with self._ask(request, b"") as answer:
            response.set_status(answer.status)
            await response.prepare(request)
            # No lines: an object may be longer than what aiohttp takes for one.
            rest = b""
            async for chunk in answer.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    if self.deaf:
                        self.counts["swallowed"] += 1
                    else:
                        await response.write(line + b"\n")


def _url(request: web.BaseRequest) -> yarl.URL:
    return yarl.URL(request.raw_path, encoded=True)


def _asked(request: web.BaseRequest) -> dict[str, str]:
    return {**_headers(request.headers), "Accept-Encoding": "identity"}


def _headers(headers: Any) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in HOP_BY_HOP}


def _status(code: int, reason: str, message: str) -> dict[str, Any]:
    said = {"code": code, "reason": reason, "message": message}
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", **said}


def _event(what: str, body: dict[str, Any]) -> bytes:
    return json.dumps({"type": what, "object": body}).encode() + b"\n"


def _refusal(code: int) -> web.Response:
    headers = {"Retry-After": "1"} if code == 429 else {}
    return web.json_response(_status(code, REASONS[code], f"a fault on purpose: {code}"), status=code, headers=headers)


def _hang_up(request: web.BaseRequest) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


def _pem(data: str) -> str:
    return base64.b64decode(data).decode()
