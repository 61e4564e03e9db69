"""The cluster's programs, built from Go modules and kept for every later checkout.

The build takes about ten minutes on two cores the first time, so its result is cached under a name that follows from
what goes into it (go.mod, go.sum, our own source, the platform): a checkout with the same modules finds it, one with
others builds its own. A build goes to a folder of its own and is moved into place at the end, so that a kill leaves no
half binary.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hack.cluster import packages, shell, toolchain
from hack.cluster.errors import ClusterError

_ARCHITECTURES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


@dataclass(frozen=True)
class Module:
    """One Go module of `go/`: the programs it yields by package, and how long they take on two idle cores.

    `files`: folders of the programs' own module that they read when they run, kept beside them. `tags`: build tags.
    `cgo`: whether they contain C, which takes a C compiler.
    """

    name: str
    programs: dict[str, str]
    minutes: str
    files: tuple[str, ...] = ()
    tags: str = ""
    cgo: bool = False

    @property
    def folder(self) -> Path:
        """Where its source is."""
        return toolchain.MODULES / self.name


KUBE = Module("kube", {"kube": ".", "pause": "./pause", "volume": "./volume"}, "9 minutes")
KUBECTL = Module("kube", {"kubectl": "k8s.io/kubernetes/cmd/kubectl"}, "2 minutes")
COREDNS = Module("coredns", {"coredns": "."}, "2 minutes")
LOCAL_PATH = Module("local-path", {"local-path-provisioner": "github.com/rancher/local-path-provisioner"}, "2 minutes")
KUBE_ROUTER = Module(
    "kube-router", {"kube-router": "github.com/cloudnativelabs/kube-router/v2/cmd/kube-router"}, "2 minutes"
)
KIND = Module("kind", {"kind": "sigs.k8s.io/kind"}, "1 minute")
GITEA = Module(
    "gitea",
    {"gitea": "code.gitea.io/gitea"},
    "8 minutes",
    files=("options", "public", "templates"),
    tags="sqlite sqlite_unlock_notify",
    cgo=True,
)
HELM = Module("helm", {"helm": "helm.sh/helm/v4/cmd/helm"}, "3 minutes")
KSTATUS = Module("kstatus", {"kstatus": "."}, "1 minute")


@dataclass(frozen=True)
class Binaries:
    """Where the local cluster's programs are."""

    kube: Path
    pause: Path
    volume: Path
    coredns: Path
    local_path: Path
    kube_router: Path
    kubectl: Path


def architecture() -> str:
    """This machine's architecture as Go names it. Raises ClusterError for one that was never tried."""
    machine = platform.machine().lower()
    if machine not in _ARCHITECTURES:
        raise ClusterError(
            f"The cluster is built for amd64 and arm64, not for {machine}; name a cluster of yours with "
            "WORKITEMS_CONTEXT."
        )
    return _ARCHITECTURES[machine]


def local_cluster(cache: Path) -> Binaries:
    """Everything that the local cluster runs, building what the cache lacks."""
    kube = build(KUBE, cache)
    # The same binary under the name kubectl is kubectl.
    kubectl = kube / "kubectl"
    if not kubectl.is_symlink():
        kubectl.symlink_to("kube")
    return Binaries(
        kube=kube / "kube",
        pause=kube / "pause",
        volume=kube / "volume",
        coredns=build(COREDNS, cache) / "coredns",
        local_path=build(LOCAL_PATH, cache) / "local-path-provisioner",
        kube_router=build(KUBE_ROUTER, cache) / "kube-router",
        kubectl=kubectl,
    )


def cached(module: Module, cache: Path) -> Path | None:
    """The folder of this module's programs if they have been built."""
    folder = _folder(module, cache)
    return folder if folder.is_dir() else None


def build(module: Module, cache: Path) -> Path:
    """The folder with this module's programs; builds them if the cache lacks them.

    Raises ClusterError when they cannot be built.
    """
    folder = _folder(module, cache)
    if folder.is_dir():
        return folder
    names = ", ".join(module.programs)
    with shell.locked(cache / "bin" / "lock", f"another process is building; waiting to build {names}"):
        if folder.is_dir():
            return folder
        go = toolchain.find(module.folder, cache)
        if module.cgo:
            packages.ensure_compiler()
        shell.say(f"building {names} from Go modules, once for this machine: about {module.minutes} on two idle cores")
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for program, package in module.programs.items():
            _build_one(go, module, package, partial / program)
            _copy_files(go, module, package, partial)
        partial.rename(folder)
    return folder


def _build_one(go: Path, module: Module, package: str, target: Path) -> None:
    version = re.search(
        r"^\s*(?:require )?k8s\.io/kubernetes (v\S+)", (module.folder / "go.mod").read_text(), re.MULTILINE
    )
    linker = "-s -w" + (f" -X k8s.io/component-base/version.gitVersion={version.group(1)}" if version else "")
    tags = [f"-tags={module.tags}"] if module.tags else []
    argv = [go, "build", "-mod=readonly", "-v", "-trimpath", *tags, "-ldflags", linker, "-o", target, package]
    process = subprocess.Popen(
        # The lowest priority: the person goes on working meanwhile, and an idle machine is no slower for it.
        ["nice", *map(str, argv)],
        cwd=module.folder,
        env={**os.environ, **_environment(module)},
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        tail = _show_progress(target.name, process.stderr or ())
    if process.returncode != 0:
        raise ClusterError(
            f"Building {target.name} from {module.folder.relative_to(toolchain.MODULES.parents[2])} failed: "
            f"{shell.last_lines(tail)}. "
            "The build needs a Go module proxy (`go env GOPROXY`) and 8 GB of disk; run the command again to go on "
            "where it stopped."
        )


def _environment(module: Module) -> dict[str, str]:
    """What makes a build the same on every machine."""
    cgo = "1" if module.cgo else "0"
    return {"CGO_ENABLED": cgo, "GOARCH": architecture(), "GOOS": "linux", "GOFLAGS": "", "GOWORK": "off"}


def _copy_files(go: Path, module: Module, package: str, target: Path) -> None:
    """Put what the program reads beside it: Go's own copy may be cleaned away at any time."""
    if not module.files:
        return
    listed = [str(go), "list", "-mod=readonly", "-f", "{{.Module.Dir}}", package]
    source = Path(shell.run(listed, cwd=module.folder, env=_environment(module)).strip())
    for folder in module.files:
        for path in sorted((source / folder).rglob("*")):
            if path.is_file():
                # Contents alone: Go's copy is read-only, and a cache must be possible to delete.
                copy = target / path.relative_to(source)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)


def _show_progress(program: str, lines: Iterable[str]) -> str:
    """Turn one line per package into one every ten seconds; returns the end of the output."""
    tail: deque[str] = deque(maxlen=20)
    packages, downloads, told = 0, 0, time.monotonic()
    for line in lines:
        tail.append(line)
        downloads += line.startswith("go: downloading")
        packages += not line.startswith(("go: ", "#", "\t"))
        if time.monotonic() - told > 10:
            told = time.monotonic()
            shell.say(f"  {program}: {downloads} modules downloaded, {packages} packages compiled, now {line.strip()}")
    return "".join(tail)


def _folder(module: Module, cache: Path) -> Path:
    digest = hashlib.sha256()
    sources = [path for path in sorted(module.folder.rglob("*")) if path.suffix in {".go", ".mod", ".sum"}]
    for path in sources:
        digest.update(str(path.relative_to(module.folder)).encode() + b"\0" + path.read_bytes())
    digest.update(repr(sorted(module.programs.items())).encode())
    if module.files or module.tags or module.cgo:
        digest.update(repr((module.files, module.tags, module.cgo)).encode())
    return cache / "bin" / f"{next(iter(module.programs))}-{digest.hexdigest()[:12]}-linux-{architecture()}"
