"""Gitea as Kubernetes objects, for a namespace under restricted Pod Security.

Pure functions: plain objects come out, ready for `kubectl apply -f -`. One pod on one claim: it may be stopped and
started again, by scaling it, without losing anything.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from hack.cluster import restricted
from hack.gitea.configuration import Configuration, ini

Manifest = dict[str, Any]

DATA = "/var/lib/gitea"
STATIC = "/opt/gitea"
INI = "/etc/gitea/app.ini"
PORT = 3000


@dataclass(frozen=True)
class Gitea:
    """One server: `image` has the program `gitea` on its PATH; `hooks`: hosts that its webhooks may reach."""

    namespace: str
    image: str
    name: str = "gitea"
    hooks: tuple[str, ...] = ()

    @property
    def labels(self) -> dict[str, str]:
        """What selects its pod."""
        return {"app.kubernetes.io/name": "gitea", "app.kubernetes.io/instance": self.name}

    @property
    def url(self) -> str:
        """Its address inside the cluster, without a slash at the end."""
        return f"http://{self.name}.{self.namespace}.svc"


@dataclass(frozen=True)
class Keys:
    """What the server keeps secret; a new one of these would make its stored secrets unreadable."""

    secret_key: str
    internal_token: str
    admin_password: str


def manifests(server: Gitea, keys: Keys) -> list[Manifest]:
    """Return all objects, in the order to apply them."""
    text = ini(
        Configuration(
            f"{server.url}/",
            DATA,
            STATIC,
            "0.0.0.0",  # noqa: S104 - a pod's own addresses
            PORT,
            server.hooks,
            keys.secret_key,
            keys.internal_token,
        )
    )
    return [_secret(server, keys, text), _claim(server), _deployment(server, text), _service(server)]


def keys_of(secret: Manifest, decode: Any) -> Keys:
    """The keys in the Secret that an earlier installation made; `decode` turns base64 into text."""
    return Keys(*(decode(secret["data"][name]) for name in ("secret-key", "internal-token", "admin-password")))


def _metadata(server: Gitea) -> Manifest:
    return {"name": server.name, "namespace": server.namespace, "labels": server.labels}


def _secret(server: Gitea, keys: Keys, text: str) -> Manifest:
    data = {
        "app.ini": text,
        "secret-key": keys.secret_key,
        "internal-token": keys.internal_token,
        "admin-password": keys.admin_password,
    }
    return {"apiVersion": "v1", "kind": "Secret", "metadata": _metadata(server), "type": "Opaque", "stringData": data}


def _claim(server: Gitea) -> Manifest:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": _metadata(server), "spec": spec}


def _deployment(server: Gitea, text: str) -> Manifest:
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(server),
        "spec": {
            "replicas": 1,
            "strategy": {"type": "Recreate"},  # SQLite has one writer
            "selector": {"matchLabels": server.labels},
            "template": {
                "metadata": {"labels": server.labels, "annotations": {"workitems.dev/configuration": digest}},
                "spec": _pod(server),
            },
        },
    }


def _pod(server: Gitea) -> Manifest:
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 20,
        "securityContext": restricted.pod(),
        "containers": [_container(server)],
        "volumes": [
            {"name": "data", "persistentVolumeClaim": {"claimName": server.name}},
            {
                "name": "configuration",
                "secret": {"secretName": server.name, "items": [{"key": "app.ini", "path": "app.ini"}]},
            },
            {"name": "tmp", "emptyDir": {}},
        ],
    }


def _container(server: Gitea) -> Manifest:
    return {
        "name": "gitea",
        "image": server.image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["gitea", "--config", INI, "web"],
        "env": [{"name": "HOME", "value": DATA}, {"name": "TMPDIR", "value": "/tmp"}],  # noqa: S108
        "ports": [{"name": "http", "containerPort": PORT}],
        "readinessProbe": {"httpGet": {"path": "/api/healthz", "port": "http"}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "50m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}},
        "securityContext": restricted.container(),
        "volumeMounts": [
            {"name": "data", "mountPath": DATA},
            {"name": "configuration", "mountPath": INI.rpartition("/")[0], "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
        ],
    }


def _service(server: Gitea) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(server),
        "spec": {"selector": server.labels, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
    }
