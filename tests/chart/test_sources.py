"""The chart and deploy/ hold copies of what is generated or written elsewhere; none has drifted."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic.alias_generators import to_camel

from hack.chart import sources
from hack.cluster import helm as programs
from workitems import __version__
from workitems.settings import Settings

GENERATED = sources.generated()


@pytest.mark.parametrize("path", GENERATED, ids=lambda path: str(path.relative_to(sources.ROOT)))
def test_a_copy_is_what_its_source_says(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == GENERATED[path], f"run `{sources.COMMAND}`"


def test_no_copy_is_left_over() -> None:
    found = {path for path in (sources.CHART / "files").rglob("*") if path.is_file()}
    generated = {path for path in GENERATED if path.is_relative_to(sources.CHART / "files")}
    assert found == {*generated, sources.CHART / "files" / "alerts.yaml"}


def test_the_charts_version_is_the_operators() -> None:
    chart = yaml.safe_load((sources.CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert chart["version"] == chart["appVersion"] == __version__


def test_every_setting_has_a_place_in_the_values() -> None:
    given = sources.values_schema()["properties"]["settings"]["properties"]
    assert given.keys() == {to_camel(name) for name in Settings.model_fields.keys() - sources.OWN_VALUES}
    assert {"sweepSeconds", "runUid", "logLevel"} <= given.keys()


@pytest.mark.parametrize(
    ("version", "flags"),
    [
        ("v3.17.0", ["--take-ownership"]),
        ("v4.3", ["--take-ownership", "--force-conflicts"]),
        ("v10.0.1", ["--take-ownership", "--force-conflicts"]),
    ],
)
def test_helm_is_given_the_flags_of_its_version(tmp_path: Path, version: str, flags: list[str]) -> None:
    program = tmp_path / "helm"
    program.write_text(f"#!/bin/sh\necho {version}\n")
    program.chmod(0o755)
    assert programs.taking_over(program) == flags
