"""What GitOps tools read in a WorkItem: right in every phase, and before the operator has seen it at all."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from lupa.lua51 import LuaRuntime

from workitems import crd
from workitems.api import GateResult, GateStatus, Phase, WorkItem, WorkItemStatus
from workitems.core import conditions

JSON = dict[str, Any]
GITOPS = Path(__file__).parents[2] / "docs/gitops"
NOW = datetime(2026, 11, 25, 12, 30, tzinfo=UTC)
HEAD = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
KSTATUS = {Phase.DONE: "Current", Phase.BLOCKED: "Failed", Phase.ABORTED: "Failed"}
ARGO = {
    Phase.DONE: "Healthy",
    Phase.BLOCKED: "Degraded",
    Phase.ABORTED: "Degraded",
    Phase.IN_REVIEW: "Suspended",
    Phase.NEEDS_INPUT: "Suspended",
    Phase.SUSPENDED: "Suspended",
}


def body(phase: Phase | None, generation: int = 1) -> dict[str, Any]:
    """A WorkItem as the API server shows it in this phase; None: nobody has seen it yet."""
    metadata = {"name": "et-1", "namespace": "team-a", "uid": "u", "generation": generation}
    whole = {"apiVersion": "workitems.dev/v1alpha1", "kind": "WorkItem", "metadata": metadata}
    if phase is None:
        return {**whole, "status": crd.schema(WorkItem)["properties"]["status"]["default"]}
    gate = GateStatus(
        name="analysis-approved",
        stage="analysis",
        result=GateResult.PENDING if phase is Phase.IN_REVIEW else GateResult.PASSED,
        reason="WaitingForApproval" if phase is Phase.IN_REVIEW else "Approved",
        since=NOW,
        checked_at=NOW,
    )
    status = WorkItemStatus(phase=phase, phase_since=NOW, head=HEAD, gates=(gate,))
    return {**whole, "status": conditions.apply(status, "Reason", "what is the matter", 1, NOW).to_json()}


def test_kstatus_reads_each_phase(kstatus: Callable[[Iterable[JSON]], list[str]]) -> None:
    """As the operator has seen it, and as it has not; what it really writes is read in tests/loop/test_gitops.py."""
    assert kstatus(body(phase) for phase in Phase) == [KSTATUS.get(phase, "InProgress") for phase in Phase]
    unseen = [KSTATUS[phase] if phase in conditions.FINISHED else "InProgress" for phase in Phase]
    assert kstatus(body(phase, 2) for phase in Phase) == unseen
    assert kstatus([body(None)]) == ["InProgress"]


@pytest.mark.parametrize("phase", [None, *Phase])
def test_argo_cd_waits_for_what_is_not_seen_and_for_nothing_that_is_over(phase: Phase | None) -> None:
    health = argo("health.workitems.dev_WorkItem", body(phase, 1 if phase is None else 2))
    assert health["status"] == (ARGO[phase] if phase in conditions.FINISHED else "Progressing")


def test_the_flux_example_waits_for_its_own_source_and_prunes() -> None:
    source, kustomization = yaml.safe_load_all((GITOPS / "flux.yaml").read_text())
    assert (source["kind"], kustomization["kind"]) == ("GitRepository", "Kustomization")
    named = {"kind": source["kind"], "name": source["metadata"]["name"]}
    assert kustomization["spec"]["sourceRef"] == named
    assert source["metadata"]["namespace"] == kustomization["metadata"]["namespace"]
    # Without `wait` Flux reads no status; with it, the default timeout is the interval: minutes, and people take days.
    assert (kustomization["spec"]["wait"], kustomization["spec"]["prune"]) == (True, True)
    assert kustomization["spec"]["timeout"].endswith("h")


# --- Argo CD


def customizations() -> dict[str, str]:
    data: dict[str, str] = yaml.safe_load((GITOPS / "argocd-cm.yaml").read_text())["data"]
    return data


def lua(script: str, obj: dict[str, Any]) -> Any:
    """Run a script as Argo CD does: Lua 5.1, the object as `obj`, a table as the answer."""
    runtime = LuaRuntime(unpack_returned_tuples=True)
    runtime.globals()["obj"] = _table(runtime, obj)
    return _plain(runtime.execute(script))


def _table(runtime: LuaRuntime, value: Any) -> Any:
    if isinstance(value, dict):
        # A null of JSON is no key of a Lua table.
        return runtime.table_from({key: _table(runtime, entry) for key, entry in value.items() if entry is not None})
    if isinstance(value, list):
        return runtime.table_from([_table(runtime, entry) for entry in value])
    return value


def _plain(value: Any) -> Any:
    if not hasattr(value, "items"):
        return value
    entries = {key: _plain(entry) for key, entry in value.items()}
    if entries and all(isinstance(key, int) for key in entries):
        return [entries[key] for key in sorted(entries)]
    return entries


def argo(customization: str, obj: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = lua(customizations()[f"resource.customizations.{customization}"], obj)
    return answer


def actions() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(customizations()["resource.customizations.actions.workitems.dev_WorkItem"])
    return found


def action(name: str, obj: dict[str, Any]) -> dict[str, Any]:
    script = next(entry["action.lua"] for entry in actions()["definitions"] if entry["name"] == name)
    (impacted,) = lua(script, obj)
    assert impacted["operation"] == "create"
    resource: dict[str, Any] = impacted["resource"]
    return resource


@pytest.mark.parametrize("phase", list(Phase))
def test_argo_cd_reads_each_phase_and_offers_what_fits(phase: Phase) -> None:
    health = argo("health.workitems.dev_WorkItem", body(phase))
    assert health == {"status": ARGO.get(phase, "Progressing"), "message": "what is the matter"}
    offered = {name: not entry["disabled"] for name, entry in lua(actions()["discovery.lua"], body(phase)).items()}
    assert offered == {"approve": phase is Phase.IN_REVIEW, "retry": phase is Phase.BLOCKED}


def test_argo_cd_offers_nothing_on_an_item_that_nobody_has_seen() -> None:
    offered = lua(actions()["discovery.lua"], body(None))
    assert all(entry["disabled"] for entry in offered.values())


def test_approve_is_a_decision_about_the_head_and_pressed_twice_the_same() -> None:
    decision = action("approve", body(Phase.IN_REVIEW))
    assert decision["metadata"] == {"namespace": "team-a", "name": "et-1-approve-analysis-approved-4b825dc642cb"}
    assert decision["spec"]["approve"] == {"gate": "analysis-approved", "commit": HEAD}
    assert (decision["kind"], decision["spec"]["workItem"], decision["spec"]["by"]) == (
        "Decision",
        "et-1",
        "argocd:button",
    )
    assert action("approve", body(Phase.IN_REVIEW)) == decision


def test_retry_is_one_decision_for_each_time_it_was_blocked() -> None:
    decision = action("retry", body(Phase.BLOCKED))
    assert decision["metadata"]["name"] == "et-1-retry-20261125t123000z"
    assert decision["spec"] == {"workItem": "et-1", "by": "argocd:button", "retry": {"button": "retry"}}


@pytest.mark.parametrize(
    ("result", "health"),
    [(None, "Progressing"), ("Accepted", "Healthy"), ("Void", "Degraded"), ("Ignored", "Degraded")],
)
def test_argo_cd_reads_a_decision(result: str | None, health: str) -> None:
    status = {} if result is None else {"result": result, "message": "why"}
    assert argo("health.workitems.dev_Decision", {"status": status})["status"] == health
