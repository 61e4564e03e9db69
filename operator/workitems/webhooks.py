"""The receiver of webhooks: `POST /hooks/{namespace}/{repository}/{source}`, and nothing else on its port.

Everybody can reach it, so it does little: a size, a signature over the raw body, compared in constant time, and only
then a look into the body, for what the delivery is about. That is handed on and wakes items, which read for themselves;
so a replayed delivery costs a look, and a forged one nothing. Refusals say no more than their code.
"""

from __future__ import annotations

import asyncio
import collections
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog
from aiohttp import web

from workitems import cluster, errors
from workitems.deliveries import Deliveries
from workitems.integrations import FORGES
from workitems.integrations.webhook import Delivery, Source
from workitems.settings import Settings
from workitems.webhook_secrets import WebhookSecrets

log = structlog.get_logger(__name__)

BODY_LIMIT = 1024 * 1024
"""Bytes. A push of some hundred commits has less; the sweep finds what a larger one would have told."""
BODY_SECONDS = 10.0
AT_ONCE = 64
"""Secrets that are looked for at the same time; others wait for their turn."""
HELD_LIMIT = 64 * 1024 * 1024
"""Bytes of all bodies that are not verified yet. Strangers who send slowly hold little, and keep nobody out."""
KEEP_SECONDS = 10.0
"""How long a connection may be idle."""
PATH = "/hooks/{namespace}/{repository}/{source}"

Answers = collections.Counter[tuple[str, int]]
"""Deliveries by source ("": one that there is not) and HTTP status code."""
Heard = Callable[[str, str, Delivery], None]
"""Takes namespace, Repository and what the delivery is about; returns at once."""


@dataclass(frozen=True)
class Channel:
    """How one product's deliveries are read, and who hears of them."""

    source: Source
    heard: Heard


class Receiver:
    """Serves the one path."""

    def __init__(self, secrets: WebhookSecrets, channels: Mapping[str, Channel], answers: Answers) -> None:
        """Take the secrets, the channels by source, as the path names it, and where to count the answers."""
        self._secrets = secrets
        self._channels = channels
        self._room = asyncio.Semaphore(AT_ONCE)
        self._held = 0
        self._answers = answers

    @asynccontextmanager
    async def served(self, port: int, host: str = "0.0.0.0") -> AsyncIterator[int]:  # noqa: S104 - everybody may knock
        """Serve while inside; gives the port, the system's choice for 0. Raises OSError if the port is taken."""
        application = web.Application()
        application.router.add_post(PATH, self._handle)
        # No access log: a flood of forged deliveries must not become a flood of lines.
        runner = web.AppRunner(application, access_log=None, handle_signals=False, keepalive_timeout=KEEP_SECONDS)
        await runner.setup()
        try:
            site = web.TCPSite(runner, host, port)
            await site.start()
            bound: int = runner.addresses[0][1]
            log.info("webhooks", port=bound)
            yield bound
        finally:
            await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.Response:
        source = request.match_info["source"]
        source = source if source in self._channels else ""
        code = await self._answer(request, source)
        self._answers[source, code] += 1
        response = web.Response(status=code)
        if code >= 400:
            # Whatever else is on its way over this connection is not read.
            response.force_close()
        return response

    async def _answer(self, request: web.Request, source: str) -> int:
        if not source:
            return 404
        if request.content_type != "application/json":
            return 415
        if (request.content_length or 0) > BODY_LIMIT:
            return 413
        namespace, repository = request.match_info["namespace"], request.match_info["repository"]
        async with self._room:
            try:
                secret = await self._secrets.of(namespace, repository, source)
            except errors.Transient as error:
                log.warning("webhook not verified", source=source, error=str(error))
                return 503
        if secret is None:
            return 404
        parts: list[bytes] = []
        try:
            async with asyncio.timeout(BODY_SECONDS):
                refused = await self._read(request, parts)
            return refused or self._take(request, source, (namespace, repository, b"".join(parts), secret))
        except TimeoutError:
            return 408
        finally:
            self._held -= sum(map(len, parts))

    async def _read(self, request: web.Request, parts: list[bytes]) -> int | None:
        """Take the raw body apart as it arrives; the code of a refusal if it is too much, whatever its headers said."""
        size = 0
        async for part in request.content.iter_any():
            parts.append(part)
            self._held += len(part)
            size += len(part)
            if size > BODY_LIMIT:
                return 413
            if self._held > HELD_LIMIT:
                return 503
        return None

    def _take(self, request: web.Request, source: str, what: tuple[str, str, bytes, bytes]) -> int:
        namespace, repository, body, secret = what
        channel = self._channels[source]
        if not channel.source.verify(request.headers, body, secret):
            return 401
        try:
            delivery = channel.source.read(request.headers, body)
        except ValueError as error:
            # Signed, and yet not understood: somebody's to look at.
            log.warning(
                "webhook not understood", source=source, repository=f"{namespace}/{repository}", error=str(error)
            )
            return 400
        channel.heard(namespace, repository, delivery)
        return 202


@asynccontextmanager
async def received(
    settings: Settings,
    api: cluster.Cluster,
    wake: Callable[[str], None],
    channels: Mapping[str, Channel],
    answers: Answers,
) -> AsyncIterator[None]:
    """Receive webhooks while inside, if the settings name a port; `wake` takes the keys of items.

    `channels` are those beside the forge's, by source; `answers` is where they are counted.
    """
    if settings.webhook_port is None:
        yield
        return
    deliveries = Deliveries(api, wake)
    secrets = WebhookSecrets(api, settings.watch_namespaces, asyncio.get_running_loop().time)
    ours = {kind: Channel(product.deliveries, deliveries.put) for kind, product in FORGES.items()}
    receiver = Receiver(secrets, {**ours, **channels}, answers)
    async with asyncio.TaskGroup() as tasks:
        looking = tasks.create_task(deliveries.run())
        async with receiver.served(settings.webhook_port):
            yield
        looking.cancel()
