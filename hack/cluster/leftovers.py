"""What containers leave behind in places that the cluster does not choose: mounts, sockets of shims, links to logs."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from hack.cluster import shell
from hack.cluster.settings import RUN

_SHIM_SOCKETS = Path("/run/containerd/s")
_LOG_LINKS = Path("/var/log/containers")
# The kubelet puts its device plugins here whatever its own root is.
_DEVICE_PLUGINS = Path("/var/lib/kubelet/device-plugins")
_CNI_RESULTS = Path("/var/lib/cni/results")
_MAY_BE_EMPTY = (
    _LOG_LINKS,
    _SHIM_SOCKETS,
    _SHIM_SOCKETS.parent,
    _DEVICE_PLUGINS,
    _DEVICE_PLUGINS.parent,
    _CNI_RESULTS,
    _CNI_RESULTS.parent,
)


def end_containers(ctr: Sequence[str]) -> None:
    """End every container through containerd, so that its shim ends too and takes its socket along.

    What fails is killed later.
    """
    containers = shell.attempt([*ctr, "containers", "list", "--quiet"]).stdout.split()
    if containers:
        shell.say(f"ending {len(containers)} containers")
        shell.attempt([*ctr, "tasks", "delete", "--force", *containers])


def unmount(folder: Path) -> None:
    """Unmount everything at and below a folder, the innermost first."""
    # Fields of mountinfo: id, parent, device, root, mount point, …; blanks in paths are written as octal.
    points = [line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    ours = [point.replace("\\040", " ") for point in points if Path(point).is_relative_to(folder)]
    for point in sorted(ours, key=len, reverse=True):
        shell.run(["umount", "--lazy", point])


def empty(folder: Path, keep: Sequence[str] = ()) -> None:
    """Remove what is in a folder, except for names that are to be kept."""
    for entry in folder.iterdir() if folder.is_dir() else ():
        if entry.name in keep:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def remove_files(state: Path) -> None:
    """Remove what the kubelet, the CNI library and shims keep outside the state: only files that are the cluster's."""
    for link in _LOG_LINKS.glob("*"):
        if link.is_symlink() and link.readlink().is_relative_to(state):
            link.unlink()
    for result in _CNI_RESULTS.glob("*"):
        if f'"{RUN}/' in result.read_text(errors="replace"):
            result.unlink()
    listening = Path("/proc/net/unix").read_text()
    for socket in _SHIM_SOCKETS.glob("*"):
        if str(socket) not in listening:
            socket.unlink()
    for name in ("kubelet.sock", "kubelet_internal_checkpoint", "DEPRECATION"):
        if str(_DEVICE_PLUGINS) not in listening:
            (_DEVICE_PLUGINS / name).unlink(missing_ok=True)
    for folder in _MAY_BE_EMPTY:
        if folder.is_dir() and not folder.is_mount() and not any(folder.iterdir()):
            folder.rmdir()
