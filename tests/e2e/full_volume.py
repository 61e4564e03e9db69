"""A claim that is truly full: a small file system of its own behind a persistent volume of the local cluster.

The quota of a claim is the storage's business, and the local cluster's storage has none; a tmpfs says "No space left
on device" as any full disk does.
"""

from __future__ import annotations

import json
import subprocess
from typing import Self

from hack.cluster import elevation
from hack.cluster.local import LocalCluster
from hack.cluster.model import Cluster
from tests.e2e.lab import Lab

SIZE, GROWN = "16m", "128m"


def refusal(cluster: Cluster) -> str | None:
    """Why this cluster cannot have one; None if it can."""
    return None if isinstance(cluster, LocalCluster) else "only the local cluster's node is this machine, to mount on"


class FullVolume:
    """`with` it: a claim of that name in the test's namespace, with so little space that a large file fills it."""

    def __init__(self, lab: Lab, claim: str) -> None:
        """Take the test's world and the claim's name."""
        assert isinstance(lab.cluster, LocalCluster)
        self._lab, self._claim = lab, claim
        self._name = f"{lab.namespace}-{claim}"
        # Under the state folder: `down` unmounts and removes what lies there.
        self._folder = lab.cluster.settings.state / "volumes" / self._name

    def __enter__(self) -> Self:
        """Mount it and bind the claim to it."""
        _as_root("mkdir", "-p", str(self._folder))
        _as_root("mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=0777", "tmpfs", str(self._folder))
        request = {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "",
            "resources": {"requests": {"storage": "16Mi"}},
        }
        claim = {
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": self._claim},
            "spec": {**request, "volumeName": self._name},
        }
        volume = {
            "kind": "PersistentVolume",
            "metadata": {"name": self._name},
            "spec": {
                "capacity": {"storage": "16Mi"},
                "accessModes": ["ReadWriteOnce"],
                "persistentVolumeReclaimPolicy": "Retain",
                "storageClassName": "",
                "hostPath": {"path": str(self._folder), "type": "Directory"},
                "claimRef": {"namespace": self._lab.namespace, "name": self._claim},
            },
        }
        for body in (volume, claim):
            self._lab.kubectl("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", **body}))
        return self

    def __exit__(self, *_: object) -> None:
        """Take it away; a pod that still has it keeps the file system until it ends."""
        self._lab.kubectl("delete", "pvc", self._claim, "--wait=false")
        self._lab.kubectl("delete", "pv", self._name, "--wait=false")
        _as_root("umount", "--lazy", str(self._folder))
        _as_root("rmdir", str(self._folder))

    def grow(self) -> None:
        """Somebody gave it more space."""
        _as_root("mount", "-o", f"remount,size={GROWN}", str(self._folder))


def _as_root(*command: str) -> None:
    prefix = () if elevation.is_root() else ("sudo", "-n")
    done = subprocess.run([*prefix, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
