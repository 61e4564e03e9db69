"""A container image without a container tool: an OCI archive of one layer, put together with tarfile.

The node needs two tiny static programs as an image (what holds a pod's namespaces, what makes a volume's folder), long
before there is anything that could build one. Everything in the archive is fixed (times, owners, order), so the same
programs give the same image.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def write(target: Path, name: str, programs: dict[str, Path], architecture: str) -> None:
    """Write an archive with the image `name`, which has these programs at its top; it runs the first one."""
    layer = _tar({program: path.read_bytes() for program, path in programs.items()}, mode=0o755)
    blobs: dict[str, bytes] = {}

    def add(content: bytes, media_type: str) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = content
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}

    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {"Entrypoint": [f"/{next(iter(programs))}"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": add(_json(config), "application/vnd.oci.image.config.v1+json"),
        "layers": [add(layer, "application/vnd.oci.image.layer.v1.tar")],
    }
    entry = add(_json(manifest), _MANIFEST)
    entry["annotations"] = {
        "io.containerd.image.name": name,
        "org.opencontainers.image.ref.name": name.rpartition(":")[2],
    }
    blobs["index.json"] = _json({"schemaVersion": 2, "manifests": [entry]})
    blobs["oci-layout"] = _json({"imageLayoutVersion": "1.0.0"})
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(_tar(blobs, mode=0o644))


def _tar(files: dict[str, bytes], mode: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True).encode()
