"""Hypothesis profiles (quick in every run, HYPOTHESIS_PROFILE=long in make soak), a real forge, and kstatus.

A test that asks for one of the two is slow by that alone: make check neither builds nor starts them.
"""

import json
import os
import subprocess
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from hack.cluster import binaries
from hack.cluster import settings as cluster_settings
from hack.gitea import local

# A loaded machine is no finding, and neither is a slow first example: no deadline, no data of earlier runs.
# What passed passes again: a change is judged by the same examples as main was. New ones are looked for by `make soak`.
COMMON = settings(deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("quick", COMMON, max_examples=25, derandomize=True)
settings.register_profile("long", COMMON, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


@pytest.fixture(scope="session")
def gitea(tmp_path_factory: pytest.TempPathFactory) -> Iterator[local.Server]:
    """A real Gitea on loopback, one for all tests of a process; each test makes users and repositories of its own."""
    with local.running(tmp_path_factory.mktemp("gitea")) as server:
        yield server


@pytest.fixture(scope="session")
def kstatus() -> Callable[[Iterable[dict[str, Any]]], list[str]]:
    """How the reference logic of Flux reads objects: Current, InProgress, Failed, Terminating."""
    program = binaries.build(binaries.KSTATUS, cluster_settings.read().cache) / "kstatus"

    def read(objects: Iterable[dict[str, Any]]) -> list[str]:
        text = "\n".join(map(json.dumps, objects))
        done = subprocess.run([program], input=text, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    return read


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs the forge or kstatus as slow, before -m looks at it."""
    for item in items:
        if {"gitea", "kstatus"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)
