"""The fixture `lab`: see lab.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.runner.lab import Lab, make_remote
from workitems.runner.places import Places


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    make_remote(tmp_path / "remote.git")
    places = Places(
        credentials=tmp_path / "credentials",
        ca_file=tmp_path / "ca.crt",
        volume=tmp_path / "workspace",
        allow_file=True,
    )
    return Lab(tmp_path, f"file://{tmp_path}/remote.git", places)
