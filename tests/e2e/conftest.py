"""One cluster, one operator and one git server for all end-to-end tests; a namespace of its own for each.

The cluster is the one that hack/cluster chooses; any other context is refused. The namespaces enforce the restricted
Pod Security level. An operator that the demo left in the cluster is scaled to nothing while the tests run.
"""

from __future__ import annotations

import pathlib
import re
import socket
import subprocess
import uuid
from collections.abc import Iterator
from typing import Any

import pykube
import pytest
import yaml

from hack.cluster import images
from hack.cluster.model import Cluster
from hack.gitserver import bundle
from hack.gitserver.manifests import GitServer, manifests, secret
from tests.cluster_provider import ChosenCluster
from tests.e2e.lab import Lab, agent_config_map
from tests.e2e.operator_process import OperatorProcess

ROOT = pathlib.Path(__file__).parent.parent.parent
GIT_NAMESPACE = "wi-e2e-git"
OPERATOR_NAMESPACE = "workitem-operator"
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted", "workitems.dev/e2e": "true"}


def _kubectl(cluster: Cluster, *arguments: str, stdin: str | None = None) -> str:
    done = subprocess.run([*cluster.kubectl, *arguments], capture_output=True, text=True, input=stdin, check=False)
    assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
    return done.stdout


def _apply(cluster: Cluster, *objects: dict[str, Any]) -> None:
    _kubectl(cluster, "apply", "--server-side", "--force-conflicts", "-f", "-", stdin=yaml.safe_dump_all(objects))


def _namespace(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}}


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """The cluster of the tests, up; with our CRDs and RBAC, and without a leftover of an earlier session."""
    provider = ChosenCluster()
    provider.create()
    chosen = provider.cluster
    _kubectl(chosen, "apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "crds"))
    _kubectl(chosen, "wait", "--for=condition=Established", "--timeout=60s", "-f", str(ROOT / "crds"))
    objects = list(yaml.safe_load_all((ROOT / "hack/manifests/operator.yaml").read_text()))
    _apply(chosen, *(o for o in objects if o["kind"] != "Deployment"))
    _kubectl(chosen, "delete", "namespace", "-l", "workitems.dev/e2e=true", "--wait=true", "--timeout=120s")
    return chosen


@pytest.fixture(scope="session")
def built(cluster: Cluster) -> images.Images:
    """The images of this checkout, in the cluster."""
    return images.build_and_load(cluster)


@pytest.fixture(scope="session")
def git_server(cluster: Cluster, built: images.Images) -> GitServer:
    """A real git server in the cluster, with the tests' seed repository."""
    server = GitServer(namespace=GIT_NAMESPACE, image=built.agent)
    _apply(cluster, _namespace(GIT_NAMESPACE), secret(server, "bot", "correct horse"))
    _apply(cluster, *manifests(server, {"seed": bundle.bundle(ROOT / "tests/e2e/seed")}))
    _kubectl(cluster, "-n", GIT_NAMESPACE, "rollout", "status", f"deploy/{server.name}", "--timeout=180s")
    return server


@pytest.fixture(scope="session")
def operator_kubeconfig(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A kubeconfig with the rights of the operator's own ServiceAccount."""
    view = yaml.safe_load(_kubectl(cluster, "config", "view", "--raw", "--minify", "--flatten"))
    token = _kubectl(cluster, "-n", OPERATOR_NAMESPACE, "create", "token", "workitem-operator", "--duration=8h").strip()
    view["users"] = [{"name": "operator", "user": {"token": token}}]
    view["contexts"][0]["context"]["user"] = "operator"
    view["current-context"] = view["contexts"][0]["name"]
    path = tmp_path_factory.mktemp("operator") / "kubeconfig"
    path.write_text(yaml.safe_dump(view))
    return path


@pytest.fixture(scope="session")
def operator(
    cluster: Cluster, built: images.Images, operator_kubeconfig: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OperatorProcess]:
    """The operator, as a process."""
    with _paused_deployment(cluster):
        process = OperatorProcess(
            kubeconfig=operator_kubeconfig,
            runner_image=built.operator,
            agent_image=built.agent,
            namespaces=[],
            log=tmp_path_factory.mktemp("log") / "operator.log",
            port=_free_port(),
        )
        process.start()
        yield process
        process.stop()


class _paused_deployment:  # noqa: N801 - used as a function
    """An operator in the cluster would do the work of the one under test."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._replicas = ""

    def __enter__(self) -> None:
        where = ("-n", OPERATOR_NAMESPACE)
        self._replicas = _kubectl(
            self._cluster, *where, "get", "deploy", "-l", "app.kubernetes.io/name=workitem-operator",
            "-o", "jsonpath={.items[*].spec.replicas}",
        )  # fmt: skip
        if self._replicas not in ("", "0"):
            _kubectl(self._cluster, *where, "scale", "deploy/workitem-operator", "--replicas=0")
            _kubectl(
                self._cluster,
                *where,
                "wait",
                "--for=delete",
                "pod",
                "--timeout=90s",
                "-l",
                "app.kubernetes.io/name=workitem-operator",
            )

    def __exit__(self, *_: object) -> None:
        if self._replicas not in ("", "0"):
            scale = ("scale", "deploy/workitem-operator", f"--replicas={self._replicas}")
            _kubectl(self._cluster, "-n", OPERATOR_NAMESPACE, *scale)


@pytest.fixture(scope="session")
def api(cluster: Cluster) -> pykube.HTTPClient:
    """pykube-ng on the tests' context."""
    config = pykube.KubeConfig.from_file(str(cluster.kubeconfig))
    config.set_current_context(cluster.context)
    return pykube.HTTPClient(config)


@pytest.fixture
def lab(
    request: pytest.FixtureRequest,
    cluster: Cluster,
    api: pykube.HTTPClient,
    git_server: GitServer,
    operator: OperatorProcess,
) -> Iterator[Lab]:
    """A namespace with the git credentials and the scripted agent; deleted after the test."""
    yield from _laboratory(request.node.name, Lab(cluster, api, "", git_server, operator))


@pytest.fixture(scope="module")
def shared_lab(
    request: pytest.FixtureRequest,
    cluster: Cluster,
    api: pykube.HTTPClient,
    git_server: GitServer,
    operator: OperatorProcess,
) -> Iterator[Lab]:
    """One namespace for all tests of a module: their items run side by side from the first test on."""
    yield from _laboratory(request.node.name, Lab(cluster, api, "", git_server, operator))


def _laboratory(title: str, lab: Lab) -> Iterator[Lab]:
    words = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:36].rstrip("-")
    lab.namespace = f"wi-{words}-{uuid.uuid4().hex[:6]}"
    _apply(lab.cluster, _namespace(lab.namespace))
    credentials = secret(lab.git_server, "bot", "correct horse")
    credentials["metadata"]["namespace"] = lab.namespace
    agent = {**agent_config_map(), "metadata": {"name": "script-agent", "namespace": lab.namespace}}
    _apply(lab.cluster, credentials, agent)
    yield lab
    _kubectl(lab.cluster, "delete", "namespace", lab.namespace, "--wait=false")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
