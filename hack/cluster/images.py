"""The operator's and the agent's image: built from this checkout, loaded into the cluster, both only when they changed.

An image is named after what goes into it (the Dockerfile and the files that it copies), so "is it there already" needs
no bookkeeping: the name answers. A named context cannot be loaded from here, so its images must be named too.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hack.cluster import binaries, elevation, settings, shell
from hack.cluster.buildah import Buildah
from hack.cluster.errors import ClusterError
from hack.cluster.model import Cluster

_TARGETS = {"operator": "localhost/workitem-operator", "agent": "localhost/workitem-agent"}
_KEPT_BUILDS = 5


@dataclass(frozen=True)
class Images:
    """The two names, as a pod spec takes them."""

    operator: str
    agent: str


class Builder(Protocol):
    """What builds and keeps images: Docker or buildah."""

    def base(self) -> str:
        """What a build starts from, as far as it is not in the Dockerfile."""

    def build(self, context: Path, target: str, name: str) -> None:
        """Build a target under a name."""

    def has(self, name: str) -> bool:
        """Whether it was built before."""

    def save(self, name: str, archive: Path) -> None:
        """Write it as a docker-archive."""

    def forget(self, name: str) -> None:
        """Drop it."""


@dataclass(frozen=True)
class Docker:
    """The Docker daemon as a builder, with its own registries and certificates."""

    def base(self) -> str:
        """The Dockerfile's own default."""
        return ""

    def build(self, context: Path, target: str, name: str) -> None:
        """Build a target under a name."""
        shell.stream(["docker", "build", f"--target={target}", f"--tag={name}", context])

    def has(self, name: str) -> bool:
        """Whether it was built before."""
        return shell.attempt(["docker", "image", "inspect", name]).returncode == 0

    def save(self, name: str, archive: Path) -> None:
        """Write it as a docker-archive."""
        shell.run(["docker", "save", f"--output={archive}", name])

    def forget(self, name: str) -> None:
        """Drop it."""
        if self.has(name):
            shell.run(["docker", "image", "rm", name])


def build_and_load(cluster: Cluster) -> Images:
    """The images of this checkout in this cluster, which must be up.

    Raises ClusterError with what is missing or went wrong.
    """
    chosen = settings.read()
    if cluster.kind == "context":
        return _named(chosen, cluster.context)
    if cluster.kind == "local" and not elevation.is_root():
        return parse(elevation.again("images"))
    builder: Builder = Docker() if cluster.kind == "kind" else Buildah(chosen.for_root().cache)
    tag = _content_hash(settings.REPOSITORY, builder.base())
    images = Images(**{target: f"{name}:{tag}" for target, name in _TARGETS.items()})
    with shell.locked(chosen.cache / "images.lock", "another process is building images; waiting for it"):
        for target in _TARGETS:
            _ensure(cluster, builder, target, getattr(images, target))
        _prune(cluster, builder, tag, chosen.cache / "images.history")
    return images


def parse(output: str) -> Images:
    """The names from what the command line's `images` prints."""
    values = dict(line.split("=", 1) for line in output.splitlines() if "=" in line)
    return Images(operator=values["OPERATOR_IMAGE"], agent=values["AGENT_IMAGE"])


def load(cluster: Cluster, name: str) -> None:
    """Load any image that this machine's builder has. Raises ClusterError when it has none of that name."""
    builder: Builder = Docker() if cluster.kind == "kind" else Buildah(settings.read().for_root().cache)
    if name in (cluster.images() or ()):
        return
    if not builder.has(name):
        raise ClusterError(
            f"There is no image {name} to load; build it first (`python -m hack.cluster images`), or correct the name."
        )
    with tempfile.TemporaryDirectory(prefix="workitems-image-") as folder:
        archive = Path(folder) / "image.tar"
        shell.say(f"loading {name}")
        builder.save(name, archive)
        cluster.load(archive, name)


def _named(chosen: settings.Settings, context: str) -> Images:
    if not chosen.operator_image or not chosen.agent_image:
        raise ClusterError(
            f"The cluster of the context {context} fetches its images itself: push the targets operator and agent of "
            "the Dockerfile to a registry "
            "it reads, and name them in WORKITEMS_OPERATOR_IMAGE and WORKITEMS_AGENT_IMAGE."
        )
    return Images(operator=chosen.operator_image, agent=chosen.agent_image)


def _ensure(cluster: Cluster, builder: Builder, target: str, name: str) -> None:
    if name in (cluster.images() or ()):
        return
    if not builder.has(name):
        shell.say(f"building {name}")
        builder.build(settings.REPOSITORY, target, name)
    load(cluster, name)


def _content_hash(repository: Path, base: str) -> str:
    """Of the Dockerfile, of every file it copies that git knows or would know, and of the base."""
    digest = hashlib.sha256(f"{base} {binaries.architecture()}".encode())
    listed = shell.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *_inputs(repository)],
        cwd=repository,
    )
    for name in sorted(set(filter(None, listed.split("\0")))):
        path = repository / name
        if path.is_symlink():
            digest.update(f"{name}\0{path.readlink()}\0".encode())
        elif path.is_file():  # else it was deleted and git does not know yet
            digest.update(f"{name}\0{path.stat().st_mode & 0o111:o}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def _inputs(repository: Path) -> list[str]:
    """The Dockerfile, what it copies from the checkout, and what it leaves out."""
    dockerfile = repository / "Dockerfile"
    if not dockerfile.exists():
        raise ClusterError(f"There is no {dockerfile}; run this in a checkout of workitem-operator.")
    text = dockerfile.read_text().replace("\\\n", " ")
    inputs = ["Dockerfile", ".dockerignore"]
    for words in re.findall(r"^(?:COPY|ADD)\s+(.*)$", text, re.MULTILINE | re.IGNORECASE):
        if "--from=" not in words:
            inputs += [word for word in words.split() if not word.startswith("--")][:-1]
    inputs += re.findall(r"--mount=type=bind,source=([^,\s]+)", text)
    return inputs


def _prune(cluster: Cluster, builder: Builder, tag: str, history: Path) -> None:
    """Forget all but the last few builds.

    Not only the newest is kept: pods of a rollout may still need the ones before.
    """
    tags = [line for line in (history.read_text().split() if history.exists() else []) if line != tag]
    tags.append(tag)
    loaded = cluster.images() or set()
    for old in tags[:-_KEPT_BUILDS]:
        for name in _TARGETS.values():
            if f"{name}:{old}" in loaded:
                cluster.forget(f"{name}:{old}")
            builder.forget(f"{name}:{old}")
    shell.write_atomically(history, "\n".join(tags[-_KEPT_BUILDS:]) + "\n")
