"""helm, and the chart rendered with given values: no cluster is needed for either."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from hack.chart.plain import NAME, OLDEST
from hack.chart.sources import CHART
from hack.cluster import helm as programs
from hack.cluster import settings

JSON = dict[str, Any]
Render = Callable[..., list[JSON]]


@pytest.fixture(scope="session")
def helm() -> Path:
    """The helm on PATH, else one that is built from its Go module, once for this machine."""
    return programs.helm(settings.read().cache)


@pytest.fixture(scope="session")
def render(helm: Path) -> Render:
    """The chart's objects for these values, as release workitem-operator in a namespace of the same name."""

    def run(values: JSON | None = None, name: str = NAME, namespace: str = NAME) -> list[JSON]:
        command = [str(helm), "template", name, str(CHART), f"--namespace={namespace}", f"--kube-version={OLDEST}"]
        text = json.dumps(values or {})
        done = subprocess.run([*command, "--values=-"], input=text, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return [body for body in yaml.safe_load_all(done.stdout) if body]

    return run
