"""Whether what an item says of itself is true: told from the branch's trees and the forge, not from its own words."""

from __future__ import annotations

from tests.unit.core.world import DOCUMENTS, World, blob_of
from workitems.api import GateResult


def accepted_approvals(world: World) -> set[str]:
    """Commits of the Approves that counted, whether or not their authors were told."""
    counted = {d.uid for d in world.status.decisions if d.result == "Accepted"}
    said = [d for d in world.decisions.values() if "approve" in d["spec"] and d["metadata"]["uid"] in counted]
    return {d["spec"]["approve"]["commit"] for d in said}


def check_done(world: World, approved: set[str]) -> None:
    """Every gate holds for the head's own content: told from the tree, not from status."""
    status = world.status
    assert status.head is not None
    files = world.branch.trees[status.head]
    assert files[f"{DOCUMENTS}/plan.md"]
    assert "Verdict: APPROVED" in world.branch.trees[str(world.gate("reviewed").commit)][f"{DOCUMENTS}/12-review.md"]
    plan = blob_of(files[f"{DOCUMENTS}/plan.md"])
    plans = {blob_of(world.branch.trees[c][f"{DOCUMENTS}/plan.md"]) for c in approved if c in world.branch.trees}
    assert plan in plans, "nobody approved this plan"

    def code(commit: str) -> dict[str, str]:
        return {p: t for p, t in world.branch.trees[commit].items() if not p.startswith(f"{DOCUMENTS}/")}

    assert code(str(world.gate("tests").commit)) == code(status.head)
    assert code(str(world.gate("reviewed").commit)) == code(status.head)
    assert all(g.result in (GateResult.PASSED, GateResult.SKIPPED) for g in status.gates)


def check_may_merge(world: World, commit: str, base: str) -> None:
    """The forge is about to merge: everything that the Pipeline asks for holds for this very commit, now."""
    status = world.status
    assert base == status.base_branch == "main"
    assert commit == world.branch.head == status.head
    assert not world.item["spec"].get("suspend")
    assert status.hold is None
    assert status.run is None
    check_done(world, accepted_approvals(world))
    known = world.forge.statuses.get(commit)
    checks = list(known.values()) if known is not None else world.forge.reports(commit)
    gate = world.gate("checks")
    assert gate.commit == commit
    if gate.result is GateResult.PASSED:
        assert checks
    assert all(check.state == "success" for check in checks), "not green"
