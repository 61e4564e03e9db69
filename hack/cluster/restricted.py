"""The securityContext of the tools' own pods, as the Pod Security Standard `restricted` wants it.

The uid is the images' own user; fsGroup lets it write on the volumes.
"""

from __future__ import annotations

from typing import Any

UID = 1000


def pod() -> dict[str, Any]:
    """Return a pod's `securityContext`."""
    return {
        "runAsNonRoot": True,
        "runAsUser": UID,
        "runAsGroup": UID,
        "fsGroup": UID,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container() -> dict[str, Any]:
    """Return a container's `securityContext`; what it writes needs a volume."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
