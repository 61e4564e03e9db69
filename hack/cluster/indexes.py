"""How this machine reaches its Python package index, for a build that runs inside an image.

A machine may know its index by environment variables or by pip's and uv's configuration files. A build sees none of
these, so they are rewritten as the two files that pip and uv read in every image, mounted for the build only.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

from hack.cluster import shell

_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
# pip's option -> uv's option, and whether it takes several values.
_OPTIONS = {
    "index-url": ("index-url", False),
    "extra-index-url": ("extra-index-url", True),
    "trusted-host": ("allow-insecure-host", True),
}
_UV_VARIABLES = {
    "index-url": ("UV_DEFAULT_INDEX", "UV_INDEX_URL"),
    "extra-index-url": ("UV_INDEX", "UV_EXTRA_INDEX_URL"),
    "trusted-host": ("UV_INSECURE_HOST",),
}


def files() -> dict[str, str]:
    """The configuration files for pip and uv: path inside the image -> text."""
    options = settings()
    pip, uv = ["[global]", "timeout = 180"], ["system-certs = true"]
    if _CERTIFICATES.exists():
        pip.append(f"cert = {_CERTIFICATES}")
    for option, values in options.items():
        name, several = _OPTIONS[option]
        pip.append(f"{option} = {' '.join(values)}")
        uv.append(f"{name} = {json.dumps(values if several else values[-1])}")
    if local_folders():
        pip.append(f"find-links = {' '.join(map(str, local_folders()))}")
        uv.append(f"find-links = {json.dumps([str(folder) for folder in local_folders()])}")
    return {"/etc/pip.conf": "\n".join(pip) + "\n", "/etc/uv/uv.toml": "\n".join(uv) + "\n"}


def settings() -> dict[str, list[str]]:
    """What differs from the defaults, by pip's option names; uv's own variables win over pip's."""
    configured = _pip_configuration()
    found = {}
    for option in _OPTIONS:
        values = next((os.environ[name].split() for name in _UV_VARIABLES[option] if os.environ.get(name)), None)
        values = values or configured.get(option)
        if values:
            found[option] = values
    return found


def local_folders() -> list[Path]:
    """Folders of this machine in which packages lie."""
    return [Path(value) for value in _pip_configuration().get("find-links", []) if Path(value).is_dir()]


def _pip_configuration() -> dict[str, list[str]]:
    """What `pip config list` says: files and environment together, the environment last and therefore winning."""
    pip = ["pip", "config", "list"] if shell.find("pip") else [sys.executable, "-m", "pip", "config", "list"]
    listed = shell.attempt(pip)
    found: dict[str, list[str]] = {}
    # Without pip there is no pip configuration; lines look like global.index-url='…' and :env:.find-links='…'
    for line in listed.stdout.splitlines() if listed.returncode == 0 else ():
        match = re.match(r"(?:global|install|:env:)\.([\w-]+)='(.*)'$", line)
        if match:
            found[match.group(1)] = match.group(2).replace("\\n", " ").split()
    return found
