"""The control groups that the kubelet puts pods into, on cgroup v1 and v2: what there is, making and removing them.

On v1 each controller is a hierarchy of its own, on v2 there is one; hybrid machines have both. All of them are found in
the mount table instead of being assumed. The cluster has a group of its own at the top of each, so that it never
touches another kubelet's.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from hack.cluster.errors import ClusterError

ROOT = "/workitems"
_NEEDED = ("cpu", "memory")
_HANDED_DOWN = ("cpu", "cpuset", "io", "memory", "pids")


def check() -> None:
    """Raises ClusterError when this machine has no control groups that pods could be put into."""
    missing = [controller for controller in _NEEDED if not has(controller)]
    if missing:
        raise ClusterError(
            f"This machine offers no control group for {' and '.join(missing)} (see /proc/mounts and /proc/cgroups), "
            "so pods cannot be "
            "limited; run on a machine that mounts them, or name another cluster with WORKITEMS_CONTEXT."
        )


def ensure() -> None:
    """Make the cluster's own group in every hierarchy; on v2 hand the controllers that pods need down to it."""
    for mount, kind, _ in _hierarchies():
        if kind == "cgroup2":
            _hand_down(mount)
        (mount / ROOT.lstrip("/")).mkdir(exist_ok=True)


def _hand_down(mount: Path) -> None:
    controllers = [name for name in (mount / "cgroup.controllers").read_text().split() if name in _HANDED_DOWN]
    if not controllers:
        return  # a hybrid machine: the controllers are in the hierarchies of v1
    try:
        (mount / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in controllers))
    except OSError as error:
        raise ClusterError(
            f"The controllers of {mount} cannot be handed down ({error.strerror}), as happens in a container whose own "
            "processes sit there; run on the machine itself, or name another cluster with WORKITEMS_CONTEXT."
        ) from error


def has(controller: str) -> bool:
    """Whether pods can be given limits by this controller."""
    for mount, kind, options in _hierarchies():
        if kind == "cgroup" and controller in options:
            return True
        controllers = mount / "cgroup.controllers"
        if kind == "cgroup2" and controllers.exists() and controller in controllers.read_text().split():
            return True
    return False


def kill_pods() -> None:
    """Kill every process that still lives in a pod's control group."""
    end = time.monotonic() + 10
    while pids := _pids():
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue  # ended in between
        if time.monotonic() > end:
            raise ClusterError(
                f"The pods' processes {sorted(pids)} do not die, they are probably blocked in the kernel; "
                "restart the machine."
            )
        time.sleep(0.05)


def remove() -> None:
    """Remove the pods' control groups, innermost first."""
    for top in _tops():
        for folder, _, _ in os.walk(top, topdown=False):
            _remove_one(Path(folder))


def _remove_one(folder: Path) -> None:
    # A group stays busy for a moment after its last process has died.
    end = time.monotonic() + 5
    while folder.exists():
        try:
            folder.rmdir()
        except OSError as error:
            if time.monotonic() > end:
                raise ClusterError(
                    f"The control group {folder} cannot be removed ({error.strerror}); run `down` again in a moment."
                ) from error
            time.sleep(0.05)


def _pids() -> set[int]:
    pids: set[int] = set()
    for top in _tops():
        for file in top.rglob("cgroup.procs"):
            try:
                pids.update(int(line) for line in file.read_text().split())
            except OSError:
                continue  # the group was removed meanwhile, or is a threaded one whose processes its parent lists
    return pids


def _tops() -> list[Path]:
    groups = [mount / ROOT.lstrip("/") for mount, _, _ in _hierarchies()]
    return [group for group in groups if group.is_dir()]


def _hierarchies() -> list[tuple[Path, str, list[str]]]:
    """The hierarchies: mount point, `cgroup` or `cgroup2`, options (on v1 these name the controllers)."""
    found = []
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, point, kind, options, *_ = line.split(" ")
        if kind in {"cgroup", "cgroup2"}:
            found.append((Path(point), kind, options.split(",")))
    return found
