"""The node: containerd, kubelet, kube-proxy, and the image that every pod needs before any other can be loaded.

Nothing of it touches what the machine has already: containerd has its own root, socket and CNI configuration, the
kubelet its own control group, log folder and port.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import yaml

from hack.cluster import archive, binaries, cgroups, network, packages, probe, settings, shell
from hack.cluster.errors import ClusterError
from hack.cluster.layout import (
    API,
    DOMAIN,
    KUBELET_HEALTH_PORT,
    KUBELET_PORT,
    NODE,
    PROXY_HEALTH_PORT,
    PROXY_METRICS_PORT,
    Layout,
)
from hack.cluster.processes import Part

_CONTAINERD_INHERITS = (
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
)


def containerd(layout: Layout, node_image: str) -> Part:
    """The container runtime; it goes first, because the node's image must be there before the kubelet starts pods."""
    config = _containerd_config(layout, node_image)
    path = layout.config / "containerd.toml"
    shell.write_atomically(path, config)
    shell.write_atomically(layout.config / "cni" / "10-workitems.conflist", _cni_config(layout))
    program = shell.find("containerd") or "containerd"
    return Part(
        "containerd",
        (str(program), "--config", str(path)),
        lambda: shell.attempt([*ctr(), "version"]).returncode == 0,
        configuration=config,
        inherits=_CONTAINERD_INHERITS,
    )


def parts(layout: Layout) -> list[Part]:
    """Kubelet and kube-proxy, in the order in which they start."""
    return [_kubelet(layout), _proxy(layout)]


def ctr() -> list[str]:
    """The command line of containerd's own client, for the images and containers that the kubelet sees."""
    return ["ctr", "--address", str(settings.RUN / "containerd.sock"), "--namespace", "k8s.io"]


def image_name(programs: binaries.Binaries) -> str:
    """The name of the node's image, which changes with its programs."""
    content = programs.pause.read_bytes() + programs.volume.read_bytes()
    return f"localhost/workitems-node:{hashlib.sha256(content).hexdigest()[:12]}"


def load_image(layout: Layout, name: str) -> None:
    """Give the node the image of `pause` and `volume`."""
    if name in shell.run([*ctr(), "images", "list", "--quiet"]).split():
        return
    file = layout.state / "node-image.tar"
    archive.write(
        file, name, {"pause": layout.programs.pause, "volume": layout.programs.volume}, binaries.architecture()
    )
    shell.run([*ctr(), "images", "import", file])
    file.unlink()


def _containerd_config(layout: Layout, node_image: str) -> str:
    snapshotter = "overlayfs" if _overlay_works(layout.state) else "native"
    root, run = layout.state / "containerd", settings.RUN
    # restrict_oom_score_adj: without CAP_SYS_RESOURCE runc may not lower a score and dies with "can't get final child's
    # PID from pipe". netns_mounts_under_state_dir: network namespaces lie with the rest, where `down` finds them.
    return f"""\
version = 2
root = "{root}"
state = "{run}/containerd"
[grpc]
  address = "{run}/containerd.sock"
[debug]
  level = "warn"
[plugins."io.containerd.internal.v1.opt"]
  path = "{root}/opt"
[plugins."io.containerd.nri.v1.nri"]
  disable = true
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  sandbox_image = "{node_image}"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{packages.cni_folder()}"
    conf_dir = "{layout.config}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{snapshotter}"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        Root = "{run}/runc"
"""


def _overlay_works(state: Path) -> bool:
    """Whether overlayfs can be stacked on the file system of the state.

    It cannot on another overlay, as inside a container.
    """
    probe_folder = state / "overlay-probe"
    folders = {name: probe_folder / name for name in ("lower", "upper", "work", "merged")}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    options = f"lowerdir={folders['lower']},upperdir={folders['upper']},workdir={folders['work']}"
    works = shell.attempt(["mount", "-t", "overlay", "overlay", "-o", options, folders["merged"]]).returncode == 0
    if works:
        shell.run(["umount", folders["merged"]])
    shutil.rmtree(probe_folder)
    return works


def _cni_config(layout: Layout) -> str:
    bridge = {
        "type": "bridge",
        "bridge": network.BRIDGE,
        "isDefaultGateway": True,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "dataDir": str(layout.state / "addresses"),
            "ranges": [[{"subnet": network.PODS, "gateway": network.NODE_IP}]],
        },
    }
    return json.dumps({"cniVersion": "0.4.0", "name": network.CNI_NETWORK, "plugins": [bridge]}, indent=1) + "\n"


def _kubelet(layout: Layout) -> Part:
    config = yaml.safe_dump(_kubelet_config(layout))
    path = layout.config / "kubelet.yaml"
    shell.write_atomically(path, config)
    argv = (
        str(layout.programs.kube), "kubelet",
        f"--config={path}",
        f"--kubeconfig={layout.kubeconfig_of('kubelet')}",
        f"--root-dir={layout.state}/kubelet",
        f"--cert-dir={layout.state}/kubelet/pki",
        f"--hostname-override={NODE}",
        # Not a loopback address, which the kubelet refuses, and not one of the machine's, which may change.
        f"--node-ip={network.NODE_IP}",
    )  # fmt: skip
    return Part(
        "kubelet", argv, lambda: probe.answers(f"http://127.0.0.1:{KUBELET_HEALTH_PORT}/healthz"), configuration=config
    )


def _kubelet_config(layout: Layout) -> dict[str, object]:
    config: dict[str, object] = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": network.NODE_IP,
        "port": KUBELET_PORT,
        "healthzPort": KUBELET_HEALTH_PORT,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(layout.pki / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(layout.pki / "server.crt"),
        "tlsPrivateKeyFile": str(layout.pki / "server.key"),
        "containerRuntimeEndpoint": f"unix://{layout.containerd}",
        "clusterDNS": [network.DNS_SERVICE_IP],
        "clusterDomain": DOMAIN,
        "resolvConf": str(resolv_conf()),
        # Works with and without systemd; the group is made by cgroups.py. cgroup v1 is deprecated, not gone.
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroups.ROOT,
        "failCgroupV1": False,
        "enforceNodeAllocatable": [],
        "failSwapOn": False,
        "maxPods": 250,
        "kubeAPIQPS": 100,
        "kubeAPIBurst": 200,
        "eventRecordQPS": 100,
        # Images were imported and have no registry to come back from: never collected. Full disks are the person's to
        # notice.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "1%",
            "nodefs.inodesFree": "1%",
            "imagefs.available": "1%",
            "imagefs.inodesFree": "1%",
        },
        # Looked at more often than every ten seconds: an agent may write a gigabyte in that time.
        "containerLogMaxSize": "10Mi",
        "containerLogMonitorInterval": "3s",
        "podLogsDir": str(layout.state / "pod-logs"),
        "volumePluginDir": str(layout.state / "plugins"),
    }
    if cgroups.has("pids"):
        config["podPidsLimit"] = 4096
    return config


def resolv_conf() -> Path:
    """The machine's name servers as pods can use them: not systemd-resolved's stub on a loopback address."""
    real = Path("/run/systemd/resolve/resolv.conf")
    return real if real.exists() else Path("/etc/resolv.conf")


def _proxy(layout: Layout) -> Part:
    argv = (
        str(layout.programs.kube), "proxy",
        f"--kubeconfig={layout.kubeconfig_of('proxy')}",
        "--proxy-mode=iptables",
        f"--hostname-override={NODE}",
        f"--cluster-cidr={network.PODS}",
        # Node ports open on the bridge alone, not on the machine's networks.
        "--nodeport-addresses=primary", "--iptables-localhost-nodeports=false",
        f"--healthz-bind-address=127.0.0.1:{PROXY_HEALTH_PORT}",
        f"--metrics-bind-address=127.0.0.1:{PROXY_METRICS_PORT}",
        # The machine's connection tracking stays as it is (and some kernels do not let it be changed).
        "--conntrack-max-per-core=0", "--conntrack-tcp-timeout-established=0s", "--conntrack-tcp-timeout-close-wait=0s",
    )  # fmt: skip
    return Part(
        "proxy", argv, lambda: probe.answers(f"http://127.0.0.1:{PROXY_HEALTH_PORT}/healthz"), configuration=API
    )


def wait_for_node(kubectl: list[str]) -> None:
    """Wait until the node takes pods. Raises ClusterError when it does not within a minute."""
    done = shell.attempt([*kubectl, "wait", f"node/{NODE}", "--for=condition=Ready", "--timeout=60s"])
    if done.returncode != 0:
        message = shell.run(
            [*kubectl, "get", "nodes", "-o", "jsonpath={.items[*].status.conditions[?(@.type=='Ready')].message}"]
        )
        raise ClusterError(
            f"The node is not ready after 60 s: {message or done.stderr.strip()}; its log is kubelet.log in the state "
            "folder."
        )
