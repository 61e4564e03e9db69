"""Debian packages that the local cluster and the tests need, installed only where their programs are missing.

Debian's containerd comes with a service that would start at once and at every boot; the cluster runs a containerd of
its own, so the service is kept from starting where this package is what brought it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hack.cluster import elevation, shell
from hack.cluster.errors import ClusterError

NODE = {
    "containerd": "containerd",
    "runc": "runc",
    "conntrack": "conntrack",
    "iptables": "iptables",
    "iptables-save": "iptables",
    "ip": "iproute2",
    "ipset": "ipset",
    "openssl": "openssl",
    "setsid": "util-linux",
}
TESTS = {"busybox": "busybox", "sshd": "openssh-server", "ssh": "openssh-client", "git": "git"}
"""What the runner's tests try it against: another shell, a real ssh server."""
IMAGES = {"buildah": "buildah", "mmdebstrap": "mmdebstrap", "git": "git"}
COMPILER = {"gcc": "gcc"}
"""What Go needs for programs that contain C, as SQLite does."""

_CNI_FOLDERS = (Path("/opt/cni/bin"), Path("/usr/lib/cni"), Path("/usr/libexec/cni"))
_CNI_PLUGINS = ("bridge", "host-local", "loopback")
_SERVICES = {"containerd": "containerd.service", "openssh-server": "ssh.service"}
_POLICY = Path("/usr/sbin/policy-rc.d")


def ensure_node() -> None:
    """Install what a node needs. Raises ClusterError when it is missing and cannot be installed."""
    missing = _missing(NODE)
    if cni_folder() is None:
        missing.append("containernetworking-plugins")
    _install(missing)
    if cni_folder() is None:
        raise ClusterError(
            f"The CNI plugins {', '.join(_CNI_PLUGINS)} are in none of {', '.join(map(str, _CNI_FOLDERS))}; install "
            "them there."
        )


def ensure_images() -> None:
    """Install what building images without Docker needs.

    Raises ClusterError when it is missing and cannot be installed.
    """
    _install(_missing(IMAGES))


def tests_missing() -> list[str]:
    """Packages that the unit tests lack."""
    return _missing(TESTS)


def ensure_tests() -> None:
    """Install what the unit tests need. Raises ClusterError when it is missing and cannot be installed."""
    _install(tests_missing())


def ensure_compiler() -> None:
    """Install a C compiler with the C library's headers, where they are missing; as root alone.

    Raises ClusterError when they cannot be installed.
    """
    missing = _missing(COMPILER) + ([] if Path("/usr/include/stdlib.h").exists() else ["libc6-dev"])
    if missing and not elevation.is_root():
        raise ClusterError(
            f"Here {', '.join(missing)} is missing; install it (`sudo apt-get install {' '.join(missing)}`) and run "
            "the command again."
        )
    _install(missing)


def ensure_npm() -> None:
    """Install npm where there is none. Raises ClusterError when it is missing and cannot be installed."""
    if shell.find("npm") is None and not elevation.is_root():
        elevation.check()
        shell.run(["sudo", "-n", "apt-get", "update", "-q"])
        shell.run(["sudo", "-n", "apt-get", "install", "-q", "-y", "--no-install-recommends", "npm"])
        return
    _install(_missing({"npm": "npm"}))


def cni_folder() -> Path | None:
    """The folder that has all the CNI plugins the cluster uses."""
    for folder in _CNI_FOLDERS:
        if all((folder / plugin).exists() for plugin in _CNI_PLUGINS):
            return folder
    return None


def _missing(programs: dict[str, str]) -> list[str]:
    return [package for program, package in programs.items() if shell.find(program) is None]


def _install(packages: list[str]) -> None:
    if not packages:
        return
    wanted = sorted(set(packages))
    if shell.find("apt-get") is None:
        raise ClusterError(
            f"Here {', '.join(wanted)} is missing, and there is no apt-get to install them with; install them "
            "and try again."
        )
    shell.say(f"installing Debian packages: {' '.join(wanted)}")
    environment = {"DEBIAN_FRONTEND": "noninteractive"}
    shell.run(["apt-get", "update", "-q"], env=environment)
    with _no_service_starts():
        shell.run(["apt-get", "install", "-q", "-y", "--no-install-recommends", *wanted], env=environment)
    for package, service in _SERVICES.items():
        if package in wanted and Path("/run/systemd/system").is_dir():
            shell.run(["systemctl", "disable", "--quiet", service])


@contextmanager
def _no_service_starts() -> Iterator[None]:
    """Debian's own switch against services that start while they are installed.

    A policy that is already there is respected.
    """
    if _POLICY.exists():
        yield
        return
    shell.write_atomically(_POLICY, "#!/bin/sh\nexit 101\n", mode=0o755)
    try:
        yield
    finally:
        _POLICY.unlink(missing_ok=True)
