"""Cluster DNS, volumes and NetworkPolicies: what people expect of every cluster, run as processes of the machine.

In a pod each would need an image; as processes they need only their binary and a kubeconfig of their own, with no more
rights than the pods would have.
"""

from __future__ import annotations

import json
import string
from pathlib import Path

from hack.cluster import network, node, probe, shell
from hack.cluster.layout import DNS_HEALTH_PORT, DNS_PORT, DNS_READY_PORT, DOMAIN, NODE, Layout
from hack.cluster.processes import Part

_MANIFESTS = Path(__file__).parent / "manifests"


def apply_manifests(kubectl: list[str]) -> None:
    """What DNS, volumes and NetworkPolicies need in the API."""
    values = {"DNS_SERVICE_IP": network.DNS_SERVICE_IP, "DNS_PORT": str(DNS_PORT), "NODE_IP": network.NODE_IP}
    for name in ("dns.yaml", "storage.yaml", "policies.yaml"):
        text = string.Template((_MANIFESTS / name).read_text()).substitute(values)
        shell.run(
            [*kubectl, "apply", "--server-side", "--force-conflicts", "--field-manager=hack-cluster", "-f", "-"],
            stdin=text,
        )


def parts(layout: Layout, node_image: str) -> list[Part]:
    """CoreDNS, the volume provisioner, and what enforces NetworkPolicies where the kernel can."""
    return [_dns(layout), _volumes(layout, node_image), *_policies(layout)]


def _dns(layout: Layout) -> Part:
    servers = [line for line in node.resolv_conf().read_text().splitlines() if line.startswith("nameserver")]
    # Without a name server, as on a machine that has no network, CoreDNS would refuse the whole file.
    forward = f"  forward . {node.resolv_conf()}\n" if servers else ""
    corefile = (
        f".:{DNS_PORT} {{\n"
        f"  bind {network.NODE_IP}\n"
        f"  health 127.0.0.1:{DNS_HEALTH_PORT}\n"
        f"  ready 127.0.0.1:{DNS_READY_PORT}\n"
        "  errors\n"
        "  cache 5\n"
        f"  kubernetes {DOMAIN} in-addr.arpa {{\n"
        f"    kubeconfig {layout.kubeconfig_of('coredns')}\n"
        "    fallthrough in-addr.arpa\n"
        "    ttl 5\n"
        "  }\n"
        f"{forward}"
        "}\n"
    )
    path = layout.config / "Corefile"
    shell.write_atomically(path, corefile)
    argv = (str(layout.programs.coredns), "-conf", str(path))
    return Part(
        "coredns", argv, lambda: probe.answers(f"http://127.0.0.1:{DNS_READY_PORT}/ready"), configuration=corefile
    )


def _volumes(layout: Layout, node_image: str) -> Part:
    folder = layout.volumes
    for name in ("standard", "shared"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    config = json.dumps(
        {
            "setupCommand": "/volume",
            "teardownCommand": "/volume",
            "storageClassConfigs": {
                "standard": {
                    "nodePathMap": [{"node": "DEFAULT_PATH_FOR_NON_LISTED_NODES", "paths": [str(folder / "standard")]}]
                },
                "shared": {"sharedFileSystemPath": str(folder / "shared")},
            },
        },
        indent=1,
    )
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "helper-pod"},
        "spec": {
            "automountServiceAccountToken": False,
            "containers": [{"name": "helper-pod", "image": node_image, "imagePullPolicy": "Never"}],
        },
    }
    path, helper = layout.config / "local-path.json", layout.config / "helper-pod.json"
    shell.write_atomically(path, config + "\n")
    shell.write_atomically(helper, json.dumps(pod, indent=1) + "\n")
    argv = (
        str(layout.programs.local_path), "start",
        "--kubeconfig", str(layout.kubeconfig_of("local-path")),
        "--config", str(path), "--helper-pod-file", str(helper),
        "--namespace", "local-path-storage", "--service-account-name", "default",
        # It counts its tries, and gives a volume up after them: a pod that could not start at once must not cost a
        # claim.
        "--provisioning-retry-count", "1000", "--deletion-retry-count", "1000",
    )  # fmt: skip
    # It has no address to ask; that it goes on living is what can be known.
    return Part("local-path-provisioner", argv, lambda: True, configuration=config + json.dumps(pod))


def _policies(layout: Layout) -> list[Part]:
    """kube-router as a firewall only: routes and Services are the bridge's and kube-proxy's."""
    if not network.has_sets():
        shell.say("this kernel has no ip sets: NetworkPolicies are accepted and not enforced")
        return []
    argv = (
        str(layout.programs.kube_router),
        "--run-firewall=true", "--run-router=false", "--run-service-proxy=false",
        "--kubeconfig", str(layout.kubeconfig_of("kube-router")),
        "--hostname-override", NODE,
        f"--service-cluster-ip-range={network.SERVICES}",
        "--health-port=0",
    )  # fmt: skip
    return [Part("kube-router", argv, network.has_policy_rules, configuration=network.PODS)]
