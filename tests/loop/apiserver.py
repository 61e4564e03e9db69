"""The store behind HTTP, as the operator's two clients (ours and kopf's) meet it, with faults on request.

A connection belongs to one operator, known by its token. A token that is dead gets no answer any more, not even
half of one: this is how an operator is cut off between any two requests, or between a write and its answer.
"""

from __future__ import annotations

import asyncio
import base64
import enum
import functools
import json
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from aiohttp import web

from tests.loop.selecting import by_fields, by_labels
from tests.loop.store import EVENTS, JSON, KINDS, SECRETS, Change, Key, Kind, Refused, Selector, Store

WATCH_SECONDS = 2400.0
OBJECT_LIMIT = 1_500_000
VERBS = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


class Cut(enum.Enum):
    """What happens to a request other than an answer."""

    RESET = "the connection is reset before anything is done"
    LOST = "it is done, and the answer never arrives"
    GARBAGE = "it is done, and what arrives is no text"
    DIE_BEFORE = "the operator dies before it arrives"
    DIE_AFTER = "it is done, and the operator dies before the answer"


@dataclass
class Call:
    """One request."""

    token: str
    verb: str
    kind: Kind
    namespace: str | None
    name: str
    subresource: str
    query: dict[str, str]
    body: JSON = field(default_factory=dict)
    code: int = 0

    @property
    def writes(self) -> bool:
        """Whether anything depends on it: Events are sent beside the work, at no certain moment."""
        return self.verb not in ("get", "list", "watch") and self.kind is not EVENTS

    def __str__(self) -> str:
        name = self.name or self.body.get("metadata", {}).get("name", "")
        what = f"{self.kind.plural}/{self.subresource}" if self.subresource else self.kind.plural
        return f"{self.verb} {what} {name}".strip()


Fault = Callable[[Call], Cut | Refused | None]


def no_right_to(secret: str) -> Fault:
    """The answer to an operator whose role names other Secrets."""

    def fault(call: Call) -> Refused | None:
        if call.kind is not SECRETS or call.name != secret:
            return None
        user = 'User "system:serviceaccount:workitem-operator:workitem-operator" cannot get resource "secrets"'
        message = f'secrets "{secret}" is forbidden: {user} in API group "" in the namespace "{call.namespace}"'
        return Refused(403, "Forbidden", message)

    return fault


class APIServer:
    """Listens on a port of 127.0.0.1 that the system chose."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.calls: list[Call] = []
        self.tokens: set[str] = set()
        self.dead: set[str] = set()
        self.fault: Fault = lambda _call: None
        self.done: Callable[[Call], None] = lambda _call: None
        """Told about every request that was carried out, before its answer leaves."""
        self.on_death: Callable[[], None] = lambda: None
        self.deaf = False
        """Watches are accepted and deliver nothing."""
        self._watches: set[asyncio.Queue[Change | None]] = set()
        self._runner = web.ServerRunner(web.Server(self._handle, access_log=None), shutdown_timeout=1)
        store.listeners.append(self._publish)

    async def start(self) -> None:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()

    async def stop(self) -> None:
        self.cut_watches()
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}"

    def writes(self) -> list[Call]:
        """All requests that were to change something, in order."""
        return [call for call in self.calls if call.writes]

    def cut_watches(self) -> None:
        """End all watches, as a load balancer or a restart of the server does."""
        for watch in self._watches:
            watch.put_nowait(None)

    def _publish(self, change: Change) -> None:
        for watch in self._watches:
            watch.put_nowait(change)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if token in self.dead:
            return _hang_up(request)
        if token not in self.tokens:
            return web.json_response(Refused(401, "Unauthorized", "Unauthorized").body, status=401)
        if request.path in _discovery():
            return web.json_response(_discovery()[request.path])
        try:
            call = _call(token, request)
            if request.can_read_body:
                call.body = json.loads(await request.read())
        except Refused as refusal:
            return web.json_response(refusal.body, status=refusal.code)
        if token in self.dead:  # it died while its body was on the way
            return _hang_up(request)
        self.calls.append(call)
        return await self._answer(request, call)

    async def _answer(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        fault = self.fault(call)
        if fault is Cut.DIE_BEFORE:
            self.on_death()
        if isinstance(fault, Refused):
            call.code = fault.code
            # Retry-After 0: the faults come often enough without waits that only the clock notices.
            return web.json_response(fault.body, status=fault.code, headers={"Retry-After": "0"})
        if fault in (Cut.DIE_BEFORE, Cut.RESET):
            return _hang_up(request, reset=fault is Cut.RESET)
        try:
            if call.verb == "watch":
                return await self._watch(request, call)
            body = self._serve(call, request.headers.get("Content-Type", ""))
            call.code = 201 if call.verb == "create" else 200
            self.done(call)
            if "as=PartialObjectMetadata" in request.headers.get("Accept", ""):
                body = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": body["metadata"]}
        except Refused as refusal:
            body, call.code = refusal.body, refusal.code
        if fault is Cut.GARBAGE:
            return web.Response(body=b"\x1f\x8b\xff", content_type="application/json")
        if fault is Cut.DIE_AFTER:
            self.on_death()
        return _hang_up(request) if fault is not None else web.json_response(body, status=call.code)

    def kill(self) -> None:
        """No operator that was ever let in gets one more answer."""
        self.dead |= self.tokens
        self.tokens.clear()

    def _serve(self, call: Call, content_type: str) -> JSON:
        store, kind, namespace = self.store, call.kind, call.namespace or ""
        if len(json.dumps(call.body)) > OBJECT_LIMIT:
            raise Refused(500, "InternalError", "etcdserver: request is too large")
        match call.verb, call.subresource:
            case "list", "":
                return self._list(call)
            case "get", "":
                return store.get(kind, namespace, call.name)
            case "create", "":
                return store.create(kind, namespace, call.body)
            case "delete", "":
                return store.delete(kind, namespace, call.name, call.body)
            case "update", "status" if kind.model is not None:
                return store.replace_status(kind, namespace, call.name, call.body)
            case "patch", "" | "status":
                if content_type != "application/merge-patch+json":
                    raise Refused(415, "UnsupportedMediaType", f"{content_type} is not a merge patch")
                return store.patch(kind, namespace, call.name, call.body, subresource=call.subresource)
        raise Refused(405, "MethodNotAllowed", f"this stand-in has no {call}")

    def _list(self, call: Call) -> JSON:
        selects = _selects(call)
        after = tuple(json.loads(base64.b64decode(token))) if (token := call.query.get("continue")) else ()
        items = [
            body
            for body in self.store.list(call.kind, call.namespace)
            if selects(body) and (_place(body) > after if after else True)
        ]
        metadata: JSON = {"resourceVersion": str(self.store.version)}
        limit = int(call.query.get("limit") or 0)
        if limit and len(items) > limit:
            items = items[:limit]
            metadata["continue"] = base64.b64encode(json.dumps(_place(items[-1])).encode()).decode()
        if call.kind.model is None:  # as the real one does for its own kinds
            items = [{k: v for k, v in body.items() if k not in ("apiVersion", "kind")} for body in items]
        kind = f"{call.kind.name}List"
        return {"kind": kind, "apiVersion": call.kind.api_version, "metadata": metadata, "items": items}

    async def _watch(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        call.code = 200
        since = int(call.query["resourceVersion"])
        selects = _selects(call)
        queue: asyncio.Queue[Change | None] = asyncio.Queue()
        if since < self.store.oldest:
            queue.put_nowait(None)
        for change in self.store.changes:
            if change.version > since:
                queue.put_nowait(change)
        self._watches.add(queue)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        try:
            await response.prepare(request)
            if since < self.store.oldest:
                gone = Refused(410, "Expired", f"too old resource version: {since}").body
                await response.write(_line("ERROR", gone))
            async with asyncio.timeout(float(call.query.get("timeoutSeconds") or WATCH_SECONDS)):
                while (change_or_end := await queue.get()) is not None:
                    event = _event(call, change_or_end, selects)
                    if event is not None and not self.deaf and call.token not in self.dead:
                        await response.write(event)
        except (TimeoutError, ConnectionError):
            pass
        finally:
            self._watches.discard(queue)
        return response


def _call(token: str, request: web.BaseRequest) -> Call:
    parts = [unquote(part) for part in request.raw_path.partition("?")[0].strip("/").split("/")]
    group, rest = ("", parts[1:]) if parts[0] == "api" else (parts[1] if len(parts) > 1 else "", parts[2:])
    version, rest = (rest[0] if rest else ""), rest[1:]
    namespace = None
    if len(rest) > 2 and rest[0] == "namespaces":
        namespace, rest = rest[1], rest[2:]
    plural, name, subresource, *more = (*rest, "", "", "")
    kind = next((k for k in KINDS if (k.group, k.version, k.plural) == (group, version, plural)), None)
    if kind is None or any(more) or (namespace is not None and not kind.namespaced):
        raise Refused(404, "NotFound", "the server could not find the requested resource")
    verb = VERBS[request.method]
    if request.method == "GET" and not name:
        verb = "watch" if request.query.get("watch") == "true" else "list"
    if kind.namespaced and namespace is None and verb not in ("list", "watch"):
        raise Refused(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
    return Call(token, verb, kind, namespace, name, subresource, dict(request.query))


def _selects(call: Call) -> Selector:
    fields, labels = (
        by_fields(call.kind, call.query.get("fieldSelector", "")),
        by_labels(call.query.get("labelSelector", "")),
    )
    return lambda body: fields(body) and labels(body)


def _event(call: Call, change: Change, selects: Selector) -> bytes | None:
    """What a watch with a selector shows: an object that leaves the selection is DELETED, one that enters ADDED."""
    shown = change.new if change.new is not None else change.old
    if change.kind is not call.kind or shown is None:
        return None
    if call.namespace is not None and shown["metadata"].get("namespace") != call.namespace:
        return None
    before = change.old is not None and selects(change.old)
    after = change.new is not None and selects(change.new)
    if after:
        return _line("MODIFIED" if before else "ADDED", shown)
    if before and change.old is not None:
        version = {"resourceVersion": str(change.version)}
        return _line("DELETED", {**change.old, "metadata": {**change.old["metadata"], **version}})
    return None


def _line(what: str, body: JSON) -> bytes:
    return json.dumps({"type": what, "object": body}).encode() + b"\n"


def _place(body: JSON) -> Any:
    return body["metadata"].get("namespace", ""), body["metadata"]["name"]


@functools.cache
def _discovery() -> dict[str, JSON]:
    groups = sorted({(kind.group, kind.version) for kind in KINDS if kind.group})
    entries = {g: {"groupVersion": f"{g}/{v}", "version": v} for g, v in groups}
    roots: dict[str, JSON] = {
        "/version": {"major": "1", "minor": "34", "gitVersion": "v1.34.4"},
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": {
            "kind": "APIGroupList",
            "apiVersion": "v1",
            "groups": [{"name": g, "versions": [e], "preferredVersion": e} for g, e in entries.items()],
        },
    }
    for group, version in (("", "v1"), *groups):
        roots[f"/apis/{group}/{version}" if group else "/api/v1"] = {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": f"{group}/{version}" if group else version,
            "resources": [entry for kind in KINDS if kind.group == group for entry in _resources(kind)],
        }
    return roots


def _resources(kind: Kind) -> list[JSON]:
    verbs = ["create", "delete", "get", "list", "patch", "update", "watch"]
    entry = {"name": kind.plural, "singularName": kind.name.lower(), "kind": kind.name, "namespaced": kind.namespaced}
    status = {**entry, "name": f"{kind.plural}/status", "verbs": ["get", "patch", "update"]}
    return [{**entry, "verbs": verbs}, *([status] if kind.model else [])]


def _hang_up(request: web.BaseRequest, *, reset: bool = False) -> web.Response:
    transport = request.transport
    if transport is not None:
        if reset:
            linger = struct.pack("ii", 1, 0)
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        transport.abort()
    return web.Response()


__all__ = ["APIServer", "Call", "Cut", "Key"]
