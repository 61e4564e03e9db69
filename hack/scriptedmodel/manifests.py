"""The scripted model as Kubernetes objects, for a namespace under restricted Pod Security.

Pure functions. It runs in any image with python3; a changed script starts it afresh, because the pod template carries
the digest of its files.
"""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
from collections.abc import Mapping
from typing import Any

from hack.cluster import restricted

Manifest = dict[str, Any]

PORT = 8080
LOG = "/tmp/requests.jsonl"  # noqa: S108 - a volume of the container's own
SERVER = pathlib.Path(__file__).with_name("server.py")


@dataclasses.dataclass(frozen=True)
class ModelServer:
    """`replies`: name of the module in `files` that answers; empty: the script in each prompt does."""

    namespace: str
    image: str
    name: str = "model"
    key: str = ""
    replies: str = ""
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def url(self) -> str:
        """Its address inside the cluster."""
        return f"http://{self.name}.{self.namespace}.svc"

    @property
    def labels(self) -> dict[str, str]:
        """What selects its pod."""
        return {"app.kubernetes.io/name": "scriptedmodel", "app.kubernetes.io/instance": self.name}


def manifests(server: ModelServer) -> list[Manifest]:
    """All objects, in the order to apply them."""
    files = {**server.files, SERVER.name: SERVER.read_text()}
    digest = hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()[:16]
    metadata = {"name": server.name, "namespace": server.namespace, "labels": server.labels}
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": files},
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": metadata,
            "spec": {
                "replicas": 1,
                "strategy": {"type": "Recreate"},
                "selector": {"matchLabels": server.labels},
                "template": {
                    "metadata": {"labels": server.labels, "annotations": {"workitems.dev/files": digest}},
                    "spec": _pod(server),
                },
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"selector": server.labels, "ports": [{"name": "http", "port": 80, "targetPort": PORT}]},
        },
    ]


def _pod(server: ModelServer) -> Manifest:
    options = ["--port", str(PORT), "--log", LOG]
    options += ["--key", server.key] if server.key else []
    options += ["--replies", server.replies] if server.replies else []
    container = {
        "name": "model",
        "image": server.image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", f"/model/{SERVER.name}", *options],
        "env": [{"name": "PYTHONDONTWRITEBYTECODE", "value": "1"}],
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": PORT}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "20m", "memory": "48Mi"}, "limits": {"memory": "256Mi"}},
        "securityContext": restricted.container(),
        "volumeMounts": [
            {"name": "files", "mountPath": "/model", "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a volume of its own
        ],
    }
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 0,
        "securityContext": restricted.pod(),
        "containers": [container],
        "volumes": [{"name": "files", "configMap": {"name": server.name}}, {"name": "tmp", "emptyDir": {}}],
    }
