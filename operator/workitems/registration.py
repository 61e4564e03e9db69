"""The webhooks of Repositories with `webhooks.manage`: registered at the forge, and again if somebody deletes them.

Seen to at the start, at every sweep, and whenever a Repository changes. Nothing waits for it: items poll what no
webhook tells. What came of it stands in the Repository's status, as the condition WebhookRegistered. No forge shows the
secret of a webhook, so status remembers which version of the Secret it was registered with: another one may hold
another secret, and the webhook is replaced.

Webhooks that somebody else registers need the Secret too. Where the receiver cannot verify them, because it may not
read the Secret or finds no key there, whoever sends them gets no more than a code: the Repository has the condition
DeliveriesVerifiable (False) until that is mended.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import datetime

import structlog
from pydantic import ValidationError

from workitems import cluster, errors
from workitems.api import API_VERSION, Condition, Repository
from workitems.api.repository import RegisteredWebhook, RepositoryStatus
from workitems.core import conditions
from workitems.readings import ForgeOf
from workitems.settings import Settings
from workitems.webhook_secrets import secret_value
from workitems.webhooks import PATH

log = structlog.get_logger(__name__)

REGISTERED = "WebhookRegistered"
VERIFIABLE = "DeliveriesVerifiable"
"""There only while it is False: what is as it should be makes no condition where nothing is managed."""
TOGETHER_SECONDS = 1.0
"""Many Repositories change at once when an operator starts: they are looked at together."""
AT_ONCE = 8
"""Repositories that are looked at side by side: a forge that is slow or away holds up its own alone."""
PATIENCE_SECONDS = 60.0
"""For one Repository, all requests together."""


class Registration:
    """Keeps webhooks registered."""

    def __init__(
        self, api: cluster.Cluster, forge_of: ForgeOf, settings: Settings, clock: Callable[[], datetime]
    ) -> None:
        """Take the connection, how to reach a Repository's forge, the settings, and the clock."""
        self._api = api
        self._forge_of = forge_of
        self._settings = settings
        self._clock = clock
        self._changed = asyncio.Event()

    def changed(self) -> None:
        """Some Repository is not what it was."""
        self._changed.set()

    async def run(self) -> None:
        """Look after all of them until cancelled."""
        while True:
            self._changed.clear()
            try:
                await self._look_at_all()
            except errors.Transient as error:
                # The next sweep is as good.
                log.warning("webhooks not looked at", error=str(error))
            try:
                async with asyncio.timeout(self._settings.sweep_seconds):
                    await self._changed.wait()
            except TimeoutError:
                continue
            await asyncio.sleep(TOGETHER_SECONDS)

    async def _look_at_all(self) -> None:
        room = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as tasks:
            async for body in self._repositories():
                try:
                    repository = Repository.parse(body)
                except ValidationError:
                    # Its items say what is wrong with it.
                    continue
                await room.acquire()
                tasks.create_task(self._look_at(repository)).add_done_callback(lambda _: room.release())

    async def _look_at(self, repository: Repository) -> None:
        name = f"{repository.metadata.namespace}/{repository.metadata.name}"
        try:
            await self._look(repository)
        except errors.WorkItemsError as error:
            log.warning("webhook not looked at", repository=name, error=str(error))
        except Exception:
            # Our bug: one Repository's webhook must not stop the others', let alone the operator.
            log.exception("bug", repository=name)

    async def _repositories(self) -> AsyncIterator[cluster.JSONObject]:
        for namespace in self._settings.watch_namespaces or (None,):
            async for body in self._api.list(cluster.REPOSITORIES, namespace):
                yield body

    async def _look(self, repository: Repository) -> None:
        before, webhooks = repository.status, repository.spec.webhooks
        if webhooks is None or not webhooks.manage:
            # Whoever wants to manage it themselves finds it at the forge, and no word of ours about it: nor which
            # generation was observed, because nothing is written about the next one.
            others = conditions.without(before.conditions, REGISTERED)
            others = await self._verifiable(repository, others)
            nothing = {"conditions": others, "webhook": None, "observed_generation": None}
            await self._write(repository, before.model_copy(update=nothing))
            return
        webhook: RegisteredWebhook | None
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                webhook = await self._register(repository, webhooks.secret_name)
            outcome = ("True", "Registered", f"deliveries go to {webhook.url}")
        except errors.Permanent as error:
            webhook, outcome = before.webhook, ("False", error.reason, str(error))
        except errors.Transient as error:
            webhook, outcome = before.webhook, ("False", "ForgeUnreachable", str(error))
        except TimeoutError:
            said = f"no answer within {PATIENCE_SECONDS:.0f} s"
            webhook, outcome = before.webhook, ("False", "ForgeUnreachable", said)
        told = self._conditions(repository, outcome)
        observed = repository.metadata.generation
        status = RepositoryStatus(observed_generation=observed, webhook=webhook, conditions=told)
        await self._write(repository, status)

    async def _register(self, repository: Repository, secret_name: str) -> RegisteredWebhook:
        meta, known = repository.metadata, repository.status.webhook
        if self._settings.webhook_url is None or self._settings.webhook_port is None:
            message = (
                "the operator receives no webhooks: set the chart's webhooks.enabled, and webhooks.url or "
                "webhooks.host to the address by which the forge reaches it"
            )
            raise errors.Permanent("NoReceiver", message)
        body = await self._api.get(cluster.SECRETS, meta.namespace, secret_name)
        source = repository.spec.forge.kind if repository.spec.forge is not None else ""
        secret = secret_value(body, source)
        if body is None or secret is None:
            message = (
                f"Secret {secret_name} in namespace {meta.namespace}, which Repository {meta.name} names in "
                f"spec.webhooks, has no key {source}: put a long random value there"
            )
            raise errors.Permanent("SecretNotFound", message)
        path = PATH.format(namespace=meta.namespace, repository=meta.name, source=source)
        url = f"{self._settings.webhook_url.rstrip('/')}{path}"
        version = str(body["metadata"].get("resourceVersion", ""))
        renew = known is None or (known.url, known.secret_version) != (url, version)
        forge = await self._forge_of(meta.namespace, meta.name)
        try:
            text = secret.decode()
        except UnicodeDecodeError:
            message = f"key {source} of Secret {secret_name} in namespace {meta.namespace} is no text"
            raise errors.Permanent("SecretUnreadable", message) from None
        former = known.url if known is not None and known.url != url else ""
        found = await forge.ensure_webhook(url, text, renew=renew, former=former)
        if known is None or known.id != found:
            log.info("webhook registered", repository=f"{meta.namespace}/{meta.name}", id=found, url=url)
        return RegisteredWebhook(id=found, url=url, secret_version=version)

    async def _verifiable(self, repository: Repository, others: tuple[Condition, ...]) -> tuple[Condition, ...]:
        """The conditions, with what keeps deliveries from being verified. Raises errors.Transient."""
        spec, meta = repository.spec, repository.metadata
        kind = spec.forge.kind if spec.forge is not None else ""
        sources = [source for source in (kind, "plane" if spec.plane is not None else "") if source]
        if spec.webhooks is None or self._settings.webhook_port is None or not sources:
            return conditions.without(others, VERIFIABLE)
        name = spec.webhooks.secret_name
        try:
            body = await self._api.get(cluster.SECRETS, meta.namespace, name)
        except errors.Permanent as error:
            trouble = (error.reason, f"deliveries are answered by 503: {error}")
        else:
            # One is enough: nobody has to send from both.
            if any(secret_value(body, source) is not None for source in sources):
                return conditions.without(others, VERIFIABLE)
            message = (
                f"deliveries are answered by 404: Secret {name} in namespace {meta.namespace}, which spec.webhooks "
                f"names, has no key {' or '.join(sources)}: put a long random value there"
            )
            trouble = ("SecretNotFound", message)
        return conditions.put(others, (VERIFIABLE, "False", *trouble), None, self._clock())

    def _conditions(self, repository: Repository, outcome: tuple[str, str, str]) -> tuple[Condition, ...]:
        entry = (REGISTERED, *outcome)
        others = conditions.without(repository.status.conditions, VERIFIABLE)
        return conditions.put(others, entry, repository.metadata.generation, self._clock())

    async def _write(self, repository: Repository, status: RepositoryStatus) -> None:
        if status == repository.status:
            return
        meta = repository.metadata
        body = {
            "apiVersion": API_VERSION,
            "kind": "Repository",
            "metadata": {
                "name": meta.name,
                "namespace": meta.namespace,
                "uid": meta.uid,
                "resourceVersion": meta.resource_version,
            },
            "spec": repository.spec.to_json(),
            "status": status.to_json(),
        }
        await self._api.replace_status(cluster.REPOSITORIES, body)
