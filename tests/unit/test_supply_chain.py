"""What is built and published comes from where we say, by hash or digest, and the workflows that do it lint clean."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
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


def test_an_auditor_of_workflows_finds_nothing() -> None:
    done = run(BIN / "zizmor", "--offline", "--persona=pedantic", "--no-progress", *WORKFLOWS)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: str(path.name))
def test_actions_are_named_by_commit_and_say_their_version(workflow: Path) -> None:
    uses = re.findall(r"uses: (.*)", workflow.read_text())
    assert uses
    for each in uses:
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v[\d.]+", each), each


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


def test_the_released_chart_names_the_released_images() -> None:
    values = yaml.safe_load((ROOT / "charts/workitem-operator/values.yaml").read_text())
    names = {values[name]["repository"] for name in ("image", "agentImage", "claudeImage")}
    script = (ROOT / "hack/release/images.sh").read_text()
    assert names == {f"ghcr.io/workitems-dev/workitem-{name}" for name in ("operator", "agent", "claude")}
    assert "for target in operator agent claude" in script
