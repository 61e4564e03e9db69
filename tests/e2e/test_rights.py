"""The operator has exactly the rights that it uses: the chart's rules beside the API server's audit log.

The log says what the end-to-end tests have made the operator do, so this comes after them: in `make test` it is the
last. On its own, after a part of them, it names rights that the others use. A cluster stands for weeks: only what was
asked for since the code is what it is counts, because an older operator may have used a right that this one does not.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import subprocess
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from hack.chart import plain
from hack.chart.sources import CHART
from hack.cluster import helm as programs
from hack.cluster import settings, shell
from hack.cluster.local import LocalCluster
from hack.cluster.model import Cluster
from tests.e2e import session
from tests.e2e.lab import until

pytestmark = [pytest.mark.e2e, pytest.mark.alone]

JSON = dict[str, Any]


class Right(NamedTuple):
    """What may be done, and where."""

    group: str
    resource: str
    """With its subresource."""
    verb: str
    own: bool = False
    """In the operator's own namespace, by the Role there; else wherever items are."""


CODE = [*(session.ROOT / "operator" / "workitems").rglob("*.py"), CHART / "templates" / "_rules.tpl"]

OPERATOR = re.compile(r"system:serviceaccount:[^:]+:(release-)?workitem-operator")
OTHER_PROGRAMS = ("kubectl", "curl", "Python-urllib")
"""Tests that try what the operator's account may do, by hand."""
UNSEEN = {
    Right(
        "workitems.dev", "pipelines", "create", own=True
    ): "an apply that creates is logged as patch, and authorised as both",
}


def rendered(values: str, namespace: str = plain.NAME) -> list[JSON]:
    """The chart's objects with these values."""
    helm = programs.helm(settings.read().cache)
    command = [str(helm), "template", plain.NAME, str(CHART), f"--namespace={namespace}", f"--set={values}"]
    text = shell.run([*command, f"--kube-version={plain.OLDEST}"])
    return [body for body in yaml.safe_load_all(text) if body]


def granted() -> set[Right]:
    """Every right of the operator, of one that stands by and receives webhooks too."""
    people = ("viewer", "author", "approver")
    roles = [body for body in rendered("replicas=2,webhooks.enabled=true") if body["kind"] in ("ClusterRole", "Role")]
    return {
        Right(group, resource, verb, own=role["kind"] == "Role")
        for role in roles
        if not role["metadata"]["name"].endswith(people)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def requests(log: Path) -> Iterator[JSON]:
    """What operators of this code asked the API server for, the rotated logs included; no others' requests."""
    since = datetime.fromtimestamp(max(path.stat().st_mtime for path in CODE), UTC)
    paths = sorted(log.parent.glob(f"{log.stem}*{log.suffix}"))
    with contextlib.ExitStack() as stack:
        # All of them before any is read, which takes its time: a log that is rotated meanwhile would be missed.
        files = [stack.enter_context(path.open(encoding="utf-8", errors="replace")) for path in paths]
        for line in itertools.chain.from_iterable(files):
            if ":workitem-operator" not in line and "release-workitem-operator" not in line:
                continue
            try:
                event = json.loads(line)
            except ValueError:
                continue  # the line that is being written
            agent = str(event.get("userAgent", ""))
            if datetime.fromisoformat(event["requestReceivedTimestamp"]) < since:
                continue
            if OPERATOR.fullmatch(event["user"].get("username", "")) and not agent.startswith(OTHER_PROGRAMS):
                yield event


def rights(event: JSON) -> set[Right]:
    """Those by which it may have been granted, or refused for the lack of all of them."""
    where = event.get("objectRef") or {}
    if "resource" not in where:
        return set()  # discovery, which everybody may
    resource = "/".join(part for part in (where["resource"], where.get("subresource")) if part)
    anywhere = Right(where.get("apiGroup", ""), resource, event["verb"])
    own = event["user"]["username"].split(":")[2] == where.get("namespace")
    return {anywhere, anywhere._replace(own=True)} if own else {anywhere}


@pytest.fixture(scope="module")
def events(cluster: Cluster) -> list[JSON]:
    if not isinstance(cluster, LocalCluster):
        pytest.skip("only the local cluster has an audit log that can be read here")
    found = list(requests(cluster.settings.state / "log" / "audit.log"))
    assert len(found) > 100, "the operator has hardly asked for anything: does the API server write its audit log?"
    return found


def test_the_operator_was_never_refused_for_lack_of_a_right(events: list[JSON]) -> None:
    has = granted()
    refused = {
        (*rights(event), event["responseStatus"].get("message", ""))
        for event in events
        # What it has the right to is refused for other reasons: a quota, a policy, a namespace that goes.
        if event["responseStatus"].get("code") == 403 and not rights(event) & has
    }
    assert refused == set()


def test_the_operator_has_no_right_that_it_never_uses(events: list[JSON]) -> None:
    carried_out = [event for event in events if event["responseStatus"].get("code", 500) < 400]
    used = {right for event in carried_out for right in rights(event)}
    unused = granted() - used - UNSEEN.keys()
    assert unused == set(), "either nothing tests it, or charts/workitem-operator/templates/_rules.tpl grants too much"
    assert not UNSEEN.keys() & used, "no longer unseen"


def test_secrets_that_are_not_named_cannot_be_read(cluster: Cluster) -> None:
    """`rbac.secretNames`, as the API server's own authorizer understands it; with a namespace given, and without."""
    namespace = f"wi-secrets-{uuid.uuid4().hex[:6]}"
    session.apply(cluster, session.namespace(namespace))
    # In a namespace of its own, so that nothing of it meets the rights of the tests' operator.
    objects = rendered(f"rbac.secretNames={{shop-git}},watchNamespaces={{{namespace}}}", namespace)
    session.apply(cluster, *(body for body in objects if body["kind"] in ("ServiceAccount", "Role", "RoleBinding")))
    account = f"--as=system:serviceaccount:{namespace}:{plain.NAME}"

    def asked(*words: str) -> str:
        command = [*cluster.kubectl, "-n", namespace, account, *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    # The API server's authorizer hears of new rights a moment later.
    until(lambda: 'secrets "shop-git" not found' in asked("get", "secret", "shop-git"), "allowed what is named")
    # The words that `cluster.answers` reads as a right that is lacking.
    assert 'cannot get resource "secrets"' in asked("get", "secret", "other-git")
    assert 'cannot list resource "secrets"' in asked("get", "secrets")
    session.kubectl(cluster, "delete", "namespace", namespace, "--wait=false")
