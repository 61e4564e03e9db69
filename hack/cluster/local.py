"""The local cluster: a control plane and one node as processes of this machine, without Docker or a registry.

`up` walks through everything in the order of need and changes only what is not as it should be, so it is also the
repair after a kill or a reboot. `down` takes everything away in the reverse order and does not stop at what is gone
already.
"""

from __future__ import annotations

import shutil
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from hack.cluster import (
    addons,
    binaries,
    cgroups,
    controlplane,
    elevation,
    leftovers,
    model,
    network,
    node,
    packages,
    pki,
    processes,
    shell,
)
from hack.cluster.errors import ClusterError
from hack.cluster.layout import API, API_PORT, CONTEXT, NODE, Layout
from hack.cluster.settings import RUN, Settings

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class LocalCluster:
    """The cluster made of Go modules and Debian packages; implements `model.Cluster`."""

    settings: Settings
    kind: model.Kind = "local"
    context: str = CONTEXT

    @property
    def kubeconfig(self) -> Path:
        """Written by `up`, readable for whoever called it."""
        return self.settings.state / "kubeconfig"

    @property
    def kubectl(self) -> list[str]:
        """The cluster's own kubectl if it is built, else the one on PATH."""
        built = binaries.cached(binaries.KUBE, self.settings.cache)
        program = built / "kubectl" if built else shell.find("kubectl") or "kubectl"
        return [str(program), f"--kubeconfig={self.kubeconfig}", f"--context={self.context}"]

    def up(self) -> None:
        """Make everything run that does not. Raises ClusterError with what is missing."""
        if not elevation.is_root():
            elevation.again("up")
            return
        with self._locked():
            self._up()

    def down(self) -> None:
        """Stop everything and remove every trace but the cache."""
        if not elevation.is_root():
            elevation.again("down")
            return
        with self._locked():
            self._down()
        shutil.rmtree(RUN, ignore_errors=True)

    def restart_api_server(self) -> None:
        """Kill the API server and start it again: what a test of faults does to a cluster."""
        if not elevation.is_root():
            elevation.again("restart-apiserver")
            return
        with self._locked():
            alive = processes.running(self.settings.state).get("apiserver")
            if alive is not None:
                processes.stop(alive, patience_seconds=0)
            self._up()

    def stop_kubelet(self) -> None:
        """Kill the kubelet, and what its containers do goes on unseen: a node out of reach. `up` brings it back."""
        if not elevation.is_root():
            elevation.again("stop-kubelet")
            return
        with self._locked():
            alive = processes.running(self.settings.state).get("kubelet")
            if alive is not None:
                processes.stop(alive, patience_seconds=0)

    def audit_log(self) -> str:
        """What the API server's audit log has of the last requests, oldest first: a JSON object a line."""
        folder = self.settings.state / "log"
        # One that is rotated while the others are read would be missed.
        script = 'cd "$1" && before=$(ls -tr audit*.log) && cat $before && [ "$before" = "$(ls -tr audit*.log)" ]'
        read = ["sh", "-c", script, "sh", str(folder)]
        argv = read if elevation.is_root() else ["sudo", "-n", *read]
        done = shell.attempt(argv)
        return done.stdout if done.returncode == 0 else shell.run(argv)

    def is_ready(self) -> bool:
        """Whether the API server answers and the node takes pods."""
        return self.kubeconfig.exists() and model.has_ready_node(self.kubectl)

    def images(self) -> set[str] | None:
        """The images in containerd."""
        return set(shell.run([*node.ctr(), "images", "list", "--quiet"]).split())

    def load(self, archive: Path, name: str) -> None:
        """Import the archive into containerd."""
        shell.run([*node.ctr(), "images", "import", archive])
        if name not in (self.images() or ()):
            raise ClusterError(
                f"The archive {archive} was imported, but the cluster has no image {name}; its name must be in the "
                "archive."
            )

    def forget(self, name: str) -> None:
        """Remove the image from containerd."""
        shell.run([*node.ctr(), "images", "remove", name])

    def _up(self) -> None:
        state = self.settings.state
        binaries.architecture()
        cgroups.check()
        packages.ensure_node()
        network.refuse_other_kubernetes()
        programs = binaries.local_cluster(self.settings.cache)
        layout = Layout(state, programs)
        # Others may pass through to the kubeconfig; what is secret has its own modes.
        state.mkdir(parents=True, exist_ok=True, mode=0o755)
        self._after_a_reboot()
        network.ensure(state)
        cgroups.ensure()
        pki.ensure(layout.pki, NODE, ["127.0.0.1", network.NODE_IP, network.API_SERVICE_IP])
        self._write_kubeconfigs(layout)
        controlplane.write_configuration(layout)
        self._start(layout)

    def _start(self, layout: Layout) -> None:
        image = node.image_name(layout.programs)
        started = processes.ensure(node.containerd(layout, image), layout.state)
        node.load_image(layout, image)
        for part in controlplane.parts(layout):
            started |= processes.ensure(part, layout.state)
        for part in node.parts(layout):
            started |= processes.ensure(part, layout.state)
        addons.apply_manifests(self.kubectl)
        for part in addons.parts(layout, image):
            started |= processes.ensure(part, layout.state)
        node.wait_for_node(self.kubectl)
        self._wait_for_default_account()
        shell.say(
            f"the local cluster is up: {API}, context {self.context}, kubeconfig {self.kubeconfig}"
            + ("" if started else " (it was already)")
        )

    def _wait_for_default_account(self) -> None:
        # Before it exists, the API server refuses every pod that names no other.
        argv = [*self.kubectl, "wait", "serviceaccount/default", "--namespace=default", "--for=create", "--timeout=30s"]
        shell.run(argv)

    def _write_kubeconfigs(self, layout: Layout) -> None:
        for user in pki.USERS:
            text = pki.kubeconfig(layout.pki, user, API, self.context)
            shell.write_atomically(layout.kubeconfig_of(user), text, mode=0o600)
        mine = pki.kubeconfig(layout.pki, "admin", API, self.context)
        # Not written again when nothing changed: root's `up` would otherwise take it from the person who uses sudo.
        if not self.kubeconfig.exists() or self.kubeconfig.read_text() != mine:
            shell.write_atomically(self.kubeconfig, mine, mode=0o600)
        elevation.hand_over(self.kubeconfig)

    def _after_a_reboot(self) -> None:
        """Sockets and bundles of an earlier boot mean nothing any more; not every machine keeps /run in memory."""
        marker, boot = RUN / "boot-id", _BOOT_ID.read_text()
        if marker.exists() and marker.read_text() == boot:
            return
        if not processes.running(self.settings.state):
            leftovers.unmount(RUN)
            leftovers.empty(RUN, keep=("lock",))
        shell.write_atomically(marker, boot)

    def _down(self) -> None:
        state = self.settings.state
        alive = processes.running(state)
        # containerd last: it is the one that can end containers properly. The kubelet first: it would start them again.
        order = [
            "kubelet",
            "proxy",
            "kube-router",
            "local-path-provisioner",
            "coredns",
            "scheduler",
            "controller-manager",
            "apiserver",
            "etcd",
        ]
        shell.say(f"stopping {', '.join(sorted(alive)) or 'nothing, no part runs'}")
        for name in [*order, *(other for other in alive if other not in {*order, "containerd"})]:
            if name in alive:
                processes.stop(alive[name])
        if "containerd" in alive:
            leftovers.end_containers(node.ctr())
            processes.stop(alive["containerd"])
        cgroups.kill_pods()
        for stray in processes.strays(state):
            processes.stop(stray, patience_seconds=0)
        for folder in (state, RUN):
            leftovers.unmount(folder)
        network.remove(state)
        cgroups.remove()
        leftovers.remove_files(state)
        if state.exists():
            shutil.rmtree(state)
        shell.say("the local cluster is gone; its binaries stay in the cache")

    def _locked(self) -> AbstractContextManager[None]:
        return shell.locked(
            RUN / "lock", f"another process is working on the cluster (port {API_PORT}); waiting for it"
        )
