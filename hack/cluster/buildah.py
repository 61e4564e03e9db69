"""Building images without Docker: buildah, and a base image made from the machine's own Debian packages.

There is no registry to take a base image from, so mmdebstrap makes one out of the packages that the machine itself is
made of. What only this machine needs for a build (its certificate authorities, its package index settings) is mounted
for the build and never copied in.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hack.cluster import binaries, indexes, packages, shell
from hack.cluster.errors import ClusterError
from hack.cluster.settings import RUN

# What the Dockerfile would otherwise install: there, as here, an apt step finds it present and does nothing.
_BASE_PACKAGES = ("ca-certificates", "git", "make", "openssh-client", "python3", "python3-pip", "python3-venv")
_BASE_RECIPE = "1"
_NOT_NEEDED = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/info/*")


@dataclass(frozen=True)
class Buildah:
    """An image builder with its storage under `cache`."""

    cache: Path

    def base(self) -> str:
        """The name of the base image that a build starts from."""
        recipe = "\n".join((_BASE_RECIPE, *_BASE_PACKAGES, *_NOT_NEEDED, *_os_release(), binaries.architecture()))
        return f"localhost/workitems-base:{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"

    def build(self, context: Path, target: str, name: str, stages: Mapping[str, Path], extras: str = "") -> None:
        """Build one target of the context's Dockerfile; `stages`: folders that take the place of stages.

        Raises ClusterError when it fails, with the build's output on stderr.
        """
        packages.ensure_images()
        self._ensure_base()
        with _build_time_mounts() as mounts:
            self._stream(
                "bud", "--isolation=chroot", "--layers", "--pull-never", f"--build-arg=BASE={self.base()}",
                *(f"--volume={source}:{inside}:ro" for inside, source in mounts.items()),
                *(f"--build-context={stage}={folder}" for stage, folder in stages.items()),
                *([f"--build-arg=EXTRAS={extras}"] if extras else []),
                f"--target={target}", f"--tag={name}", context,
            )  # fmt: skip

    def has(self, name: str) -> bool:
        """Whether the image was built before."""
        return shell.find("buildah") is not None and self._attempt("inspect", "--type=image", name) == 0

    def save(self, name: str, archive: Path) -> None:
        """Write an image as a docker-archive under its name."""
        self._run("push", "--quiet", name, f"docker-archive:{archive}:{name}")

    def forget(self, name: str) -> None:
        """Drop an image; layers that others share stay."""
        if self.has(name):
            self._run("rmi", name)

    def _ensure_base(self) -> None:
        base = self.base()
        if self.has(base):
            return
        identity, codename = _os_release()
        shell.say(f"making a base image from {identity} {codename} packages, once for this machine: about a minute")
        folder = self.cache / "base"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        shell.run(
            [
                "mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(_BASE_PACKAGES)}",
                *(f"--dpkgopt=path-exclude={pattern}" for pattern in _NOT_NEEDED),
                f"--aptopt={_apt_settings(folder)}",
                # Where this machine gets its packages is this machine's affair; a build that installs more has /etc/apt
                # mounted.
                '--customize-hook=rm -f "$1/etc/apt/sources.list" "$1/etc/apt/apt.conf.d/99mmdebstrap"',
                codename, folder / "base.tar", *_apt_sources(identity),
            ]
        )  # fmt: skip
        (folder / "Dockerfile").write_text("FROM scratch\nADD base.tar /\nENV LANG=C.UTF-8\n")
        self._run("bud", "--isolation=chroot", f"--tag={base}", folder)
        shutil.rmtree(folder)

    def _argv(self, *words: str | Path) -> list[str | Path]:
        return ["buildah", f"--root={self.cache / 'containers'}", f"--runroot={RUN / 'buildah'}", *words]

    def _run(self, *words: str | Path) -> str:
        return shell.run(self._argv(*words))

    def _attempt(self, *words: str | Path) -> int:
        return shell.attempt(self._argv(*words)).returncode

    def _stream(self, *words: str | Path) -> None:
        shell.stream(self._argv(*words))


@contextmanager
def _build_time_mounts() -> Iterator[dict[str, Path]]:
    """What a build sees of this machine while it runs: path inside -> path on the machine."""
    folder = RUN / f"build-{os.getpid()}"
    folder.mkdir(parents=True, mode=0o700)  # an index address may carry a password; a build may run as another user
    mounts = {path: Path(path) for path in ("/etc/ssl/certs", "/etc/apt", "/usr/share/keyrings") if Path(path).is_dir()}
    try:
        for inside, text in indexes.files().items():
            file = folder / inside.strip("/").replace("/", "-")
            shell.write_atomically(file, text)
            mounts[inside] = file
        for local in indexes.local_folders():
            mounts[str(local)] = local
        yield mounts
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _os_release() -> tuple[str, str]:
    """The distribution's id and codename. Raises ClusterError where packages of another kind rule."""
    values = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    identity, codename = (values.get(key, "").strip('"') for key in ("ID", "VERSION_CODENAME"))
    if identity not in {"debian", "ubuntu"} or not codename:
        raise ClusterError(
            f"Images can be built without Docker on Debian and Ubuntu only, and this is {identity or 'unknown'}; start "
            "Docker here."
        )
    return identity, codename


def _apt_sources(identity: str) -> list[str]:
    """The machine's own package sources, of the distribution alone: others' packages have no place in a base image."""
    listed = [
        "apt-get",
        "indextargets",
        "--format",
        "$(ORIGIN)|deb $(REPO_URI) $(RELEASE) $(COMPONENT)",
        "Created-By: Packages",
    ]
    for update in (False, True):
        if update:
            shell.run(["apt-get", "update", "-q"])
        pairs = [line.split("|", 1) for line in shell.run(listed).splitlines()]
        sources = sorted({source for origin, source in pairs if origin.lower() == identity})
        if sources:
            return sources
    raise ClusterError(
        f"No apt source of this machine is of {identity} itself (`apt-get indextargets`); add the distribution's "
        "own, or start Docker."
    )


def _apt_settings(folder: Path) -> Path:
    """How this machine's apt reaches its sources: proxies, certificates, checks that were switched off."""
    wanted = ("Acquire::http", "Acquire::https", "Acquire::Check-", "Acquire::Retries")
    lines = [line for line in shell.run(["apt-config", "dump"]).splitlines() if line.startswith(wanted)]
    file = folder / "apt.conf"
    file.write_text("\n".join(lines) + "\n")
    return file
