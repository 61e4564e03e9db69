"""The driver's own connection to the API server: JSON in and out, as the administrator, and a watch that goes on."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator
from typing import Any, Self

import aiohttp

from bench.load.controlplane import ControlPlane

JSON = dict[str, Any]
CONNECTIONS = 24
WATCH_BUFFER_BYTES = 16 * 1024 * 1024


class Client:
    """One connection pool; every answer that is not a success raises."""

    def __init__(self, plane: ControlPlane) -> None:
        """Take the control plane to talk to."""
        context = ssl.create_default_context(cafile=str(plane.pki / "ca.crt"))
        context.load_cert_chain(plane.pki / "admin.crt", plane.pki / "admin.key")
        self._session = aiohttp.ClientSession(
            base_url=plane.url,
            connector=aiohttp.TCPConnector(ssl=context, limit=0),
            timeout=aiohttp.ClientTimeout(total=None),
            read_bufsize=WATCH_BUFFER_BYTES,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def get(self, path: str) -> JSON:
        """The object or list."""
        return await self._ask("GET", path, None)

    async def post(self, path: str, body: JSON) -> JSON:
        """The created object."""
        return await self._ask("POST", path, body)

    async def put(self, path: str, body: JSON) -> JSON:
        """The replaced object."""
        return await self._ask("PUT", path, body)

    async def patch(self, path: str, body: JSON, kind: str = "merge-patch") -> JSON:
        """The object after a patch."""
        return await self._ask("PATCH", path, body, f"application/{kind}+json")

    async def watch(self, path: str, selector: str = "") -> AsyncIterator[tuple[str, JSON]]:
        """(ADDED, MODIFIED or DELETED, object) for all that is there and for all that comes, until cancelled."""
        version = "0"
        while True:
            query = {"watch": "1", "resourceVersion": version, "allowWatchBookmarks": "true", "labelSelector": selector}
            async with self._session.get(path, params=query) as answer:
                answer.raise_for_status()
                async for line in answer.content:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise RuntimeError(f"the watch of {path} broke: {event['object'].get('message')}")
                    version = event["object"]["metadata"]["resourceVersion"]
                    if event["type"] != "BOOKMARK":
                        yield event["type"], event["object"]

    async def _ask(self, verb: str, path: str, body: JSON | None, kind: str = "application/json") -> JSON:
        data = None if body is None else json.dumps(body)
        async with self._session.request(verb, path, data=data, headers={"Content-Type": kind}) as answer:
            text = await answer.text()
            if answer.status >= 300:
                raise RuntimeError(f"{verb} {path}: {answer.status} {text[:500]}")
            return dict(json.loads(text))
