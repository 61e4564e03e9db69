"""One world of a test: an API server, a kubelet, people, and one operator at a time, which may die at any moment."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from hack.cluster import ports
from tests.fake_forge import FakeForge
from tests.loop import virtual
from tests.loop.apiserver import APIServer, Call, Cut
from tests.loop.kubelet import Kubelet
from tests.loop.store import (
    DECISIONS,
    JSON,
    NAMESPACES,
    PIPELINES,
    REPOSITORIES,
    SECRETS,
    WORKITEMS,
    Change,
    Kind,
    Store,
)
from tests.unit.core.world import FORGE, Branch, default_pipeline
from workitems import errors, operate
from workitems.api import Phase, WorkItemStatus
from workitems.settings import Settings

NAMESPACE = "team-a"
OWN_NAMESPACE = "workitem-operator"
URL = "https://git.example.com/shop/web.git"
PATIENCE_SECONDS = 6 * 3600.0
"""On the virtual clock."""
NEVER_SECONDS = 86400.0


@dataclass
class Past:
    """A moment of a world: all that an operator which dies there leaves behind."""

    what: str
    seconds: float
    store: Store
    kubelet: Kubelet
    forge: FakeForge


class Line:
    """One operator's way to the forge: dead once the operator is."""

    def __init__(self, forge: FakeForge, alive: Callable[[], bool]) -> None:
        self._forge = forge
        self._alive = alive

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._forge, name)

        async def call(*arguments: Any, **words: Any) -> Any:
            if not self._alive() and name != "close_client":
                raise errors.Transient("the operator is dead")
            answer = await method(*arguments, **words)
            if not self._alive() and name != "close_client":
                raise errors.Transient("the operator died before the answer")
            return answer

        return call


@dataclass
class Lab:
    """The world; `async with` it."""

    folder: Path
    log: list[JSON] = field(default_factory=list)
    """The operator's log, for what a failing test has to say."""
    past: Past | None = None
    """Where to begin; None: with nothing."""
    at_its_forge: bool = False
    """The forge is the one that the Repository names, and `forge` stands idle."""

    def __post_init__(self) -> None:
        self.store = self.past.store.copy() if self.past is not None else Store(virtual.now)
        self.server = APIServer(self.store)
        self.kubelet = self.past.kubelet.copy(self.store) if self.past is not None else Kubelet(self.store)
        self.forge = (self.past.forge if self.past is not None else FakeForge(self._branch)).copy(self._branch)
        self._changed = asyncio.Event()
        self.store.listeners.append(self._notice)
        self.server.on_death = self._die
        self._operator: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()
        self._generation = 0
        self._ports: list[socket.socket] = []
        self.health_url = ""
        self.supervised = False
        """An operator that ends is started again, as a Deployment does it."""
        self._approves: Callable[[str], bool] = lambda _item: False

    async def __aenter__(self) -> Self:
        await self.server.start()
        if self.past is None:
            for name in (NAMESPACE, OWN_NAMESPACE):
                self.namespace(name)
        self.kubelet.resume()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()
        await self.server.stop()
        while self._ports:
            self._ports.pop().close()

    # --- the operator

    def start(self, **settings: Any) -> None:
        """A new operator process, as far as anybody outside can tell."""
        assert self._operator is None
        self._generation += 1
        token = f"operator-{self._generation}"
        self.server.tokens.add(token)
        kubeconfig = self.folder / token
        cluster = {"name": "test", "cluster": {"server": self.server.url}}
        context = {"name": "test", "context": {"cluster": "test", "user": "operator"}}
        users = [{"name": "operator", "user": {"token": token}}]
        # YAML's subset.
        kubeconfig.write_text(
            json.dumps({"clusters": [cluster], "contexts": [context], "users": users, "current-context": "test"})
        )
        chosen: dict[str, Any] = {
            "namespace": OWN_NAMESPACE,
            "kubeconfig": str(kubeconfig),
            "runner_image": "operator:1",
            "agent_image": "agent:1",
            "health_port": self.free_port(),
            # No answer is late here; a request that hangs is a deadlock and ends the test.
            "request_timeout_seconds": NEVER_SECONDS,
            "connect_timeout_seconds": NEVER_SECONDS,
            **settings,
        }
        self.health_url = f"http://127.0.0.1:{chosen['health_port']}"
        self._stop = asyncio.Event()
        line: Any = Line(self.forge, lambda: token in self.server.tokens)
        make_forge = None if self.at_its_forge else lambda *_: line
        work = operate.operate(Settings(**chosen), self._stop, virtual.now, make_forge)
        self._operator = asyncio.create_task(work)
        self._operator.add_done_callback(lambda _task: self._changed.set())

    async def stop(self) -> None:
        """SIGTERM."""
        assert self._operator is not None
        self._stop.set()
        operator, self._operator = self._operator, None
        await operator

    async def kill(self) -> None:
        """SIGKILL: no request leaves any more. Its tasks are told to end; what they do until then reaches nobody."""
        self._die()
        operator, self._operator = self._operator, None
        if operator is not None:
            await asyncio.gather(operator, return_exceptions=True)

    async def until_dead(self) -> None:
        """Wait until the operator has died of a fault."""
        await self.until(lambda: not self.alive, "the operator's death")
        await self.kill()

    async def restart(self, **settings: Any) -> None:
        await self.kill()
        self.start(**settings)

    def _die(self) -> None:
        self.server.kill()
        self._stop.set()
        self._changed.set()

    @property
    def alive(self) -> bool:
        return bool(self.server.tokens) and self._operator is not None and not self._operator.done()

    def remember(self, what: str) -> Past:
        """This moment."""
        store = self.store.copy()
        kubelet = self.kubelet.copy(store)
        forge = self.forge.copy(lambda name: kubelet.branch(URL, name))
        return Past(what, asyncio.get_running_loop().time(), store, kubelet, forge)

    def _branch(self, name: str) -> Branch:
        return self.kubelet.branch(URL, name)

    def free_port(self) -> int:
        """A port for the operator to listen at: bound until this world is over, or another test process may get it."""
        self._ports.append(ports.held())
        return ports.number(self._ports[-1])

    # --- people

    def apply(self, kind: Kind, name: str, spec: JSON, namespace: str = NAMESPACE) -> JSON:
        """Create an object, or change its spec."""
        if self.store.find(kind, namespace, name) is not None:
            return self.store.patch(kind, namespace, name, {"spec": spec})
        body = {"apiVersion": kind.api_version, "kind": kind.name, "metadata": {"name": name}, "spec": spec}
        return self.store.create(kind, namespace, body)

    def namespace(self, name: str) -> None:
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        self.store.create(NAMESPACES, "", body)

    def repository(self, name: str = "shop", **spec: Any) -> None:
        self.apply(REPOSITORIES, name, {"url": URL, "worktree": {"emptyDir": {}}, **spec})

    def repository_with_forge(self, name: str = "shop") -> None:
        """A Repository whose forge is `self.forge`, with its token."""
        data = {"token": base64.b64encode(b"s3cret\n").decode()}
        self.store.create(
            SECRETS, NAMESPACE, {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "shop-gitea"}, "data": data}
        )
        self.repository(name, forge=FORGE)

    def pipeline(self, spec: JSON | None = None, name: str = "default", namespace: str = OWN_NAMESPACE) -> None:
        self.apply(PIPELINES, name, spec or default_pipeline(), namespace)

    def item(self, name: str, **spec: Any) -> str:
        """Create a WorkItem; its name."""
        self.apply(WORKITEMS, name, {"repository": "shop", "title": f"Item {name}", **spec})
        return name

    def decide(self, item: str, action: str, body: JSON | None = None, comment: str = "") -> str:
        """Say something to an item; the Decision's name."""
        name = f"{item}-{action.lower()}-{sum(1 for _ in self.store.list(DECISIONS)) + 1}"
        spec = {"workItem": item, "by": "team-lead", action: body or {}, "comment": comment}
        self.apply(DECISIONS, name, spec)
        return name

    def approve_always(self, when: Callable[[str], bool] = lambda _item: True) -> None:
        """Half a minute after an item asked for it, a person approves what they read."""
        self._approves = when
        for body in self.store.list(WORKITEMS):
            self._may_approve(body)

    # --- what a test sees

    def status(self, item: str) -> WorkItemStatus:
        return WorkItemStatus.model_validate(self.store.get(WORKITEMS, NAMESPACE, item).get("status") or {})

    def phase(self, item: str) -> Phase:
        return self.status(item).phase

    def ready(self, item: str) -> tuple[str, str]:
        """Reason and message of the Ready condition."""
        for condition in self.status(item).conditions:
            if condition.type == "Ready":
                return condition.reason, condition.message
        return "", ""

    def decision(self, name: str) -> tuple[str, str]:
        """What the operator replied: result and reason."""
        status = self.store.get(DECISIONS, NAMESPACE, name).get("status") or {}
        return status.get("result", ""), status.get("reason", "")

    def writes(self, item: str | None = None) -> list[Call]:
        """Status writes of the operator that were carried out."""
        return [
            call
            for call in self.server.writes()
            if call.kind is WORKITEMS and call.code == 200 and item in (None, call.name)
        ]

    def jobs(self, item: str) -> list[str]:
        """Names of the item's Jobs in the order of their creation."""
        return [r.job for r in self.kubelet.records if r.item.startswith(f"{item}/")]

    async def until(self, true: Callable[[], bool], what: str = "that") -> None:
        """Wait for a change after which `true` holds."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not true():
                    if self.server.tokens and self._operator is not None and self._operator.done():
                        if not self.supervised:
                            raise AssertionError(f"the operator ended: {self._operator.exception()!r}\n{self.told()}")
                        await self.restart()
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"never came to {what}:\n{self.told()}") from None

    async def until_phase(self, phase: str, *items: str) -> None:
        await self.until(lambda: all(self.phase(item) == phase for item in items), f"{phase} of {', '.join(items)}")

    async def rest(self, seconds: float = 60.0) -> None:
        """Let everything happen that happens by itself within so many seconds of the virtual clock."""
        await asyncio.sleep(seconds)

    def told(self) -> str:
        """Where everything stands and what the operator said last."""
        items = [
            f"{body['metadata']['name']}: {json.dumps(body.get('status') or {}, indent=None)[:1500]}"
            for body in self.store.list(WORKITEMS)
        ]
        return "\n".join([*items, *(str(entry) for entry in self.log[-15:])])

    def check(self, *, bugs: bool = False) -> None:
        """What must hold after every test, whatever happened in it."""
        assert self.kubelet.overlaps == []
        self.forge.check()
        doubled = {run: count for run, count in self.kubelet.created().items() if count > 1}
        assert doubled == {}, f"more than one Job for one run: {doubled}"
        for call in self.server.writes():
            metadata = call.body.get("metadata") or {}
            assert "finalizers" not in metadata, f"{call} sets finalizers"
            assert "annotations" not in metadata, f"{call} sets annotations"
        if not bugs:
            assert [entry for entry in self.log if entry["event"] == "bug"] == []

    # --- machinery

    def _notice(self, change: Change) -> None:
        self._changed.set()
        if change.kind is WORKITEMS and change.new is not None:
            self._may_approve(change.new)

    def _may_approve(self, body: JSON) -> None:
        name, status = body["metadata"]["name"], body.get("status") or {}
        if status.get("phase") == "InReview" and self._approves(name):
            asyncio.get_running_loop().call_later(30, self._approve, name, status["head"])

    def _approve(self, item: str, head: str) -> None:
        status = self.status(item)
        said = [d["spec"].get("approve") for d in self.store.list(DECISIONS) if d["spec"]["workItem"] == item]
        gate = next((g.name for g in status.gates if g.reason == "WaitingForApproval"), None)
        words = {"gate": gate, "commit": head}
        if status.phase is Phase.IN_REVIEW and gate is not None and words not in said:
            self.decide(item, "approve", words)


def cut_at(number: int, cut: Cut, which: Callable[[Call], bool]) -> Callable[[Call], Cut | None]:
    """A fault for the request with this number, counted from 1, among those that `which` selects."""
    count = 0

    def fault(call: Call) -> Cut | None:
        nonlocal count
        count += which(call)
        return cut if count == number and which(call) else None

    return fault
