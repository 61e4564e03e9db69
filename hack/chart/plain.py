"""Plain manifests, for those who use kustomize: the chart rendered with its defaults, without helm's own marks."""

from __future__ import annotations

import re
from pathlib import Path

from hack.chart.sources import CHART, DEPLOY
from hack.cluster import shell

NAME = "workitem-operator"
OLDEST = "1.32"
"""The oldest Kubernetes that the chart admits."""
_HEADER = "# Rendered from charts/workitem-operator by `make manifests`: edit the chart, then run it again.\n"
_MARKS = re.compile(r"^ +(helm\.sh/chart: .*|app\.kubernetes\.io/managed-by: Helm)\n", re.MULTILINE)


def rendered(helm: Path) -> str:
    """The text of deploy/operator.yaml. Raises ClusterError with helm's words."""
    command = [
        str(helm),
        "template",
        NAME,
        str(CHART),
        f"--namespace={NAME}",
        "--skip-tests",
        f"--kube-version={OLDEST}",
    ]
    text = _MARKS.sub("", shell.run([*command, "--set=crds.install=false"]))
    documents = re.split(r"^---\n# Source: .*\n", text, flags=re.MULTILINE)
    return _HEADER + "---\n".join(f"{document.strip()}\n" for document in documents if document.strip())


def write(helm: Path) -> None:
    """Write deploy/operator.yaml. Raises ClusterError, OSError."""
    (DEPLOY / "operator.yaml").write_text(rendered(helm), encoding="utf-8")
