"""The main path on a real cluster: from `kubectl apply` to a branch that is ready."""

from __future__ import annotations

import pytest

from tests.e2e.lab import Lab

pytestmark = pytest.mark.e2e

STAGES = ["analysis", "architecture", "development", "review", "testing", "deploy"]


def test_an_item_goes_through_all_six_stages_of_the_default_pipeline(lab: Lab) -> None:
    git = lab.repository()
    lab.pipeline()
    item = lab.item("et-1", branch="feature/et-1-discounts")
    lab.approve(item)
    status = lab.wait_phase(item, "Done")

    assert status["stage"] == "done"
    assert [(run["stage"], run["result"], run["attempt"]) for run in status["runs"]] == [
        (stage, "Succeeded", 1) for stage in STAGES
    ]
    gates = {gate["name"]: (gate["result"], gate["reason"]) for gate in status["gates"]}
    assert gates == {
        "analysis-complete": ("Passed", "FilesPresent"),
        "analysis-approved": ("Passed", "Approved"),
        "architecture-done": ("Passed", "FilesPresent"),
        "ci-green": ("Skipped", "NoForge"),
        "tests-local": ("Passed", "CommandSucceeded"),
        "review-approved": ("Passed", "Approved"),
        "tests-passed": ("Passed", "Pass"),
    }
    assert git("rev-parse", "feature/et-1-discounts").strip() == status["head"]
    agents = ["analyst", "architect", "developer", "reviewer", "tester", "deployer"]
    assert git.subjects("feature/et-1-discounts") == [f"{a}(et-1): run {n}" for n, a in enumerate(agents, 1)]
    assert git.show("feature/et-1-discounts", "src/feature.txt") == "a feature\n"
    conditions = {c["type"]: (c["status"], c["reason"]) for c in status["conditions"]}
    assert conditions["Ready"] == ("True", "Done")
    assert conditions["Succeeded"] == ("True", "Done")
