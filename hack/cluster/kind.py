"""A kind cluster, where Docker really runs. kind itself is built from its Go module when it is not on PATH."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hack.cluster import binaries, model, shell
from hack.cluster.settings import Settings

NAME = "workitems"
CONTEXT = f"kind-{NAME}"


def docker_runs() -> bool:
    """Whether there is a Docker daemon, not only its client."""
    return (
        shell.find("docker") is not None
        and shell.attempt(["docker", "info", "--format", "{{.ServerVersion}}"]).returncode == 0
    )


@dataclass(frozen=True)
class KindCluster:
    """The kind cluster named `workitems`; implements `model.Cluster`."""

    settings: Settings
    kind: model.Kind = "kind"
    context: str = CONTEXT

    @property
    def kubeconfig(self) -> Path:
        """A file of its own: kind would otherwise change the person's current context."""
        return self.settings.state / "kind.kubeconfig"

    @property
    def kubectl(self) -> list[str]:
        """The kubectl on PATH, else one that is built."""
        return [str(kubectl(self.settings.cache)), f"--kubeconfig={self.kubeconfig}", f"--context={self.context}"]

    def up(self) -> None:
        """Create the cluster unless it is there, and write its kubeconfig."""
        self.kubeconfig.parent.mkdir(parents=True, exist_ok=True)
        if NAME not in shell.run([self._kind(), "get", "clusters"]).split():
            shell.say("creating a kind cluster; the first time Docker fetches the node's image")
            shell.stream(
                [self._kind(), "create", "cluster", f"--name={NAME}", f"--kubeconfig={self.kubeconfig}", "--wait=180s"]
            )
        # After a reboot Docker may not have started the node, and the kubeconfig may be gone with another state folder.
        for container in shell.run([self._kind(), "get", "nodes", f"--name={NAME}"]).split():
            shell.run(["docker", "start", container])
        shell.run([self._kind(), "export", "kubeconfig", f"--name={NAME}", f"--kubeconfig={self.kubeconfig}"])
        shell.run([*self.kubectl, "wait", "node", "--all", "--for=condition=Ready", "--timeout=180s"])

    def down(self) -> None:
        """Delete the cluster."""
        shell.stream([self._kind(), "delete", "cluster", f"--name={NAME}", f"--kubeconfig={self.kubeconfig}"])
        self.kubeconfig.unlink(missing_ok=True)

    def is_ready(self) -> bool:
        """Whether the API server answers and the node takes pods."""
        return self.kubeconfig.exists() and model.has_ready_node(self.kubectl)

    def images(self) -> set[str] | None:
        """The images in the node's containerd."""
        return set(
            shell.run(
                ["docker", "exec", f"{NAME}-control-plane", "ctr", "-n", "k8s.io", "images", "list", "--quiet"]
            ).split()
        )

    def load(self, archive: Path, name: str) -> None:
        """Load the archive into the node; the name is in the archive."""
        shell.run([self._kind(), "load", "image-archive", archive, f"--name={NAME}"])
        if name not in (self.images() or ()):
            shell.say(f"kind loaded {archive}, but does not list {name}")

    def forget(self, name: str) -> None:
        """Remove the image from the node."""
        shell.run(["docker", "exec", f"{NAME}-control-plane", "ctr", "-n", "k8s.io", "images", "remove", name])

    def _kind(self) -> Path:
        return shell.find("kind") or binaries.build(binaries.KIND, self.settings.cache) / "kind"


def kubectl(cache: Path) -> Path:
    """The kubectl on PATH, else one that is in the cache, else one that is built into it."""
    whole = binaries.cached(binaries.KUBE, cache)
    if whole and (whole / "kubectl").exists():
        return whole / "kubectl"
    return shell.find("kubectl") or binaries.build(binaries.KUBECTL, cache) / "kubectl"
