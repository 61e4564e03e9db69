"""Where the Claude Code CLI comes from: npm, checked against the Dockerfile, once; npm itself is played here."""

from __future__ import annotations

import hashlib
import io
import platform
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from hack.cluster import binaries, claude, dockerfile, packages, settings, shell
from hack.cluster.errors import ClusterError
from hack.release import claude_cli


class Npm:
    """`npm pack` with a package of ours."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, file: str = "package/claude") -> None:
        self.asked: list[str] = []
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as packed:
            entry = tarfile.TarInfo(file)
            entry.size = 3
            packed.addfile(entry, io.BytesIO(b"cli"))
        self.archive = buffer.getvalue()
        self.digest = hashlib.sha512(self.archive).hexdigest()
        (tmp_path / "Dockerfile").write_text(
            f"ARG CLAUDE_CODE_VERSION=1.2.3\nARG CLAUDE_CODE_SHA512_{binaries.architecture().upper()}={self.digest}\n"
        )
        monkeypatch.setattr(settings, "REPOSITORY", tmp_path)
        monkeypatch.setattr(packages, "ensure_npm", lambda: None)
        monkeypatch.setattr(shell, "run", self._run)

    def _run(self, argv: Sequence[str], *, cwd: Path) -> str:
        assert list(argv[:3]) == ["npm", "pack", "--silent"]
        self.asked.append(argv[3])
        (cwd / "anthropic-ai-claude-code.tgz").write_bytes(self.archive)
        return ""


def test_it_is_fetched_once_and_is_executable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    npm = Npm(monkeypatch, tmp_path)
    folder = claude.folder(tmp_path / "cache")
    assert claude.folder(tmp_path / "cache") == folder
    assert len(npm.asked) == 1
    assert npm.asked[0].startswith("@anthropic-ai/claude-code-linux-")
    assert npm.asked[0].endswith("@1.2.3")
    assert [path.name for path in folder.iterdir()] == ["claude"]
    assert (folder / "claude").read_bytes() == b"cli"
    assert (folder / "claude").stat().st_mode & 0o777 == 0o755


def test_another_package_than_the_dockerfiles_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    npm = Npm(monkeypatch, tmp_path)
    npm.archive += b"more"
    with pytest.raises(ClusterError, match=r"another .* than the Dockerfile names"):
        claude.folder(tmp_path / "cache")
    assert not list((tmp_path / "cache/claude").iterdir())


def test_a_package_without_the_binary_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Npm(monkeypatch, tmp_path, file="package/cli.js")
    with pytest.raises(ClusterError, match="no file package/claude"):
        claude.folder(tmp_path / "cache")


def test_the_image_changes_with_the_clis_version_and_the_others_do_not(tmp_path: Path) -> None:
    text = (settings.REPOSITORY / "Dockerfile").read_text()
    copies = {}
    for name, version in (("old", "2.1.330"), ("new", "2.1.331")):
        (tmp_path / name).mkdir()
        shell.run(["git", "init", "--quiet"], cwd=tmp_path / name)
        (tmp_path / name / "Dockerfile").write_text(text.replace("2.1.330", version))
        copies[name] = {t: dockerfile.content_hash(tmp_path / name, t) for t in ("claude", "agent")}
    assert copies["old"]["claude"] != copies["new"]["claude"]
    assert copies["old"]["agent"] == copies["new"]["agent"]


@pytest.fixture
def registry(tmp_path: Path) -> tuple[str, str]:
    """A registry of files that has the package, and the package's SHA-512."""
    name = f"claude-code-linux-{claude_cli.ARCHITECTURES[platform.machine()]}"
    folder = tmp_path / "registry/@anthropic-ai" / name / "-"
    folder.mkdir(parents=True)
    program = tmp_path / "program"
    program.write_bytes(b"cli")
    with tarfile.open(folder / f"{name}-1.2.3.tgz", mode="w:gz") as packed:
        packed.add(program, "package/claude")
    digest = hashlib.sha512((folder / f"{name}-1.2.3.tgz").read_bytes()).hexdigest()
    return (tmp_path / "registry").as_uri(), digest


def test_an_image_build_takes_the_binary_out_of_the_package(registry: tuple[str, str], tmp_path: Path) -> None:
    url, digest = registry
    claude_cli.main(url, "1.2.3", (digest, digest), tmp_path / "claude")
    assert (tmp_path / "claude").read_bytes() == b"cli"
    assert (tmp_path / "claude").stat().st_mode & 0o777 == 0o755


def test_an_image_build_refuses_another_package(registry: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="do not use it"):
        claude_cli.main(registry[0], "1.2.3", ("0" * 128, "0" * 128), tmp_path / "claude")
    assert not (tmp_path / "claude").exists()
