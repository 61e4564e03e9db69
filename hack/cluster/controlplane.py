"""The control plane: etcd, API server, controller manager, scheduler, and what each is told.

Where a flag differs from its default there is a reason, and it stands beside it.
"""

from __future__ import annotations

from hack.cluster import network, probe, shell
from hack.cluster.layout import (
    API,
    API_PORT,
    CONTROLLERS_PORT,
    ETCD_PEER_PORT,
    ETCD_PORT,
    SCHEDULER_PORT,
    Layout,
)
from hack.cluster.processes import Part

_ETCD = f"https://127.0.0.1:{ETCD_PORT}"
_ETCD_PEER = f"https://127.0.0.1:{ETCD_PEER_PORT}"

# Who did what to which object, without contents: enough to prove what the operator may and does do. Tests read it.
_AUDIT_POLICY = """\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: Metadata
"""


def parts(layout: Layout) -> list[Part]:
    """The control plane in the order in which it starts."""
    return [_etcd(layout), _apiserver(layout), _controllers(layout), _scheduler(layout)]


def write_configuration(layout: Layout) -> None:
    """The files that the parts are started with."""
    shell.write_atomically(layout.config / "audit-policy.yaml", _AUDIT_POLICY)


def _etcd(layout: Layout) -> Part:
    pki = layout.pki
    argv = (
        str(layout.programs.kube), "etcd",
        f"--data-dir={layout.state}/etcd",
        f"--listen-client-urls={_ETCD}", f"--advertise-client-urls={_ETCD}",
        f"--listen-peer-urls={_ETCD_PEER}", f"--initial-advertise-peer-urls={_ETCD_PEER}",
        f"--initial-cluster=default={_ETCD_PEER}",
        # TLS even on the loopback address: etcd holds every Secret, and other users of the machine reach it too.
        f"--cert-file={pki}/server.crt", f"--key-file={pki}/server.key", "--client-cert-auth",
        f"--trusted-ca-file={pki}/ca.crt",
        f"--peer-cert-file={pki}/server.crt", f"--peer-key-file={pki}/server.key",
        "--peer-client-cert-auth", f"--peer-trusted-ca-file={pki}/ca.crt",
        # A cluster for tests: ten times as many writes a second, and a power cut may cost it its data.
        "--unsafe-no-fsync",
        "--log-level=warn",
    )  # fmt: skip
    return Part("etcd", argv, lambda: probe.answers(f"{_ETCD}/health", pki))


def _apiserver(layout: Layout) -> Part:
    pki = layout.pki
    argv = (
        str(layout.programs.kube), "apiserver",
        # Only on the bridge: pods and this machine reach it, other machines do not.
        f"--bind-address={network.NODE_IP}", f"--advertise-address={network.NODE_IP}", f"--secure-port={API_PORT}",
        f"--tls-cert-file={pki}/server.crt", f"--tls-private-key-file={pki}/server.key",
        f"--client-ca-file={pki}/ca.crt",
        f"--etcd-servers={_ETCD}", f"--etcd-cafile={pki}/ca.crt",
        f"--etcd-certfile={pki}/admin.crt", f"--etcd-keyfile={pki}/admin.key",
        f"--service-cluster-ip-range={network.SERVICES}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={pki}/service-accounts.pub",
        f"--service-account-signing-key-file={pki}/service-accounts.key",
        "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged",
        # The node's name is no name that DNS knows, so `kubectl logs` and `exec` go to its address.
        "--kubelet-preferred-address-types=InternalIP", f"--kubelet-certificate-authority={pki}/ca.crt",
        f"--kubelet-client-certificate={pki}/apiserver-kubelet.crt",
        f"--kubelet-client-key={pki}/apiserver-kubelet.key",
        f"--audit-policy-file={layout.config}/audit-policy.yaml", f"--audit-log-path={layout.state}/log/audit.log",
        "--audit-log-maxsize=100", "--audit-log-maxbackup=3",
    )  # fmt: skip
    return Part("apiserver", argv, lambda: probe.answers(f"{API}/readyz", pki), configuration=_AUDIT_POLICY)


def _controllers(layout: Layout) -> Part:
    pki = layout.pki
    argv = (
        str(layout.programs.kube), "controller-manager",
        f"--kubeconfig={layout.kubeconfig_of('controller-manager')}",
        "--bind-address=127.0.0.1", f"--secure-port={CONTROLLERS_PORT}",
        f"--tls-cert-file={pki}/server.crt", f"--tls-private-key-file={pki}/server.key",
        "--use-service-account-credentials", f"--service-account-private-key-file={pki}/service-accounts.key",
        f"--root-ca-file={pki}/ca.crt", f"--cluster-signing-cert-file={pki}/ca.crt",
        f"--cluster-signing-key-file={pki}/ca.key",
        "--leader-elect=false",
        # Twenty items at once must wait for their agents, not for the cluster.
        "--kube-api-qps=100", "--kube-api-burst=200", "--concurrent-job-syncs=10",
        # Volumes of this kind come from a provisioner, and no plugin folder outside the state is wanted.
        f"--flex-volume-plugin-dir={layout.state}/plugins",
    )  # fmt: skip
    return Part("controller-manager", argv, lambda: probe.answers(f"https://127.0.0.1:{CONTROLLERS_PORT}/healthz", pki))


def _scheduler(layout: Layout) -> Part:
    pki = layout.pki
    argv = (
        str(layout.programs.kube), "scheduler",
        f"--kubeconfig={layout.kubeconfig_of('scheduler')}",
        "--bind-address=127.0.0.1", f"--secure-port={SCHEDULER_PORT}",
        f"--tls-cert-file={pki}/server.crt", f"--tls-private-key-file={pki}/server.key",
        "--leader-elect=false", "--kube-api-qps=100", "--kube-api-burst=200",
    )  # fmt: skip
    return Part("scheduler", argv, lambda: probe.answers(f"https://127.0.0.1:{SCHEDULER_PORT}/healthz", pki))
