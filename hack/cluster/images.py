"""The operator's and the agent's image: built from this checkout, loaded into the cluster, both only when they changed.

An image is named after what goes into it (see dockerfile.py), so "is it there already" needs no bookkeeping: the name
answers. A named context cannot be loaded from here, so its images must be named too.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hack.cluster import binaries, dockerfile, elevation, settings, shell
from hack.cluster.buildah import Buildah
from hack.cluster.errors import ClusterError
from hack.cluster.model import Cluster

_TARGETS = {"operator": "localhost/workitem-operator", "agent": "localhost/workitem-agent"}
_KEPT_IMAGES = 10


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
    architecture = binaries.architecture()
    with shell.locked(chosen.cache / "images.lock", "another process is building images; waiting for it"):
        names = {
            target: f"{name}:{dockerfile.content_hash(settings.REPOSITORY, target, builder.base(), architecture)}"
            for target, name in _TARGETS.items()
        }
        for target, name in names.items():
            _ensure(cluster, builder, target, name)
        _prune(cluster, builder, list(names.values()), chosen.cache / "images.history")
    return Images(**names)


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


def _prune(cluster: Cluster, builder: Builder, names: list[str], history: Path) -> None:
    """Forget all but the last images. Not only the newest: pods of a rollout may still need the ones before."""
    known = [name for name in (history.read_text().split() if history.exists() else []) if name not in names] + names
    loaded = cluster.images() or set()
    for old in known[:-_KEPT_IMAGES]:
        if old in loaded:
            cluster.forget(old)
        builder.forget(old)
    shell.write_atomically(history, "\n".join(known[-_KEPT_IMAGES:]) + "\n")
