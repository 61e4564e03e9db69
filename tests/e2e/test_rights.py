"""The operator has exactly the rights that it uses: the chart's rules beside the API server's audit log.

The log says what the end-to-end tests have made the operator do, so this comes after them: in `make test` it is the
last. On its own, after a part of them, it names rights that the others use.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hack.chart import plain
from hack.chart.sources import CHART
from hack.cluster import helm as programs
from hack.cluster import settings, shell
from hack.cluster.local import LocalCluster
from hack.cluster.model import Cluster

pytestmark = [pytest.mark.e2e, pytest.mark.alone]

JSON = dict[str, Any]
Right = tuple[str, str, str]
"""API group, resource with its subresource, verb."""

OPERATOR = re.compile(r"system:serviceaccount:[^:]+:(release-)?workitem-operator")
OTHER_PROGRAMS = ("kubectl", "curl", "Python-urllib")
"""Tests that try what the operator's account may do, by hand."""
UNSEEN: dict[Right, str] = {
    ("workitems.dev", "pipelines", "create"): "an apply that creates is logged as patch, and authorised as both",
    ("workitems.dev", "repositories/status", "update"): "needs a forge: tests/loop/test_registration.py",
}


def granted() -> set[Right]:
    """Every right of the operator, of one that stands by and receives webhooks too."""
    helm = programs.helm(settings.read().cache)
    command = [str(helm), "template", plain.NAME, str(CHART), "--set=replicas=2,webhooks.enabled=true"]
    objects = list(yaml.safe_load_all(shell.run([*command, f"--kube-version={plain.OLDEST}"])))
    people = ("viewer", "author", "approver")
    roles = [body for body in objects if body and body["kind"] in ("ClusterRole", "Role")]
    rules = [rule for role in roles if not role["metadata"]["name"].endswith(people) for rule in role["rules"]]
    return {
        (group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def requests(log: Path) -> Iterator[JSON]:
    """What operators asked the API server for, the rotated logs included; no others' requests."""
    for path in sorted(log.parent.glob(f"{log.stem}*{log.suffix}")):
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if ":workitem-operator" not in line and "release-workitem-operator" not in line:
                    continue
                try:
                    event = json.loads(line)
                except ValueError:
                    continue  # the line that is being written
                agent = str(event.get("userAgent", ""))
                if OPERATOR.fullmatch(event["user"]["username"]) and not agent.startswith(OTHER_PROGRAMS):
                    yield event


def right(event: JSON) -> Right | None:
    where = event.get("objectRef") or {}
    if "resource" not in where:
        return None  # discovery, which everybody may
    resource = "/".join(part for part in (where["resource"], where.get("subresource")) if part)
    return where.get("apiGroup", ""), resource, event["verb"]


@pytest.fixture(scope="module")
def events(cluster: Cluster) -> list[JSON]:
    if not isinstance(cluster, LocalCluster):
        pytest.skip("only the local cluster has an audit log that can be read here")
    found = list(requests(cluster.settings.state / "log" / "audit.log"))
    assert len(found) > 100, "the operator has hardly asked for anything: does the API server write its audit log?"
    return found


def test_the_operator_was_never_refused_for_lack_of_a_right(events: list[JSON]) -> None:
    refused = {
        (right(event), event["responseStatus"].get("message", ""))
        for event in events
        if event["responseStatus"].get("code") == 403 and right(event) not in granted()
    }
    assert refused == set()


def test_the_operator_has_no_right_that_it_never_uses(events: list[JSON]) -> None:
    used = {right(event) for event in events if event["responseStatus"].get("code", 500) < 400}
    unused = granted() - used - UNSEEN.keys()
    assert unused == set(), "either nothing tests it, or charts/workitem-operator/templates/_rules.tpl grants too much"
    assert not UNSEEN.keys() & used, "no longer unseen"
