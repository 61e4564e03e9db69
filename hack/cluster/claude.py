"""The Claude Code CLI's native binary, fetched once from its npm package: for the claude image and for the tests.

The Dockerfile names version and digests, so that an image built anywhere and the binary that was tested are the same.
npm fetches, however this machine reaches its registry; what it brought is checked against the Dockerfile's digest.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tarfile
import tempfile
from pathlib import Path

from hack.cluster import binaries, packages, settings, shell
from hack.cluster.errors import ClusterError

CONTEXT = "claude-cli"
"""The stage of the Dockerfile that a folder with the binary takes the place of."""
_PROGRAM = "package/claude"
_NPM_ARCHITECTURES = {"amd64": "x64", "arm64": "arm64"}


def folder(cache: Path) -> Path:
    """A folder with nothing but the executable `claude`, fetched if the cache lacks it. Raises ClusterError."""
    architecture = binaries.architecture()
    version, digest = _pinned(architecture)
    made = cache / "claude" / f"{version}-{digest[:12]}"
    if (made / "claude").exists():
        return made
    with shell.locked(cache / "claude.lock", "another process is fetching the Claude Code CLI; waiting for it"):
        if not (made / "claude").exists():
            _fetch(f"@anthropic-ai/claude-code-linux-{_NPM_ARCHITECTURES[architecture]}@{version}", digest, made)
    return made


def _pinned(architecture: str) -> tuple[str, str]:
    """Version, and SHA-512 of the package for this architecture, as the Dockerfile has them."""
    text = (settings.REPOSITORY / "Dockerfile").read_text()
    found = dict(re.findall(r"(?m)^ARG (CLAUDE_CODE_\w+)=(\S+)$", text))
    try:
        return found["CLAUDE_CODE_VERSION"], found[f"CLAUDE_CODE_SHA512_{architecture.upper()}"]
    except KeyError as error:
        raise ClusterError(f"The Dockerfile has no `ARG {error.args[0]}=`; restore it.") from error


def _fetch(package: str, digest: str, made: Path) -> None:
    packages.ensure_npm()
    shell.say(f"fetching {package} from npm, once for this machine: 175 MB")
    made.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=made.parent, prefix="fetch-") as name:
        scratch = Path(name)
        shell.run(["npm", "pack", "--silent", package], cwd=scratch)
        (archive,) = scratch.glob("*.tgz")
        with archive.open("rb") as file:
            fetched = hashlib.file_digest(file, "sha512").hexdigest()
        if fetched != digest:
            raise ClusterError(
                f"npm brought another {package} than the Dockerfile names: its SHA-512 is {fetched}. Do not use it; "
                "look where this machine's npm registry leads (`npm config get registry`)."
            )
        inside = scratch / "image"
        inside.mkdir(mode=0o755)
        with tarfile.open(archive) as packed, (inside / "claude").open("wb") as target:
            source = packed.extractfile(_PROGRAM) if _PROGRAM in packed.getnames() else None
            if source is None:
                raise ClusterError(f"{package} has no file {_PROGRAM}; name a version in the Dockerfile that has.")
            shutil.copyfileobj(source, target)
        (inside / "claude").chmod(0o755)
        inside.rename(made)
