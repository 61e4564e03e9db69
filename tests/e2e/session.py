"""What all end-to-end tests of a session share: cluster, images, git server and one operator, prepared once.

Most of a test's time is waiting, so several processes (pytest -n) take turns on two cores. There is still one of each
of these: the process that distributes the tests prepares them and tells the others what they need to know.
"""

from __future__ import annotations

import contextlib
import pathlib
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Self

import yaml

from hack.cluster import choose, images, ports, settings, shell
from hack.cluster.model import Cluster
from hack.gitserver import bundle
from hack.gitserver.manifests import GitServer, manifests, secret
from tests.cluster_provider import ChosenCluster, allow
from tests.e2e.lab import PATIENTLY
from tests.e2e.operator_process import OperatorProcess, end_leftovers

ROOT = pathlib.Path(__file__).parent.parent.parent
GIT_NAMESPACE = "wi-e2e-git"
OPERATOR_NAMESPACE = "workitem-operator"
RIGHTS = {
    *("Namespace", "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"),
    *("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"),
}
"""Of an installation, what the operator's process needs, and what it forbids others."""
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted", "workitems.dev/e2e": "true"}


@dataclass(frozen=True)
class Shared:
    """What a process needs to know of what another one prepared; all of it JSON's types."""

    operator_image: str
    agent_image: str
    kubeconfig: str
    log: str
    port: int
    pid: int

    def as_message(self) -> dict[str, Any]:
        """For xdist's workerinput."""
        return asdict(self)

    @classmethod
    def from_message(cls, message: dict[str, Any]) -> Self:
        """The reverse."""
        return cls(**message)

    @property
    def images(self) -> images.Images:
        """The images of this checkout."""
        return images.Images(operator=self.operator_image, agent=self.agent_image)

    @property
    def operator(self) -> OperatorProcess:
        """The operator, which somebody else started."""
        paths = {"kubeconfig": pathlib.Path(self.kubeconfig), "log": pathlib.Path(self.log)}
        built = {"runner_image": self.operator_image, "agent_image": self.agent_image}
        return OperatorProcess(**paths, **built, namespaces=[], port=self.port, foreign_pid=self.pid)  # type: ignore[arg-type]


@contextlib.contextmanager
def prepared(folder: pathlib.Path) -> Iterator[Shared]:
    """Everything at once, until the end of the session; files go into `folder`."""
    with prepared_cluster() as cluster:
        built = images.build_and_load(cluster)
        prepare_git_server(cluster, built)
        with running_operator(cluster, built, folder) as operator:
            yield Shared(
                operator_image=built.operator,
                agent_image=built.agent,
                kubeconfig=str(operator.kubeconfig),
                log=str(operator.log),
                port=operator.port,
                pid=operator.pid,
            )


def chosen_cluster() -> Cluster:
    """The cluster that another process has prepared."""
    cluster = choose.current()
    allow(cluster.context)
    return cluster


@contextlib.contextmanager
def prepared_cluster() -> Iterator[Cluster]:
    """The cluster of the tests, up; with our CRDs, RBAC and policies, without a leftover of an earlier session.

    Nobody else's session is at work on it meanwhile: each would remove the other's namespaces and do its items' work.
    """
    busy = "another session of the end-to-end tests is at work; waiting for its end"
    with shell.locked(settings.read().cache / "e2e.lock", busy):
        end_leftovers()
        provider = ChosenCluster()
        provider.create()
        cluster = provider.cluster
        kubectl(cluster, "apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "crds"))
        kubectl(cluster, "wait", "--for=condition=Established", PATIENTLY, "-f", str(ROOT / "crds"))
        files = [ROOT / "deploy" / name for name in ("namespace.yaml", "operator.yaml")]
        objects = [body for path in files for body in yaml.safe_load_all(path.read_text())]
        apply(cluster, *(body for body in objects if body["kind"] in RIGHTS))
        # Of a test_chart that was killed.
        kinds = "clusterrole,validatingadmissionpolicy,validatingadmissionpolicybinding"
        kubectl(cluster, "delete", kinds, "-l", "app.kubernetes.io/instance=release")
        kubectl(cluster, "delete", "namespace", "-l", "workitems.dev/e2e=true", "--wait=true", PATIENTLY)
        yield cluster


def git_server(built: images.Images) -> GitServer:
    """The description of the git server."""
    return GitServer(namespace=GIT_NAMESPACE, image=built.agent)


def prepare_git_server(cluster: Cluster, built: images.Images) -> GitServer:
    """A real git server in the cluster, with the tests' seed repository."""
    server = git_server(built)
    apply(cluster, namespace(GIT_NAMESPACE), secret(server, "bot", "correct horse"))
    apply(cluster, *manifests(server, {"seed": bundle.bundle(ROOT / "tests/e2e/seed")}))
    kubectl(cluster, "-n", GIT_NAMESPACE, "rollout", "status", f"deploy/{server.name}", PATIENTLY)
    return server


@contextlib.contextmanager
def running_operator(cluster: Cluster, built: images.Images, folder: pathlib.Path) -> Iterator[OperatorProcess]:
    """The operator as a process, with the rights of its own ServiceAccount."""
    with _paused_deployment(cluster):
        process = OperatorProcess(
            kubeconfig=_operator_kubeconfig(cluster, folder / "kubeconfig"),
            runner_image=built.operator,
            agent_image=built.agent,
            namespaces=[],
            log=folder / "operator.log",
            port=ports.free(),
        )
        process.start()
        try:
            yield process
        finally:
            process.stop()


def kubectl(cluster: Cluster, *arguments: str, stdin: str | None = None) -> str:
    """Run kubectl; its output."""
    done = subprocess.run([*cluster.kubectl, *arguments], capture_output=True, text=True, input=stdin, check=False)
    assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
    return done.stdout


def apply(cluster: Cluster, *objects: dict[str, Any]) -> None:
    """Server-side apply."""
    kubectl(cluster, "apply", "--server-side", "--force-conflicts", "-f", "-", stdin=yaml.safe_dump_all(objects))


def namespace(name: str) -> dict[str, Any]:
    """A namespace of the tests, removed by the next session at the latest."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}}


def _operator_kubeconfig(cluster: Cluster, path: pathlib.Path) -> pathlib.Path:
    view = yaml.safe_load(kubectl(cluster, "config", "view", "--raw", "--minify", "--flatten"))
    token = kubectl(cluster, "-n", OPERATOR_NAMESPACE, "create", "token", "workitem-operator", "--duration=8h").strip()
    view["users"] = [{"name": "operator", "user": {"token": token}}]
    view["contexts"][0]["context"]["user"] = "operator"
    view["current-context"] = view["contexts"][0]["name"]
    path.write_text(yaml.safe_dump(view))
    return path


@contextlib.contextmanager
def _paused_deployment(cluster: Cluster) -> Iterator[None]:
    """An operator in the cluster would do the work of the one under test."""
    where, labels = ("-n", OPERATOR_NAMESPACE), ("-l", "app.kubernetes.io/name=workitem-operator")
    replicas = kubectl(cluster, *where, "get", "deploy", *labels, "-o", "jsonpath={.items[*].spec.replicas}")
    if replicas in ("", "0"):
        yield
        return
    kubectl(cluster, *where, "scale", "deploy/workitem-operator", "--replicas=0")
    try:
        kubectl(cluster, *where, "wait", "--for=delete", "pod", PATIENTLY, *labels)
        yield
    finally:
        kubectl(cluster, *where, "scale", "deploy/workitem-operator", f"--replicas={replicas}")
