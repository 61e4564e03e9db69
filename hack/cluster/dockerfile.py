"""What one target of a Dockerfile depends on: its stages and the files of the checkout that they copy.

An image is named after a hash of exactly that, so that a change of the operator's source neither rebuilds nor reloads
the agent's image, which shares the Dockerfile with it but not the source.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path

from hack.cluster import shell
from hack.cluster.errors import ClusterError


@dataclass
class _Stage:
    """One FROM and what follows it."""

    lines: list[str] = field(default_factory=list)
    uses: list[str] = field(default_factory=list)
    copies: list[str] = field(default_factory=list)


def content_hash(repository: Path, target: str, *others: str) -> str:
    """Twelve digits that change with the target's stages, with the files they copy, and with `others`."""
    lines, copies = _reachable(repository / "Dockerfile", target)
    digest = hashlib.sha256("\0".join((*lines, *others)).encode())
    listed = ""
    if copies:
        words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", ".dockerignore", *copies]
        listed = shell.run(words, cwd=repository)
    for name in sorted(set(filter(None, listed.split("\0")))):
        path = repository / name
        if path.is_symlink():
            digest.update(f"{name}\0{path.readlink()}\0".encode())
        elif path.is_file():  # else it was deleted and git does not know yet
            digest.update(f"{name}\0{path.stat().st_mode & 0o111:o}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def _reachable(dockerfile: Path, target: str) -> tuple[list[str], list[str]]:
    """The lines and the copied paths of a target and of every stage that it builds on."""
    if not dockerfile.exists():
        raise ClusterError(f"There is no {dockerfile}; run this in a checkout of workitem-operator.")
    stages = _stages(dockerfile.read_text())
    if target not in stages:
        raise ClusterError(
            f"{dockerfile} has no target {target}; give one of its stages that name (`FROM … AS {target}`)."
        )
    pending, seen = ["", target], dict[str, _Stage]()
    while pending:
        name = pending.pop()
        if name in stages and name not in seen:
            seen[name] = stages[name]
            pending += stages[name].uses
    names = sorted(seen)
    return [line for name in names for line in seen[name].lines], [path for name in names for path in seen[name].copies]


def _stages(text: str) -> dict[str, _Stage]:
    """The stages by name; the one named "" holds what stands before the first FROM."""
    stages = {"": _Stage()}
    stage = stages[""]
    for line in text.replace("\\\n", " ").splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        words = line.split()
        instruction = words[0].upper()
        if instruction == "FROM":
            images = [word for word in words[1:] if not word.startswith("--")]
            named = len(images) > 2 and images[1].upper() == "AS"
            stage = stages[images[2] if named else str(len(stages))] = _Stage(uses=[images[0]])
        stage.lines.append(" ".join(words))
        stage.uses += re.findall(r"(?:--from=|from=)([\w.-]+)", line)
        if instruction in {"COPY", "ADD"} and "--from=" not in line:
            stage.copies += [word for word in words[1:-1] if not word.startswith("--")]
        stage.copies += re.findall(r"--mount=type=bind,source=([^,\s]+)", line)
    return stages
