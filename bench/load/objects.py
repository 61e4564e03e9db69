"""What the benchmark puts into the API server: CRDs, the operator's account, one repository, items by the thousand."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Awaitable, Iterable
from pathlib import Path
from typing import Any

import yaml

from bench.load.client import CONNECTIONS, JSON, Client
from bench.load.controlplane import CONTEXT, ControlPlane
from hack.cluster import pki
from workitems.api import API_VERSION

ROOT = Path(__file__).resolve().parents[2]
OPERATOR = "workitem-operator"
TOKEN_SECONDS = 24 * 3600
SERVED_SECONDS = 60
STAGES = 6


async def prepare(client: Client, plane: ControlPlane) -> Path:
    """CRDs and the operator's account; a kubeconfig for it, with a token as a pod has one."""
    for path in sorted((ROOT / "crds").glob("*.yaml")):
        for body in yaml.safe_load_all(path.read_text()):
            await client.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", body)
    await _namespace(client, OPERATOR)
    await client.post(f"/api/v1/namespaces/{OPERATOR}/serviceaccounts", {"metadata": {"name": OPERATOR}})
    # What it may do is not what is measured here.
    binding = {
        "metadata": {"name": OPERATOR},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": OPERATOR, "namespace": OPERATOR}],
    }
    await client.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding)
    where = f"/api/v1/namespaces/{OPERATOR}/serviceaccounts/{OPERATOR}/token"
    answer = await client.post(where, {"spec": {"expirationSeconds": TOKEN_SECONDS}})
    config: JSON = json.loads(pki.kubeconfig(plane.pki, "admin", plane.url, CONTEXT))
    config["users"] = [{"name": "admin", "user": {"token": answer["status"]["token"]}}]
    path = plane.folder / "operator.kubeconfig"
    path.write_text(json.dumps(config))
    await _served(client)
    return path


async def namespace(client: Client, name: str) -> None:
    """A namespace with a Repository `shop`, its Secret, and a Pipeline of six no-op stages."""
    await _namespace(client, name)
    secret = {"metadata": {"name": "git"}, "stringData": {"username": "bot", "password": "x"}}
    await client.post(f"/api/v1/namespaces/{name}/secrets", secret)
    repository = {
        "url": "https://git.example.com/shop.git",
        "credentials": {"secretName": "git"},
        "worktree": {"emptyDir": {}},
    }
    await client.post(_path(name, "repositories"), _object("Repository", "shop", repository))
    pipeline = {
        "agents": {"noop": {"command": ["true"]}},
        "stages": [{"name": f"stage-{n}", "agent": "noop"} for n in range(1, STAGES + 1)],
        "limits": {"maxConcurrentRuns": 1000},
    }
    await client.post(_path(name, "pipelines"), _object("Pipeline", "default", pipeline))


async def create(client: Client, where: str, names: Iterable[str], status: JSON | None = None, **spec: Any) -> None:
    """Items by these names; with a status, as if the operator had brought them there."""

    async def one(name: str) -> None:
        wanted = {"repository": "shop", "title": f"Item {name}", "description": "Do it.\n" * 40, **spec}
        body = await client.post(_path(where, "workitems"), _object("WorkItem", name, wanted))
        if status is not None:
            own = copy.deepcopy(status)
            own["branch"] = f"workitem/{name}"
            for run in own["runs"]:
                run["job"] = f"{name}-{run['stage']}"
            await client.put(f"{_path(where, 'workitems')}/{name}/status", {**body, "status": own})

    await _several(one(name) for name in names)


async def status(client: Client, where: str, name: str) -> JSON:
    """An item's status."""
    return dict((await client.get(f"{_path(where, 'workitems')}/{name}"))["status"])


async def _served(client: Client) -> None:
    """Wait until the CRDs are: created and Established is not enough."""
    async with asyncio.timeout(SERVED_SECONDS):
        for plural in ("workitems", "repositories", "pipelines", "decisions"):
            while True:
                try:
                    await client.get(f"/apis/{API_VERSION}/{plural}")
                    break
                except RuntimeError:
                    await asyncio.sleep(0.2)


async def _several(calls: Iterable[Awaitable[None]]) -> None:
    """A few at a time."""
    waiting = iter(calls)

    async def work() -> None:
        for call in waiting:
            await call

    async with asyncio.TaskGroup() as tasks:
        for _ in range(CONNECTIONS):
            tasks.create_task(work())


async def _namespace(client: Client, name: str) -> None:
    await client.post("/api/v1/namespaces", {"metadata": {"name": name}})


def _path(where: str, plural: str) -> str:
    return f"/apis/{API_VERSION}/namespaces/{where}/{plural}"


def _object(kind: str, name: str, spec: JSON) -> JSON:
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}
