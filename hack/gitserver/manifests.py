"""The git server as Kubernetes objects, for a namespace under restricted Pod Security.

Pure functions: what is served and where comes in, plain objects come out, ready for `kubectl apply -f -`. One pod,
its repositories on an emptyDir: the server lives as long as the cluster's test does, and a changed seed or server
starts afresh on purpose (the pod template carries their digest).
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import pathlib
from typing import TYPE_CHECKING, Any

from hack.cluster import restricted

if TYPE_CHECKING:
    from collections.abc import Mapping

Manifest = dict[str, Any]

ROOT = "/srv/git"
LOG = f"{ROOT}/pushes.jsonl"
PORT = 8080
CONFIG_MAP_BYTES = 1_000_000  # the API server takes 1 MiB, its own fields included


@dataclasses.dataclass(frozen=True)
class GitServer:
    """One git server: `image` needs python3 and git; the Secret holds `username` and `password`."""

    namespace: str
    image: str
    name: str = "git"
    secret_name: str = "git-credentials"  # noqa: S105 - the name of a Secret, not one

    @property
    def labels(self) -> dict[str, str]:
        """What selects its pod."""
        return {"app.kubernetes.io/name": "gitserver", "app.kubernetes.io/instance": self.name}


def url(server: GitServer, repository: str) -> str:
    """Return the address of a repository inside the cluster, without credentials."""
    return f"http://{server.name}.{server.namespace}.svc/{repository}.git"


def manifests(server: GitServer, repositories: Mapping[str, bytes]) -> list[Manifest]:
    """Return all objects but the Secret, in the order to apply them; `repositories`: name -> git bundle.

    Raises ValueError where the bundles do not fit into a ConfigMap.
    """
    return [_config_map(server, repositories), _deployment(server, repositories), _service(server)]


def secret(server: GitServer, username: str, password: str) -> Manifest:
    """Return the credentials, usable as `credentials.secretName` of a Repository too."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": _metadata(server, server.secret_name),
        "type": "kubernetes.io/basic-auth",
        "stringData": {"username": username, "password": password},
    }


def _metadata(server: GitServer, name: str) -> Manifest:
    return {"name": name, "namespace": server.namespace, "labels": server.labels}


def _program() -> str:
    return pathlib.Path(__file__).with_name("server.py").read_text()


def _config_map(server: GitServer, repositories: Mapping[str, bytes]) -> Manifest:
    binary = {f"{name}.bundle": base64.b64encode(data).decode() for name, data in sorted(repositories.items())}
    size = sum(map(len, binary.values()))
    if size > CONFIG_MAP_BYTES:
        raise ValueError(
            f"the repositories {', '.join(sorted(repositories))} take {size} bytes as base64, a ConfigMap "
            f"{CONFIG_MAP_BYTES}: serve smaller ones, or push the rest once the server runs"
        )
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(server, server.name),
        "data": {"server.py": _program()},
        "binaryData": binary,
    }


def _digest(repositories: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256(_program().encode())
    for name, data in sorted(repositories.items()):
        digest.update(f"\0{name}\0{len(data)}\0".encode() + data)
    return digest.hexdigest()[:16]


def _deployment(server: GitServer, repositories: Mapping[str, bytes]) -> Manifest:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(server, server.name),
        "spec": {
            "replicas": 1,
            "strategy": {"type": "Recreate"},  # two pods would be two different repositories under one address
            "selector": {"matchLabels": server.labels},
            "template": {
                "metadata": {
                    "labels": server.labels,
                    "annotations": {"workitems.dev/seed-digest": _digest(repositories)},
                },
                "spec": _pod(server, repositories),
            },
        },
    }


def _pod(server: GitServer, repositories: Mapping[str, bytes]) -> Manifest:
    seeds = [{"key": f"{name}.bundle", "path": f"{name}.bundle"} for name in sorted(repositories)]
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 5,
        # Its repositories live in its pod: the test of a lost node declares the node lost, and needs them afterwards.
        "tolerations": [{"key": "node.kubernetes.io/out-of-service", "operator": "Exists"}],
        "securityContext": restricted.pod(),
        "containers": [_container(server)],
        "volumes": [
            {
                "name": "program",
                "configMap": {"name": server.name, "items": [{"key": "server.py", "path": "server.py"}]},
            },
            {"name": "seed", "configMap": {"name": server.name, "items": seeds}},
            {"name": "credentials", "secret": {"secretName": server.secret_name}},
            {"name": "repositories", "emptyDir": {}},
            {"name": "tmp", "emptyDir": {}},
        ],
    }


def _container(server: GitServer) -> Manifest:
    serve = ["serve", "--root", ROOT, "--seed", "/seed", "--credentials", "/credentials", "--log", LOG]
    mounts = {"program": "/program", "seed": "/seed", "credentials": "/credentials"}
    return {
        "name": "git",
        "image": server.image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "/program/server.py", *serve, "--port", str(PORT)],
        "env": [{"name": "HOME", "value": "/tmp"}, {"name": "PYTHONUNBUFFERED", "value": "1"}],  # noqa: S108
        "ports": [{"name": "http", "containerPort": PORT}],
        # Patient: on a busy machine a late answer must not take the only server out of its Service.
        "readinessProbe": {
            "httpGet": {"path": "/healthz", "port": "http"},
            "periodSeconds": 1,
            "timeoutSeconds": 10,
            "failureThreshold": 6,
        },
        "resources": {"requests": {"cpu": "20m", "memory": "48Mi"}, "limits": {"memory": "512Mi"}},
        "securityContext": restricted.container(),
        "volumeMounts": [
            *({"name": name, "mountPath": path, "readOnly": True} for name, path in mounts.items()),
            {"name": "repositories", "mountPath": ROOT},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
        ],
    }


def _service(server: GitServer) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(server, server.name),
        "spec": {"selector": server.labels, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
    }
