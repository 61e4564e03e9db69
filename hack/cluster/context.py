"""A cluster that the person named with `WORKITEMS_CONTEXT`: used as it is, never started and never removed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import yaml

from hack.cluster import kind, model, shell
from hack.cluster.errors import ClusterError
from hack.cluster.settings import Settings


@dataclass(frozen=True)
class ContextCluster:
    """The cluster behind a context of the person's own kubeconfig; implements `model.Cluster`."""

    settings: Settings
    context: str
    kubeconfig: Path
    kind: model.Kind = "context"

    @property
    def kubectl(self) -> list[str]:
        """The kubectl on PATH, else one that is built."""
        return [str(kind.kubectl(self.settings.cache)), f"--kubeconfig={self.kubeconfig}", f"--context={self.context}"]

    def up(self) -> None:
        """It must run already. Raises ClusterError when it does not."""
        if not self.is_ready():
            answer = shell.attempt([*self.kubectl, "get", "nodes", "--request-timeout=5s"])
            raise ClusterError(
                f"The cluster of the context {self.context} ({self.kubeconfig}) has no ready node: "
                f"{shell.last_lines(answer.stderr or answer.stdout)}; start it, or unset WORKITEMS_CONTEXT."
            )

    def down(self) -> None:
        """It is the person's: left as it is."""
        shell.say(f"the context {self.context} was named by you, so its cluster is left as it is")

    def is_ready(self) -> bool:
        """Whether the API server answers and a node takes pods."""
        return model.has_ready_node(self.kubectl)

    def images(self) -> set[str] | None:
        """Unknown: its nodes fetch images from registries."""
        return None

    def load(self, archive: Path, name: str) -> None:
        """Not possible from here. Raises ClusterError, always."""
        raise ClusterError(
            f"The image {name} ({archive}) cannot be loaded into the context {self.context}; push it to a registry the "
            "cluster reads."
        )

    def forget(self, name: str) -> None:
        """Not possible from here. Raises ClusterError, always."""
        raise ClusterError(f"The image {name} cannot be removed from the context {self.context}.")


def find(settings: Settings, context: str) -> ContextCluster:
    """The named context, in the first file of KUBECONFIG that defines it. Raises ClusterError when none does."""
    paths = os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
    for path in (Path(part).expanduser() for part in paths.split(os.pathsep) if part):
        if path.is_file() and context in _contexts(path):
            return ContextCluster(settings, context, path.absolute())
    raise ClusterError(
        f"WORKITEMS_CONTEXT names the context {context}, which is not in {paths}; correct the name, set "
        "KUBECONFIG, or unset it."
    )


def _contexts(path: Path) -> set[str]:
    try:
        config = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise ClusterError(
            f"The kubeconfig {path} is not valid YAML ({error}); correct it, or name another one with KUBECONFIG."
        ) from error
    return {entry["name"] for entry in config.get("contexts") or []}
