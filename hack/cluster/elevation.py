"""The local cluster belongs to root: it makes bridges, mounts and control groups. How others get there.

The whole command runs again through `sudo`, with the few variables that matter spelled out, because sudo drops the
environment and PATH.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from hack.cluster import settings, shell
from hack.cluster.errors import ClusterError

_KEPT = (
    "PATH",
    "UV",
    "VIRTUAL_ENV",
    "PYTHONPATH",
    "GOPROXY",
    "GONOSUMDB",
    "GOSUMDB",
    "GOTOOLCHAIN",
    "GOFLAGS",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
)
_KEPT_PREFIXES = (
    "WORKITEMS_",
    "PIP_",
    "npm_config_",
    "NPM_CONFIG_",
    "UV_",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
)


def is_root() -> bool:
    """Whether this process may do it itself."""
    return os.geteuid() == 0


def possible() -> bool:
    """Whether sudo makes this person root without asking for a password."""
    return shell.find("sudo") is not None and shell.attempt(["sudo", "-n", "true"]).returncode == 0


def check() -> None:
    """Raises ClusterError when this is neither root nor someone whom sudo makes root without asking for a password."""
    if not is_root() and not possible():
        raise ClusterError(
            "The local cluster needs root, or sudo without a password, and Docker, which would do without, does not "
            "run here; "
            "start Docker, become root, or name a cluster of yours with WORKITEMS_CONTEXT."
        )


def again(command: str) -> str:
    """Run this package's command line once more as root; returns what it prints. Raises ClusterError when it fails."""
    check()
    kept = [f"{name}={value}" for name, value in os.environ.items() if name in _KEPT or name.startswith(_KEPT_PREFIXES)]
    argv = ["sudo", "-n", "-H", "env", *kept, sys.executable, "-m", "hack.cluster", command]
    done = subprocess.run(
        argv, cwd=settings.REPOSITORY, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode != 0:
        raise ClusterError(f"`{command}` failed as root; the reason stands in its output above.")
    return done.stdout


def hand_over(file: Path) -> None:
    """Give a file to the person who called sudo, so that they can read it without being root."""
    user, group = os.environ.get("SUDO_UID"), os.environ.get("SUDO_GID")
    if user and group:
        os.chown(file, int(user), int(group))
