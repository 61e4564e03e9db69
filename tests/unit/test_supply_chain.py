"""What is built and published comes from where we say, by hash or digest, and the workflows that do it lint clean."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
SCRIPTS = sorted((ROOT / "hack" / "release").glob("*.sh"))
BIN = Path(sys.executable).parent
Releasing = Callable[[str], tuple[subprocess.CompletedProcess[str], str]]


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, cwd=ROOT)


def test_the_workflows_are_what_github_reads() -> None:
    assert WORKFLOWS
    done = run(BIN / "check-jsonschema", "--builtin-schema", "vendor.github-workflows", *WORKFLOWS)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_auditor_of_workflows_finds_nothing() -> None:
    done = run(BIN / "zizmor", "--offline", "--persona=pedantic", "--no-progress", *WORKFLOWS)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: str(path.name))
def test_actions_are_named_by_commit_and_say_their_version(workflow: Path) -> None:
    uses = re.findall(r"uses: (.*)", workflow.read_text())
    assert [each for each in uses if not each.startswith("$/")]
    for each in uses:
        # A workflow of this very commit needs no name for it.
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v[\d.]+|\$/[\w./-]+", each), each


@pytest.mark.parametrize("path", [*WORKFLOWS, *SCRIPTS, ROOT / "Dockerfile"], ids=lambda path: str(path.name))
def test_nothing_that_was_downloaded_is_piped_into_a_shell(path: Path) -> None:
    assert not re.search(r"(curl|wget)\b", path.read_text()), "what is fetched comes from a registry, by hash or digest"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.name))
def test_a_script_is_one_that_sh_can_read(script: Path) -> None:
    assert script.stat().st_mode & 0o111
    done = run("sh", "-n", script)
    assert done.returncode == 0, done.stderr


def test_a_tag_that_is_not_the_version_is_refused() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert run(ROOT / "hack/release/version.sh", f"v{version}").returncode == 0
    refused = run(ROOT / "hack/release/version.sh", "v9.9.9")
    assert refused.returncode == 1
    assert "make them agree" in refused.stderr


def test_every_package_of_the_image_is_locked_by_hash() -> None:
    lock = tomllib.loads((ROOT / "uv.lock").read_text())
    fetched = [package for package in lock["package"] if "registry" in package["source"]]
    files = [file for package in fetched for file in package.get("wheels", [])]
    assert len(files) > 100
    assert all(file["hash"].startswith("sha256:") for file in files)
    # uv itself, which reads the lock.
    assert re.search(r"^uv==[\d.]+ \\$", (ROOT / "hack/uv.txt").read_text(), re.MULTILINE)
    assert "--require-hashes -r /opt/uv.txt" in (ROOT / "Dockerfile").read_text()


def test_every_image_starts_from_the_one_base() -> None:
    text = (ROOT / "Dockerfile").read_text()
    stages = set(re.findall(r"^FROM \S+ AS (\S+)$", text, re.MULTILINE))
    bases = set(re.findall(r"^FROM (\S+)", text, re.MULTILINE))
    assert bases - stages == {"${BASE}"}, "one more image to pin and to trust"


@pytest.fixture
def releasing(tmp_path: Path) -> Releasing:
    """images.sh in a checkout whose base.digest says this: how it ends, and what it asked docker and cosign for."""
    checkout, programs, log = tmp_path / "checkout", tmp_path / "bin", tmp_path / "log"
    shutil.copytree(ROOT / "hack/release", checkout / "hack/release")
    shutil.copy(ROOT / "Dockerfile", checkout)
    programs.mkdir()
    for name in ("docker", "cosign"):
        program = programs / name
        program.write_text(
            f"""#!/bin/sh
echo {name} "$@" >> {log}
while [ $# -gt 1 ]; do
    if [ "$1" = --metadata-file ]; then echo '{{"containerimage.digest": "sha256:{name}"}}' > "$2"; fi
    shift
done
"""
        )
        program.chmod(0o755)

    def release(pinned: str) -> tuple[subprocess.CompletedProcess[str], str]:
        (checkout / "hack/release/base.digest").write_text(f"{pinned}\n")
        command = [str(checkout / "hack/release/images.sh"), "ghcr.io/Some-Owner", "1.2.3"]
        path = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=path)
        return done, log.read_text() if log.exists() else ""

    return release


BASE = "docker.io/library/python:3.13-slim-bookworm"


@pytest.mark.parametrize("pinned", ["unknown", "", BASE, f"{BASE}@sha256:abc", f"docker.io/other@sha256:{'a' * 64}"])
def test_a_release_without_the_digest_of_its_base_is_refused(releasing: Releasing, pinned: str) -> None:
    done, asked = releasing(pinned)
    assert done.returncode == 1
    assert "run hack/release/base.sh" in done.stderr
    assert asked == ""


def test_a_release_builds_on_the_committed_digest_and_signs_what_it_pushed(releasing: Releasing) -> None:
    done, asked = releasing(f"{BASE}@sha256:{'a' * 64}")
    assert done.returncode == 0, done.stderr
    builds = [line for line in asked.splitlines() if " build " in line]
    names = [f"ghcr.io/some-owner/workitem-{name}" for name in ("operator", "agent", "claude")]
    assert [re.findall(r"--tag (\S+)", line) for line in builds] == [[f"{name}:1.2.3"] for name in names]
    assert all(f"--build-arg BASE={BASE}@sha256:{'a' * 64} " in line for line in builds)
    assert all("--platform linux/amd64,linux/arm64 " in line and "--sbom=true" in line for line in builds)
    signed = [line for line in asked.splitlines() if line.startswith("cosign")]
    assert signed == [f"cosign sign --yes {name}@sha256:docker" for name in names]


def test_a_release_waits_for_ci() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())["jobs"]
    assert jobs["ci"]["uses"] == "$/.github/workflows/ci.yml"
    assert jobs["publish"]["needs"] == "ci"


def test_the_released_chart_names_the_released_images() -> None:
    values = yaml.safe_load((ROOT / "charts/workitem-operator/values.yaml").read_text())
    names = {values[name]["repository"] for name in ("image", "agentImage", "claudeImage")}
    script = (ROOT / "hack/release/images.sh").read_text()
    assert names == {f"ghcr.io/workitems-dev/workitem-{name}" for name in ("operator", "agent", "claude")}
    assert "for target in operator agent claude" in script
