"""The cluster of `hack.cluster` as a provider for pytest-kubernetes.

pytest-kubernetes brings providers that each create a cluster of their own for a session. Ours is the one that the demo
and the Makefile use too: chosen by `hack.cluster.choose`, brought up if it is down, and left standing afterwards,
because it is shared and the next run finds it ready; tests clean up their namespaces. Every call names kubeconfig and
context, and a context that is neither ours nor named in `WORKITEMS_CONTEXT` is refused before anything is run.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_kubernetes.portforwarding import PortForwarding
from pytest_kubernetes.providers.base import AClusterManager

from hack.cluster import choose, images

if TYPE_CHECKING:
    from pytest_kubernetes.options import ClusterOptions

_OURS = frozenset({"kind-workitems", "workitems-local"})


class RefusedContextError(RuntimeError):
    """The context is not one that tests may write to."""


def allow(context: str) -> str:
    """The context, if tests may write to it. Raises RefusedContextError if not."""
    if context in _OURS or context == os.environ.get("WORKITEMS_CONTEXT"):
        return context
    raise RefusedContextError(
        f"Tests do not touch the context {context!r}: only {', '.join(sorted(_OURS))}, "
        "or exactly the one named in WORKITEMS_CONTEXT."
    )


class _PortForwarding(PortForwarding):  # type: ignore[misc]  # pytest-kubernetes has no types
    """Port forwarding by the cluster's own kubectl, which need not be on PATH."""

    def __init__(self, program: str, *args: Any) -> None:
        super().__init__(*args)
        self._program = Path(program)

    @property
    def _exec_path(self) -> Path:
        return self._program


class ChosenCluster(AClusterManager):  # type: ignore[misc]  # pytest-kubernetes has no types
    """The chosen cluster behind pytest-kubernetes' interface; `select_provider_manager` need not know it."""

    def __init__(self, cluster: choose.Cluster | None = None) -> None:
        self.cluster = cluster or choose.current()
        self.context = allow(self.cluster.context)
        super().__init__(kubeconfig=self.cluster.kubeconfig)
        self._cluster_options.cluster_name = self.context

    @classmethod
    def get_binary_name(cls) -> str:
        """A program that is on every PATH: the base class insists on one, and the cluster brings its own kubectl."""
        return "env"

    def create(self, cluster_options: ClusterOptions | None = None, timeout: int = 20, **_kwargs: Any) -> None:
        """Bring the cluster up if it is down; its kubeconfig and context are its own, whatever the options say."""
        del cluster_options, timeout
        self.cluster.up()

    def delete(self) -> None:
        """Leave the cluster standing: it is shared with the demo and with the next run."""

    def ready(self, timeout: int = 20) -> bool:
        """Whether the API server answers and a node takes pods, now."""
        del timeout
        return self.cluster.is_ready()

    def load_image(self, image: str) -> None:
        """Load an image that this machine's builder has."""
        images.load(self.cluster, image)

    def kubectl(self, args: list[str], as_dict: bool = True, timeout: int = 60) -> dict[str, Any] | str:
        """Run kubectl against the cluster, without a shell in between. Raises RuntimeError when it fails."""
        argv = [*self.cluster.kubectl, *args, *(["-o", "json"] if as_dict else [])]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, check=False)
        if done.returncode != 0:
            raise RuntimeError(done.stderr)
        if not as_dict:
            return done.stdout
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def apply(self, input: Any) -> None:  # noqa: A002 - the base class' name
        """Apply a manifest: a path, or an object."""
        argv = [*self.cluster.kubectl, "apply", "-f", "-" if isinstance(input, dict) else str(input)]
        stdin = json.dumps(input) if isinstance(input, dict) else None
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode != 0:
            raise RuntimeError(done.stderr)

    def port_forwarding(
        self, target: str, source_port: int, target_port: int, namespace: str = "default", timeout: int = 90
    ) -> PortForwarding:
        """Forward a port of this machine to a pod or service, as a context manager."""
        ports = (source_port, target_port)
        program = self.cluster.kubectl[0]
        return _PortForwarding(program, target, ports, namespace, self.cluster.kubeconfig, self.context, timeout)

    def _on_create(self, cluster_options: ClusterOptions, **_kwargs: Any) -> None:
        del cluster_options
        self.cluster.up()

    def _on_delete(self) -> None:
        """See `delete`."""
