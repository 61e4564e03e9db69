"""What is built and published comes from where we say, by hash or digest, and the workflows that do it lint clean."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
SCRIPTS = sorted((ROOT / "hack" / "release").glob("*.sh"))
BIN = Path(sys.executable).parent


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, cwd=ROOT)


def test_the_workflows_are_what_github_reads() -> None:
    assert WORKFLOWS
    done = run(BIN / "check-jsonschema", "--builtin-schema", "vendor.github-workflows", *WORKFLOWS)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_updates_the_pins_is_configured_as_it_reads_it() -> None:
    done = run(BIN / "check-jsonschema", "--builtin-schema", "vendor.renovate", ROOT / ".github/renovate.json")
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
    fetched = set(re.findall(r"(?:--from|from)=([\w./:@-]+)", text))
    assert fetched <= stages, "one more image to pin and to trust"


@dataclass(frozen=True)
class Releasing:
    """A checkout, and what its release scripts ask docker, helm and cosign for."""

    checkout: Path
    programs: Path

    def answer(self, name: str, script: str) -> None:
        """A program that notes how it was called, and then does this."""
        program = self.programs / name
        program.write_text(f'#!/bin/sh\necho {name} "$@" >> {self.programs}/log\n{script}\n')
        program.chmod(0o755)

    def run(self, script: str) -> subprocess.CompletedProcess[str]:
        command = [str(self.checkout / "hack/release" / script), "ghcr.io/Some-Owner", "1.2.3"]
        path = {**os.environ, "PATH": f"{self.programs}:{os.environ['PATH']}"}
        return subprocess.run(command, capture_output=True, text=True, check=False, env=path)

    def asked(self) -> list[str]:
        log = self.programs / "log"
        return log.read_text().splitlines() if log.exists() else []


@pytest.fixture
def releasing(tmp_path: Path) -> Releasing:
    checkout, programs = tmp_path / "checkout", tmp_path / "bin"
    for folder in ("hack/release", "charts"):
        shutil.copytree(ROOT / folder, checkout / folder)
    shutil.copy(ROOT / "Dockerfile", checkout)
    programs.mkdir()
    found = Releasing(checkout, programs)
    found.answer("cosign", "")
    found.answer(
        "docker",
        """while [ $# -gt 1 ]; do
    if [ "$1" = --metadata-file ]; then echo '{"containerimage.digest": "sha256:pushed"}' > "$2"; fi
    shift
done""",
    )
    return found


NAME = "docker.io/library/python"
DIGEST = f"sha256:{'a' * 64}"


@pytest.mark.parametrize("base", ["", NAME, f"{NAME}:3.13", f"{NAME}@{DIGEST}", f"{NAME}:3.13@sha256:abc"])
def test_a_release_on_a_base_without_tag_and_digest_is_refused(releasing: Releasing, base: str) -> None:
    dockerfile = releasing.checkout / "Dockerfile"
    dockerfile.write_text(re.sub(r"(?m)^ARG BASE=.*$", f"ARG BASE={base}", dockerfile.read_text()))
    done = releasing.run("images.sh")
    assert done.returncode == 1
    assert "a release wants NAME:TAG@sha256:DIGEST" in done.stderr
    assert releasing.asked() == []


def test_a_release_builds_on_the_dockerfiles_base_and_signs_what_it_pushed(releasing: Releasing) -> None:
    done = releasing.run("images.sh")
    assert done.returncode == 0, done.stderr
    builds = [line for line in releasing.asked() if " build " in line]
    names = [f"ghcr.io/some-owner/workitem-{name}" for name in ("operator", "agent", "claude")]
    assert [re.findall(r"--tag (\S+)", line) for line in builds] == [[f"{name}:1.2.3"] for name in names]
    assert all("--platform linux/amd64,linux/arm64 " in line and "--sbom=true" in line for line in builds)
    assert not any("--build-arg" in line for line in builds)
    signed = [line for line in releasing.asked() if line.startswith("cosign")]
    assert signed == [f"cosign sign --yes {name}@sha256:pushed" for name in names]


def test_a_released_chart_names_the_owners_images_and_is_signed(releasing: Releasing) -> None:
    releasing.answer(
        "helm",
        f"""if [ "$1" = package ]; then cp "$2/values.yaml" {releasing.programs}/packaged.yaml; fi
if [ "$1" = push ]; then echo "Digest: sha256:pushed" >&2; fi""",
    )
    done = releasing.run("chart.sh")
    assert done.returncode == 0, done.stderr
    packaged = yaml.safe_load((releasing.programs / "packaged.yaml").read_text())
    names = [packaged[name]["repository"] for name in ("image", "agentImage", "claudeImage")]
    assert names == [f"ghcr.io/some-owner/workitem-{name}" for name in ("operator", "agent", "claude")]
    assert releasing.asked()[-1] == "cosign sign --yes ghcr.io/some-owner/charts/workitem-operator@sha256:pushed"


@pytest.mark.parametrize(
    ("push", "says"),
    [("echo denied: no packages for you >&2; exit 1", "denied"), ("echo Pushed to nowhere", "names no digest")],
)
def test_a_chart_that_could_not_be_pushed_says_why_and_nothing_is_signed(
    releasing: Releasing, push: str, says: str
) -> None:
    releasing.answer("helm", f'if [ "$1" = push ]; then {push}; fi')
    done = releasing.run("chart.sh")
    assert done.returncode == 1
    assert says in done.stderr
    assert not [line for line in releasing.asked() if line.startswith("cosign")]


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
