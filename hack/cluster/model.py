"""What every kind of cluster can do, for those who do not care which one it is."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Protocol

from hack.cluster import shell

Kind = Literal["context", "kind", "local"]


class Cluster(Protocol):
    """A cluster by kind.

    Everything goes through `kubeconfig` and `context`, never through a person's current context.
    """

    @property
    def kind(self) -> Kind:
        """Which of the three it is."""

    @property
    def kubeconfig(self) -> Path:
        """The kubeconfig file that has the context."""

    @property
    def context(self) -> str:
        """The name of the context."""

    @property
    def kubectl(self) -> list[str]:
        """The beginning of a kubectl command line for this cluster."""

    def up(self) -> None:
        """Make it run; cheap when it runs already. Raises ClusterError when it cannot."""

    def down(self) -> None:
        """Remove it with everything it made; a cluster that was only named stays."""

    def is_ready(self) -> bool:
        """Whether its API server answers and a node takes pods."""

    def images(self) -> set[str] | None:
        """The names of the images it has, or None if it fetches its images itself."""

    def load(self, archive: Path, name: str) -> None:
        """Load an image under this name from a docker-archive."""

    def forget(self, name: str) -> None:
        """Remove an image; one that is in use stays on disk until its containers end."""


def has_ready_node(kubectl: list[str]) -> bool:
    """Whether the API server answers and at least one node takes pods."""
    conditions = "{.items[*].status.conditions[?(@.type=='Ready')].status}"
    nodes = shell.attempt([*kubectl, "get", "nodes", "--request-timeout=5s", "-o", f"jsonpath={conditions}"])
    return nodes.returncode == 0 and "True" in nodes.stdout.split()
