"""helm, for the chart's tests and the demo: the one on PATH if it is new enough, else one built from its Go module."""

from __future__ import annotations

import re
from pathlib import Path

from hack.cluster import binaries, shell

OLDEST = (3, 17)
"""The first release with --take-ownership, which an installation over CRDs that kubectl applied needs."""


def helm(cache: Path) -> Path:
    """The program. Raises ClusterError when it is missing and cannot be built."""
    found = shell.find("helm")
    if found and _version(found) >= OLDEST:
        return found
    return binaries.build(binaries.HELM, cache) / "helm"


def taking_over(program: Path) -> list[str]:
    """Flags of install and upgrade for objects that kubectl applied before: CRDs by tests, an operator by hand."""
    # Since version 4 helm applies on the server's side, where another manager's field is a conflict.
    return ["--take-ownership", *(["--force-conflicts"] if _version(program) >= (4, 0) else [])]


def _version(program: Path) -> tuple[int, int]:
    """Its (major, minor); (0, 0) if it does not say."""
    said = re.match(r"v?(\d+)\.(\d+)", shell.attempt([program, "version", "--template={{.Version}}"]).stdout)
    return (int(said[1]), int(said[2])) if said else (0, 0)
