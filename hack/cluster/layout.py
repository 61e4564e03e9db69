"""Addresses, ports and folders of the local cluster, in one place because its parts must agree on them.

The ports are the usual ones moved out of the way (6443 is 16443), so that another cluster or a Docker Desktop on the
machine keeps its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hack.cluster import binaries, network, settings

CONTEXT = "workitems-local"
NODE = "workitems"
DOMAIN = "cluster.local"

API_PORT = 16443
ETCD_PORT, ETCD_PEER_PORT = 16379, 16380
KUBELET_PORT, KUBELET_HEALTH_PORT = 16250, 16248
CONTROLLERS_PORT, SCHEDULER_PORT = 16257, 16259
PROXY_HEALTH_PORT, PROXY_METRICS_PORT = 16256, 16249
DNS_PORT, DNS_HEALTH_PORT, DNS_READY_PORT = 16053, 16080, 16181

API = f"https://{network.NODE_IP}:{API_PORT}"


@dataclass(frozen=True)
class Layout:
    """Where this cluster's files are, given its state folder, and the programs it is made of."""

    state: Path
    programs: binaries.Binaries

    @property
    def pki(self) -> Path:
        """Keys and certificates; root's alone."""
        return self.state / "pki"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig, for the person."""
        return self.state / "kubeconfig"

    @property
    def config(self) -> Path:
        """Configuration files of the parts."""
        return self.state / "config"

    @property
    def volumes(self) -> Path:
        """The data of persistent volumes."""
        return self.state / "volumes"

    @property
    def containerd(self) -> Path:
        """The socket of the cluster's own containerd."""
        return containerd_socket()

    def kubeconfig_of(self, user: str) -> Path:
        """The kubeconfig of one part."""
        return self.config / f"{user}.kubeconfig"


def containerd_socket() -> Path:
    """The socket of the cluster's own containerd."""
    return settings.RUN / "containerd.sock"
