"""For the Dockerfile: takes the Claude Code CLI's binary out of its npm package, after a look at the package's SHA-512.

    claude_cli.py REGISTRY VERSION SHA512_AMD64 SHA512_ARM64 TARGET

The standard library alone: the image of node, which npm would need, is one more that somebody has to pin and to trust.
"""

from __future__ import annotations

import hashlib
import platform
import shutil
import sys
import tarfile
import tempfile
import urllib.request
from pathlib import Path

ARCHITECTURES = {"x86_64": "x64", "aarch64": "arm64"}
"""`uname -m` -> npm's word, in the order of the two digests."""
PROGRAM = "package/claude"


def main(registry: str, version: str, digests: tuple[str, str], target: Path) -> None:
    """Write the executable. Raises SystemExit with what is wrong, OSError if it cannot be fetched."""
    machine = platform.machine()
    if machine not in ARCHITECTURES:
        raise SystemExit(f"there is no Claude Code CLI for {machine}")
    name = f"claude-code-linux-{ARCHITECTURES[machine]}"
    wanted = digests[list(ARCHITECTURES).index(machine)]
    url = f"{registry.rstrip('/')}/@anthropic-ai/{name}/-/{name}-{version}.tgz"
    with tempfile.TemporaryFile() as archive:
        with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310 - the Dockerfile's registry
            shutil.copyfileobj(answer, archive)
        archive.seek(0)
        fetched = hashlib.file_digest(archive, "sha512").hexdigest()
        if fetched != wanted:
            raise SystemExit(f"{url} has the SHA-512 {fetched}, the Dockerfile says {wanted}: do not use it")
        archive.seek(0)
        with tarfile.open(fileobj=archive, mode="r:gz") as packed:
            program = packed.extractfile(PROGRAM)
            if program is None:
                raise SystemExit(f"{url}: {PROGRAM} is no file")
            with target.open("wb") as file:
                shutil.copyfileobj(program, file)
    target.chmod(0o755)


if __name__ == "__main__":
    given_registry, given_version, amd64, arm64, path = sys.argv[1:]
    main(given_registry, given_version, (amd64, arm64), Path(path))
