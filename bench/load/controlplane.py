"""etcd, API server and Job controller for one benchmark, from the binary that hack/cluster builds and keeps.

There is no kubelet and no scheduler: `kubelet.py` plays both. The Job controller is the real one, because the events
that it causes are part of what a transition costs.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hack.cluster import binaries, pki, probe, processes, settings, shell
from hack.cluster.processes import Part

CONTEXT = "workitems-bench"

# What the report counts: the operator's requests, and when pods ended. Everything else would only cost time.
_AUDIT_POLICY = """\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: Metadata
    userGroups: [system:serviceaccounts:workitem-operator]
  - level: Metadata
    verbs: [patch]
    resources: [{group: "", resources: [pods/status]}]
  - level: None
"""


@dataclass(frozen=True)
class ControlPlane:
    """A running control plane."""

    folder: Path
    url: str

    @property
    def pki(self) -> Path:
        """Its keys and certificates; the administrator's are `admin.crt` and `admin.key`."""
        return self.folder / "pki"

    @property
    def audit_log(self) -> Path:
        """One JSON object a line."""
        return self.folder / "audit.log"


@contextlib.contextmanager
def running() -> Iterator[ControlPlane]:
    """Start one, and take it away with all its data. Raises ClusterError if it does not start."""
    kube = binaries.build(binaries.KUBE, settings.read().cache) / "kube"
    folder = Path(tempfile.mkdtemp(prefix="workitems-bench-"))
    ports = _free_ports(4)
    plane = ControlPlane(folder, f"https://127.0.0.1:{ports[0]}")
    try:
        pki.ensure(plane.pki, "bench", ["127.0.0.1", "10.96.0.1"])
        (folder / "audit-policy.yaml").write_text(_AUDIT_POLICY)
        (folder / "admin.kubeconfig").write_text(pki.kubeconfig(plane.pki, "admin", plane.url, CONTEXT))
        shell.say(f"starting a control plane of its own in {folder}")
        for part in _parts(plane, kube, ports):
            processes.ensure(part, folder)
        yield plane
    finally:
        for process in reversed(processes.running(folder).values()):
            processes.stop(process)
        shutil.rmtree(folder, ignore_errors=True)


def _parts(plane: ControlPlane, kube: Path, ports: list[int]) -> list[Part]:
    keys, folder = plane.pki, plane.folder
    port, client, peer, controllers = ports
    etcd = f"https://127.0.0.1:{client}"
    return [
        Part("etcd", (
            str(kube), "etcd", f"--data-dir={folder}/etcd",
            f"--listen-client-urls={etcd}", f"--advertise-client-urls={etcd}",
            f"--listen-peer-urls=https://127.0.0.1:{peer}",
            f"--initial-advertise-peer-urls=https://127.0.0.1:{peer}",
            f"--initial-cluster=default=https://127.0.0.1:{peer}",
            f"--cert-file={keys}/server.crt", f"--key-file={keys}/server.key", "--client-cert-auth",
            f"--trusted-ca-file={keys}/ca.crt",
            f"--peer-cert-file={keys}/server.crt", f"--peer-key-file={keys}/server.key",
            "--peer-client-cert-auth", f"--peer-trusted-ca-file={keys}/ca.crt",
            "--unsafe-no-fsync", "--log-level=warn", f"--quota-backend-bytes={4 * 1024**3}",
        ), lambda: probe.answers(f"{etcd}/health", keys)),
        Part("apiserver", (
            str(kube), "apiserver", "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1",
            f"--secure-port={port}", f"--tls-cert-file={keys}/server.crt", f"--tls-private-key-file={keys}/server.key",
            f"--client-ca-file={keys}/ca.crt",
            f"--etcd-servers={etcd}", f"--etcd-cafile={keys}/ca.crt",
            f"--etcd-certfile={keys}/admin.crt", f"--etcd-keyfile={keys}/admin.key",
            "--service-cluster-ip-range=10.96.0.0/16", "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={keys}/service-accounts.pub",
            f"--service-account-signing-key-file={keys}/service-accounts.key",
            "--authorization-mode=RBAC",
            # Nobody makes the namespaces' default accounts here, and pods are only played.
            "--disable-admission-plugins=ServiceAccount",
            f"--audit-policy-file={folder}/audit-policy.yaml", f"--audit-log-path={plane.audit_log}",
        ), lambda: probe.answers(f"{plane.url}/readyz", keys)),
        Part("controller-manager", (
            str(kube), "controller-manager", f"--kubeconfig={folder}/admin.kubeconfig",
            "--controllers=job-controller", "--bind-address=127.0.0.1", f"--secure-port={controllers}",
            f"--tls-cert-file={keys}/server.crt", f"--tls-private-key-file={keys}/server.key",
            "--leader-elect=false", "--kube-api-qps=2000", "--kube-api-burst=4000", "--concurrent-job-syncs=20",
        ), lambda: probe.answers(f"https://127.0.0.1:{controllers}/healthz", keys)),
    ]  # fmt: skip


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in sockets:
            listener.bind(("127.0.0.1", 0))
        return [int(listener.getsockname()[1]) for listener in sockets]
