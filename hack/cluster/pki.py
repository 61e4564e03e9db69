"""Keys, certificates and kubeconfigs of the local cluster, made with openssl.

One authority signs everything; who somebody is stands in the certificate's subject, as Kubernetes reads it (O = groups,
CN = user). They are made once in a cluster's life: a marker written at the end tells a complete set from one that a
kill cut short.
"""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path

from hack.cluster import shell

_DAYS = "3650"
_COMPLETE = "complete"

# Who connects to the API server, by the name of the key pair: the subject of its certificate.
USERS = {
    "admin": "/O=system:masters/CN=admin",
    "controller-manager": "/CN=system:kube-controller-manager",
    "scheduler": "/CN=system:kube-scheduler",
    "proxy": "/CN=system:kube-proxy",
    "kubelet": "/O=system:nodes/CN=system:node:{node}",
    "coredns": "/CN=system:coredns",
    "local-path": "/CN=system:local-path-provisioner",
    "kube-router": "/CN=system:kube-router",
}


def ensure(folder: Path, node: str, addresses: list[str]) -> None:
    """Make all keys and certificates, valid for these addresses of the API server, the kubelet and etcd."""
    if (folder / _COMPLETE).exists():
        # A cluster that an earlier version made lacks the parts that came later.
        for name, subject in USERS.items():
            if not (folder / f"{name}.crt").exists():
                _certificate(folder, name, subject.format(node=node))
        return
    shell.say("making keys and certificates")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    _key(folder, "ca")
    shell.run(["openssl", "req", "-x509", "-new", "-key", folder / "ca.key", "-out", folder / "ca.crt", "-days", _DAYS,
               "-subj", "/CN=workitems-local-ca"])  # fmt: skip
    names = [
        *(f"IP:{address}" for address in addresses),
        *(f"DNS:{name}" for name in ("localhost", node, "kubernetes", "kubernetes.default", "kubernetes.default.svc",
                                     "kubernetes.default.svc.cluster.local")),
    ]  # fmt: skip
    _certificate(folder, "server", "/CN=kube-apiserver", ",".join(names))
    _certificate(folder, "apiserver-kubelet", "/O=system:masters/CN=kube-apiserver-kubelet-client")
    for name, subject in USERS.items():
        _certificate(folder, name, subject.format(node=node))
    _key(folder, "service-accounts")
    public = shell.run(["openssl", "pkey", "-in", folder / "service-accounts.key", "-pubout"])
    (folder / "service-accounts.pub").write_text(public)
    (folder / _COMPLETE).touch()


def kubeconfig(folder: Path, user: str, server: str, context: str) -> str:
    """A kubeconfig, complete in itself, whose only context is `context`."""

    def data(name: str) -> str:
        return base64.b64encode((folder / name).read_bytes()).decode()

    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": context, "cluster": {"server": server, "certificate-authority-data": data("ca.crt")}}],
        "users": [
            {
                "name": user,
                "user": {"client-certificate-data": data(f"{user}.crt"), "client-key-data": data(f"{user}.key")},
            }
        ],
        "contexts": [{"name": context, "context": {"cluster": context, "user": user}}],
        "current-context": context,
    }
    return json.dumps(config, indent=1) + "\n"


def _key(folder: Path, name: str) -> None:
    shell.run(
        [
            "openssl",
            "genpkey",
            "-algorithm",
            "EC",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-out",
            folder / f"{name}.key",
        ]
    )
    (folder / f"{name}.key").chmod(0o600)


def _certificate(folder: Path, name: str, subject: str, names: str = "") -> None:
    _key(folder, name)
    extensions = "extendedKeyUsage=serverAuth,clientAuth\n" + (f"subjectAltName={names}\n" if names else "")
    (folder / "extensions").write_text(extensions)
    request = shell.run(["openssl", "req", "-new", "-key", folder / f"{name}.key", "-subj", subject])
    shell.run(
        ["openssl", "x509", "-req", "-CA", folder / "ca.crt", "-CAkey", folder / "ca.key", "-CAcreateserial",
        "-days", _DAYS,
         "-extfile", folder / "extensions", "-out", folder / f"{name}.crt"],
        stdin=request,
    )  # fmt: skip
