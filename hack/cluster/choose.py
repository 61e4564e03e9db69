"""Which cluster to use: the one that was named, else kind where Docker really runs, else the local one."""

from __future__ import annotations

from hack.cluster import context, kind, settings
from hack.cluster.local import LocalCluster
from hack.cluster.model import Cluster

__all__ = ["Cluster", "current"]


def current() -> Cluster:
    """The cluster for this environment, which need not be up.

    Raises ClusterError when a named context does not exist.
    """
    chosen = settings.read()
    if chosen.context:
        return context.find(chosen, chosen.context)
    if kind.docker_runs():
        return kind.KindCluster(chosen)
    return LocalCluster(chosen.for_root())
