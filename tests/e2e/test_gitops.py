"""What GitOps tools meet on a real API server: statuses that it stored and defaulted, and buttons that are answered."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable

import pytest

from tests.e2e.evidence import OPERATOR
from tests.e2e.lab import JSON, PATIENCE_SECONDS, PATIENTLY, Lab, condition, only
from tests.unit.test_gitops import action, argo

pytestmark = pytest.mark.e2e

BRIDGE = (f"--as={OPERATOR}", "--as-group=system:masters")
"""Who may say that somebody else has decided; Argo CD's account, where it is named in admission.bridges."""

KStatus = Callable[[Iterable[JSON]], list[str]]


@pytest.fixture(scope="module")
def prepared(shared_lab: Lab) -> Lab:
    """A repository, and a Pipeline without and with an approval."""
    shared_lab.repository()
    shared_lab.pipeline("plain", only("analysis"))
    shared_lab.pipeline("approval", only("analysis", gates=("analysis-approved",)))
    return shared_lab


def health(body: JSON) -> str:
    return str(argo("health.workitems.dev_WorkItem", body)["status"])


def press(lab: Lab, button: str, item: str) -> str:
    """What Argo CD does for a button; the Decision's name."""
    decision = action(button, lab.get("workitem", item))
    # It names no fieldValidation, and the API server then warns of an unknown field, drops it and goes on.
    lab.kubectl("create", "--validate=warn", "-f", "-", *BRIDGE, stdin=json.dumps(decision))
    return str(decision["metadata"]["name"])


def test_an_item_is_read_right_until_after_its_end(prepared: Lab, kstatus: KStatus) -> None:
    lab = prepared
    lab.item("over", pipeline="plain", suspend=True)
    lab.wait_phase("over", "Suspended")
    held = lab.get("workitem", "over")
    assert (kstatus([held]), health(held)) == (["InProgress"], "Suspended")
    assert held["status"]["observedGeneration"] == held["metadata"]["generation"]
    lab.suspend("over", value=False)
    lab.wait_phase("over", "Done")
    for number in range(2):
        body = lab.get("workitem", "over")
        assert (kstatus([body]), health(body)) == (["Current"], "Healthy")
        assert "observedGeneration" not in json.dumps({**body, "metadata": {}})
        lab.kubectl(
            "patch", "workitem", "over", "--type=merge", "-p", f'{{"spec": {{"description": "Typo {number}"}}}}'
        )
    assert lab.get("workitem", "over")["metadata"]["generation"] >= 4
    # kubectl takes a condition that names an older generation for none.
    lab.kubectl("wait", "--for=condition=Ready", PATIENTLY, "workitem/over")


def test_the_approve_button_is_answered(prepared: Lab) -> None:
    lab = prepared
    lab.wait_phase(lab.item("button-approve", pipeline="approval"), "InReview")
    status = lab.acknowledged(press(lab, "approve", "button-approve"))
    assert status["result"] == "Accepted", status
    status = lab.wait_phase("button-approve", "Done")
    assert status["decisions"][-1]["by"] == "argocd:button"


def test_the_retry_button_is_answered(prepared: Lab, kstatus: KStatus) -> None:
    lab = prepared
    lab.wait_phase(lab.item("button-retry", {"analysis": [{"exit": 1}, None]}, pipeline="plain"), "Blocked")
    body = lab.get("workitem", "button-retry")
    assert (kstatus([body]), health(body)) == (["Failed"], "Degraded")
    decision = press(lab, "retry", "button-retry")
    # Lua cannot write an empty object: the field that stands for it is pruned.
    assert lab.get("decision", decision)["spec"]["retry"] == {}
    assert lab.acknowledged(decision)["result"] == "Accepted"
    lab.wait_phase("button-retry", "Done")


def test_a_repository_is_read_right_whoever_manages_its_webhooks(prepared: Lab, kstatus: KStatus) -> None:
    lab = prepared
    spec = {"url": "https://git.example.com/shop/web.git", "worktree": {"emptyDir": {}}}
    whole: JSON = {"apiVersion": "workitems.dev/v1alpha1", "kind": "Repository", "metadata": {"name": "webhooks"}}
    token = {"secretName": "none", "key": "token"}
    forge = {"gitea": {"url": "https://git.example.com", "owner": "shop", "name": "web", "token": token}}
    for branch, manage in (("a", True), ("b", True), ("c", False), ("d", False)):
        webhooks = {"secretName": "none", "manage": manage}
        lab.apply({**whole, "spec": {**spec, "defaultBranch": branch, "forge": forge, "webhooks": webhooks}})
        generation = lab.get("repository", "webhooks")["metadata"]["generation"]

        def seen(body: JSON, generation: int = generation, manage: bool = manage) -> bool:
            status = body.get("status") or {}
            return status.get("observedGeneration") == generation if manage else "observedGeneration" not in status

        body = lab.watch("Repository", "webhooks", seen, "its webhook's outcome", PATIENCE_SECONDS)
        assert kstatus([body]) == ["Current"]
        if manage:
            assert condition(body["status"], "WebhookRegistered")["status"] == "False"
