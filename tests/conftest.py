"""Hypothesis profiles (a quick one for every run, a long one by HYPOTHESIS_PROFILE=long), and a real forge.

A test that asks for `gitea` is slow by that alone: make check neither builds nor starts a forge.
"""

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from hack.gitea import local

# A loaded machine is no finding, and neither is a slow first example: no deadline, no data of earlier runs.
settings.register_profile(
    "quick", max_examples=25, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "long", max_examples=1000, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


@pytest.fixture(scope="session")
def gitea(tmp_path_factory: pytest.TempPathFactory) -> Iterator[local.Server]:
    """A real Gitea on loopback, one for all tests of a process; each test makes users and repositories of its own."""
    with local.running(tmp_path_factory.mktemp("gitea")) as server:
        yield server


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs the forge as slow, before -m looks at it."""
    for item in items:
        if "gitea" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)
