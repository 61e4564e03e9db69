"""The operator's process: connects, rebuilds the ledger, then watches, works and sweeps until one of the three ends.

If any of them dies the process does too, and its pod is started again: a half-dead operator that looks alive is
worse than a restart, which costs nothing because nothing is kept in memory that status does not say.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import kopf
import structlog

from workitems import (
    act,
    cluster,
    connect,
    default_pipeline,
    errors,
    events,
    handlers,
    health,
    integrations,
    kinds,
    leading,
    login,
    metrics,
    observe,
    queue,
    reconcile,
    slots,
    unreadable,
    watch,
    webhooks,
)
from workitems.api import Phase, WorkItem, WorkItemStatus
from workitems.channels import Channels
from workitems.core import conditions, transitions
from workitems.core import events as item_events
from workitems.core.facts import Defaults
from workitems.forge_effects import ForgeEffects
from workitems.inbox import Inbox, Tell
from workitems.integrations.http import Connections
from workitems.integrations.plane_webhooks import PlaneWebhooks
from workitems.memory import Memory
from workitems.outbox import Outbox
from workitems.readings import Readings
from workitems.registration import Registration
from workitems.settings import Settings
from workitems.sweeps import Sweeps
from workitems.telling import Telling
from workitems.watch import PartsWatch

log = structlog.get_logger(__name__)


ADOPTED_AT_ONCE = 16
"""Items whose references are read at the same time, at the start: with hundreds of runs, in a row it takes seconds."""

STOP_SECONDS = 15.0
"""How long kopf may take to end; it gives what it has started five seconds itself. The kubelet waits for thirty."""

Clock = Callable[[], datetime]
"""The time of day, in UTC."""


def _now() -> datetime:
    return datetime.now(UTC)


async def operate(
    settings: Settings,
    stop: asyncio.Event | None = None,
    clock: Clock = _now,
    make_forge: connect.MakeForge | None = None,
) -> None:
    """Run until `stop` is set or kopf sees SIGTERM or SIGINT. Raises errors.Permanent if there is no login."""
    api = await cluster.Cluster.connect(settings)
    async with contextlib.AsyncExitStack() as opened:
        opened.push_async_callback(api.close)
        connections = Connections()
        opened.push_async_callback(connections.close)
        clients = connect.Clients(api, make_forge or integrations.forges(connections))
        opened.push_async_callback(clients.close)
        await Operator(settings, api, clients, clock).run(stop or asyncio.Event())


class Operator:
    """All parts, put together once."""

    def __init__(self, settings: Settings, api: cluster.Cluster, clients: connect.Clients, clock: Clock) -> None:
        """Take the settings, a connection, the clients of the world outside, and the clock."""
        self._settings = settings
        self._api = api
        self._queue = queue.Queue()
        self._deliveries: webhooks.Answers = collections.Counter()
        defaults = Defaults(
            runner_image=settings.runner_image,
            agent_image=settings.agent_image,
            claude_image=settings.claude_image,
            model_credentials=settings.model_credentials,
            image_pull_policy=settings.image_pull_policy,
            runner_memory=settings.runner_memory,
            run_as_user=settings.run_uid,
            run_as_group=settings.run_gid,
            fs_group=settings.fs_group,
            infra_backoff=timedelta(seconds=settings.infra_backoff_seconds),
        )
        self._memory = Memory()
        namespaces = (settings.namespace, settings.watch_namespaces)
        self._observer = observe.Observer(api, namespaces, defaults, clock, self._memory)
        self._clock = clock
        self._metrics = metrics.Metrics()
        self._sweeps = Sweeps(api, settings.watch_namespaces, self._queue, self._memory, self._metrics)
        self._events = events.Events(api)
        self._pulse = health.Pulse(self.clock)
        scopes = settings.watch_namespaces or (None,)
        paths = [kind.path(scope) for kind in kinds.OURS for scope in scopes]
        self._health = health.Health(self._pulse, self._queue, self._metrics, paths)
        ledger = slots.Slots()
        wake = self._queue.add
        tell = Tell(wake, lambda event: self._events.send([event]), clock)
        misread = unreadable.Unreadable(api, tell.event, clock)
        self._channels = Channels(api, clients, tell.event, clock)
        carriers = {**ForgeEffects(clients.forge).carriers(), **Telling(self._channels).carriers()}
        self._outbox = Outbox(self._observer.item, carriers, wake, clock)
        every = settings.tracker_poll_seconds
        self._inbox = Inbox(api, self._channels, settings.watch_namespaces, every, tell)
        self._plane_webhooks = webhooks.Channel(PlaneWebhooks(), self._inbox.heard)
        self._readings = Readings(clients.forge, wake, self.clock)
        self._pipeline = default_pipeline.Installation(api, settings.namespace, settings.default_pipeline)
        self._registration = Registration(api, clients.forge, settings, clock)
        outside = reconcile.Outside(self._outbox, self._readings, self, misread)
        self._reconciler = reconcile.Reconciler(self._observer, act.Actor(api), ledger, outside, wake)
        self._show(ledger)

    def _show(self, ledger: slots.Slots) -> None:
        """What others count already, as metrics."""
        show = self._metrics.gauge
        show("workitem_queue_depth", "Keys that wait for a worker.", lambda: self._queue.depth)
        show("workitem_queue_working", "Keys that a worker has.", lambda: self._queue.working)
        show("workitem_queue_delayed", "Keys that wait for a moment.", lambda: self._queue.delayed)
        show("workitem_queue_failing", "Keys whose last look failed.", lambda: self._queue.failing)
        age = "How long the key that waits longest for a worker has waited."
        show("workitem_queue_oldest_age_seconds", age, lambda: self._queue.oldest_age_seconds)
        show("workitem_concurrent_runs", "Items that hold one of the concurrent runs.", lambda: ledger.holding)
        show("workitem_queued_items", "Items that wait for one of the concurrent runs.", lambda: ledger.waiting)
        show(
            "workitem_outbox_items",
            "Items with effects outside the cluster to carry out.",
            lambda: self._outbox.waiting,
        )
        self._metrics.api_calls(self._api.calls)
        self._metrics.webhooks(self._deliveries)

    def clock(self) -> float:
        """Monotonic seconds, of the event loop."""
        return asyncio.get_running_loop().time()

    def written(self, item: WorkItem, after: WorkItemStatus, began: float) -> None:
        """Tell of a step that was written."""
        transition = transitions.between(item.status, after)
        self._metrics.transition(transition, after)
        self._events.send(item_events.about(item, transition, after, self._clock()))
        if after.phase not in conditions.FINISHED:
            # What is over leaves the watch: nothing of it must come back.
            self._pulse.written(item.metadata.namespace, began)

    async def _work(self, key: str) -> float | None:
        began, outcome = self.clock(), "bug"
        try:
            seconds = await self._reconciler(key)
            outcome = "done"
        except errors.WorkItemsError as error:
            outcome = type(error).__name__.lower()
            raise
        finally:
            self._metrics.step(self.clock() - began, outcome)
        return seconds

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set."""
        log.info("start", namespace=self._settings.namespace, watching=self._settings.watch_namespaces or "all")
        watching = await cluster.Cluster.connect(self._settings, connections=0)
        try:
            await self._run(watching, stop)
        finally:
            await watching.close()
            await self._readings.close()
            await self._outbox.close()
            await self._channels.close()
        log.info("stop")

    async def _run(self, watching: cluster.Cluster, stop: asyncio.Event) -> None:
        async with (
            self._health.served(self._settings.health_port),
            leading.leading(self._settings, self._api, self._health, self.clock, stop),
            webhooks.received(
                self._settings, self._api, self._queue.add, {"plane": self._plane_webhooks}, self._deliveries
            ),
        ):
            await kinds.served(self._api, next(iter(self._settings.watch_namespaces), None), asyncio.sleep)
            await self._pipeline.attempt()
            self._outbox.begin()
            await self._rebuild_ledger()
            scopes: tuple[str | None, ...] = self._settings.watch_namespaces or (None,)
            parts = [
                PartsWatch(watching, kind, scope, self._clock, self._memory) for kind in watch.KINDS for scope in scopes
            ]
            # Before the first item is looked at: what happens to its parts after that look is then told.
            for part in parts:
                await part.begin()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._queue.run(self._work, self._settings.workers))
                beside = [
                    tasks.create_task(work)
                    for work in (
                        self._sweeps.run(self._settings.sweep_seconds),
                        self._registration.run(),
                        self._events.run(),
                        self._metrics.watch_loop(),
                        self._inbox.run(),
                        self._pipeline.run(),
                        *(part.run(self._queue.add, self._sweeps.soon) for part in parts),
                    )
                ]
                await tasks.create_task(self._watch(stop))
                for task in beside:
                    task.cancel()
                self._queue.stop()

    async def _rebuild_ledger(self) -> None:
        """Who holds a slot, and who waits for one, is read from every unfinished item, before any new run may start."""
        room = asyncio.Semaphore(ADOPTED_AT_ONCE)
        async with asyncio.TaskGroup() as tasks:
            async for key, body in self._sweeps.unfinished():
                await room.acquire()
                tasks.create_task(self._adopt(key, body)).add_done_callback(lambda _: room.release())

    async def _adopt(self, key: str, body: cluster.JSONObject) -> None:
        try:
            facts = await self._observer.claimant(body)
        except errors.Permanent as error:
            # One item that cannot be read must not keep the operator from starting for all others.
            log.error("not counted", item=key, reason=error.reason, error=str(error))  # noqa: TRY400 - no bug
            return
        if facts is not None:
            self._reconciler.adopt(key, facts)
            # Where something is under way something may be due: before the thousands that only wait.
            add = self._queue.add_behind if facts.item.status.phase is Phase.QUEUED else self._queue.add
            add(key)

    async def _watch(self, stop: asyncio.Event) -> None:
        registry = kopf.OperatorRegistry()
        hearers = handlers.Hearers(self._pulse.heard, self._memory.may_have_decisions, self._repository_changed)
        handlers.register(registry, self._queue, self._reconciler, hearers)
        kopf.on.login(registry=registry)(self._login)
        settings = kopf.OperatorSettings()
        handlers.configure(settings)
        ours = asyncio.all_tasks()
        parts = await kopf.spawn_tasks(
            registry=registry,
            settings=settings,
            standalone=True,
            clusterwide=not self._settings.watch_namespaces,
            namespaces=self._settings.watch_namespaces,
            stop_flag=stop,
        )
        # It returns when it is told to stop, by `stop` or by a signal, and raises when a watch dies.
        running = asyncio.create_task(kopf.run_tasks(parts, ignored=ours))
        try:
            await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            # A dead watch takes the login along, and one that is just being retried then waits for a login for ever.
            # Nothing is awaited that such a watch could hold up: cancelling it does not help.
            ended, _ = await asyncio.wait({running}, timeout=STOP_SECONDS)
            if not ended:
                dead = next((part.exception() for part in parts if part.done() and not part.cancelled()), None)
                raise errors.Permanent("WatchesHang", f"the watches did not end in {STOP_SECONDS:.0f} s") from dead
            await running
        finally:
            running.cancel()

    def _repository_changed(self) -> None:
        self._memory.repositories_changed()
        self._registration.changed()

    async def _login(self, **_: object) -> kopf.AiohttpSession:
        """The same login for kopf's watches as for our reads; asked again whenever the server refuses it."""
        return await login.watching(self._settings, self._health.watched)
