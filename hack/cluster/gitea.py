"""Gitea for tests and the demo: a real forge as one program, built from its Go module.

The program reads templates and more from a folder that lies beside it. The web pages' scripts and styles are no part of
the Go module: REST, git over HTTP and webhooks are complete, pages come without decoration.
"""

from __future__ import annotations

from pathlib import Path

from hack.cluster import binaries, elevation, settings


def cached() -> Path | None:
    """The folder with the program `gitea` and its files if this machine has it: the person's own, or root's."""
    chosen = settings.read()
    for cache in (chosen.cache, chosen.for_root().cache):
        if folder := binaries.cached(binaries.GITEA, cache):
            return folder
    return None


def ensure() -> Path:
    """The same, built where it is missing. Raises ClusterError when that fails.

    Built by root where sudo asks for nothing, because the local cluster's image is made of root's copy: eight minutes
    are enough once.
    """
    if folder := cached():
        return folder
    if not elevation.is_root() and elevation.possible():
        return Path(elevation.again("gitea").strip())
    return binaries.build(binaries.GITEA, settings.read().cache)
