"""The images of operator, agents and Claude Code: built from this checkout and loaded into the cluster once changed.

An image is named after what goes into it (see dockerfile.py), so "is it there already" needs no bookkeeping: the name
answers. A named context cannot be loaded from here, so its images must be named too.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hack.cluster import binaries, dockerfile, elevation, settings, shell
from hack.cluster import claude as cli
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

    def build(self, context: Path, target: str, name: str, stages: Mapping[str, Path], extras: str = "") -> None:
        """Build a target under a name; `stages`: folders that take the place of stages."""

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

    def build(self, context: Path, target: str, name: str, stages: Mapping[str, Path], extras: str = "") -> None:
        """Build a target under a name; `stages`: folders that take the place of stages."""
        replaced = [f"--build-context={stage}={folder}" for stage, folder in stages.items()]
        replaced += [f"--build-arg=EXTRAS={extras}"] if extras else []
        shell.stream(["docker", "build", *replaced, f"--target={target}", f"--tag={name}", context])

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
            _ensure(cluster, builder, (target, name))
        _prune(cluster, builder, list(names.values()), chosen.cache / "images.history")
    return Images(**names)


def claude(cluster: Cluster) -> str:
    """The image for Claude Code agents in this cluster, apart from the others because of its size.

    Raises ClusterError with what is missing or went wrong.
    """
    chosen = settings.read()
    if cluster.kind == "context":
        if not chosen.claude_image:
            raise ClusterError(
                f"The cluster of the context {cluster.context} fetches its images itself: push the target claude of "
                "the Dockerfile to a registry it reads, and name it in WORKITEMS_CLAUDE_IMAGE."
            )
        return chosen.claude_image
    if cluster.kind == "local" and not elevation.is_root():
        return elevation.again("claude-image").strip().removeprefix("CLAUDE_IMAGE=")
    cache = chosen.cache if cluster.kind == "kind" else chosen.for_root().cache
    builder: Builder = Docker() if cluster.kind == "kind" else Buildah(cache)
    with shell.locked(chosen.cache / "images.lock", "another process is building images; waiting for it"):
        digest = dockerfile.content_hash(settings.REPOSITORY, "claude", builder.base(), binaries.architecture())
        name = f"localhost/workitem-claude:{digest}"
        if name not in (cluster.images() or ()):
            _ensure(cluster, builder, ("claude", name), {cli.CONTEXT: cli.folder(cache)})
        _prune(cluster, builder, [name], chosen.cache / "claude-images.history", keep=2)
    return name


def apprise(cluster: Cluster) -> str:
    """The operator's image with the optional extra apprise in this cluster, as docs/notifications.md builds it.

    Raises ClusterError with what is missing or went wrong.
    """
    chosen, extras = settings.read(), "apprise"
    if cluster.kind == "context":
        if not chosen.apprise_image:
            raise ClusterError(
                f"The cluster of the context {cluster.context} fetches its images itself: push the target operator, "
                f"built with --build-arg EXTRAS={extras}, to a registry it reads, and name it in "
                "WORKITEMS_APPRISE_IMAGE."
            )
        return chosen.apprise_image
    if cluster.kind == "local" and not elevation.is_root():
        return elevation.again("apprise-image").strip().removeprefix("APPRISE_IMAGE=")
    builder: Builder = Docker() if cluster.kind == "kind" else Buildah(chosen.for_root().cache)
    with shell.locked(chosen.cache / "images.lock", "another process is building images; waiting for it"):
        made_from = (builder.base(), binaries.architecture(), extras)
        name = f"{_TARGETS['operator']}-{extras}:{dockerfile.content_hash(settings.REPOSITORY, 'operator', *made_from)}"
        _ensure(cluster, builder, ("operator", name), extras=extras)
        _prune(cluster, builder, [name], chosen.cache / "apprise-images.history", keep=2)
    return name


def gitea(cluster: Cluster) -> str:
    """The image of the tests' and the demo's forge: the official one, or for the local cluster one made here.

    Raises ClusterError with what is missing or went wrong.
    """
    chosen = settings.read()
    if cluster.kind != "local":
        return chosen.gitea_image
    if not elevation.is_root():
        return elevation.again("gitea-image").strip()
    cache = chosen.for_root().cache
    builder, context = Buildah(cache), settings.REPOSITORY / "hack/gitea"
    program = binaries.build(binaries.GITEA, cache)
    recipe = (context / "Dockerfile").read_text()
    digest = hashlib.sha256(f"{recipe}\0{program.name}\0{builder.base()}".encode()).hexdigest()[:12]
    name = f"localhost/workitem-gitea:{digest}"
    with shell.locked(chosen.cache / "images.lock", "another process is building images; waiting for it"):
        if name not in (cluster.images() or ()):
            if not builder.has(name):
                shell.say(f"building {name}")
                builder.build(context, "gitea", name, {"program": program})
            load(cluster, name)
        _prune(cluster, builder, [name], chosen.cache / "gitea-images.history", keep=2)
    return name


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


def _ensure(
    cluster: Cluster,
    builder: Builder,
    what: tuple[str, str],
    stages: Mapping[str, Path] | None = None,
    extras: str = "",
) -> None:
    target, name = what
    if name in (cluster.images() or ()):
        return
    if not builder.has(name):
        shell.say(f"building {name}")
        builder.build(settings.REPOSITORY, target, name, stages or {}, extras)
    load(cluster, name)


def _prune(cluster: Cluster, builder: Builder, names: list[str], history: Path, keep: int = _KEPT_IMAGES) -> None:
    """Forget all but the last images. Not only the newest: pods of a rollout may still need the ones before."""
    known = [name for name in (history.read_text().split() if history.exists() else []) if name not in names] + names
    loaded = cluster.images() or set()
    for old in known[:-keep]:
        if old in loaded:
            cluster.forget(old)
        builder.forget(old)
    shell.write_atomically(history, "\n".join(known[-keep:]) + "\n")
