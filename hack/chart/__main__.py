"""`python -m hack.chart sources|manifests`: write what is generated; see the Makefile's chart and manifests."""

from __future__ import annotations

import sys

from hack.chart import plain, sources
from hack.cluster import helm, settings
from hack.cluster.errors import ClusterError


def main(arguments: list[str]) -> int:
    """Run one command; the exit code."""
    if arguments not in (["sources"], ["manifests"]):
        print(__doc__, file=sys.stderr)
        return 2
    sources.write()
    if arguments == ["manifests"]:
        try:
            plain.write(helm.helm(settings.read().cache))
        except ClusterError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
