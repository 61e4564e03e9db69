"""The main path on a real cluster: from `kubectl apply` to a branch that is ready."""

from __future__ import annotations

import json

import pytest
import yaml

from tests.e2e.lab import PATIENTLY, UNTIL_TOLD, Lab, only
from workitems.api import API_VERSION

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


def test_what_is_in_git_is_never_fought_over(lab: Lab) -> None:
    """Applied by a GitOps tool before and after the work: no difference, no conflict; its deletion is a plain one."""
    lab.repository()
    lab.pipeline(change=only("development"))
    spec = {"repository": "shop", "title": "In git", "description": "Do it."}
    item = {"apiVersion": API_VERSION, "kind": "WorkItem", "metadata": {"name": "in-git"}, "spec": spec}
    apply = ("apply", "--server-side", "--field-manager=gitops", "-f", "-")
    lab.kubectl(*apply, stdin=yaml.safe_dump(item))
    # With its last word: that it let go of its Jobs is written a moment after its end.
    lab.wait("in-git", lambda status: status.get("phase") == "Done" and "outbox" not in status, "its end")
    assert lab.kubectl("diff", *apply[1:], stdin=yaml.safe_dump(item)) == ""
    before = lab.get("workitem", "in-git")
    lab.kubectl(*apply, stdin=yaml.safe_dump(item))
    assert lab.get("workitem", "in-git") == before, "applying what is there writes nothing"
    raw = json.loads(lab.kubectl("get", "workitem", "in-git", "--show-managed-fields", "-o", "json"))["metadata"]
    owners = {(entry["manager"], entry.get("subresource")) for entry in raw["managedFields"]}
    assert ("gitops", None) in owners
    assert {part for manager, part in owners if manager != "gitops"} == {"status"}
    assert not {"annotations", "finalizers"} & raw.keys()
    lab.kubectl("delete", "workitem", "in-git", PATIENTLY)


def test_task_text_arrives_byte_for_byte(lab: Lab) -> None:
    git = lab.repository()
    lab.pipeline()
    hostile = 'It\'s "quoted" `$(reboot)` $(HOME) $$ ${PATH} \\n %s {item} <!-- -->\n\tтекст\n' + "Ж" * 30_000
    item = lab.item("bytes", {"keepPrompts": True}, description=hostile, title='Title with "quotes" and $(X)')
    lab.wait_phase(item, "InReview")

    text = git.show("workitem/bytes", "docs/work-items/bytes/prompt-analysis-1.md")
    assert hostile in text
    assert 'Title with "quotes" and $(X)' in text
    assert text.startswith("You are the analyst of work item bytes")


def test_two_items_on_two_branches_of_one_repository_never_see_each_others_files(lab: Lab) -> None:
    git = lab.repository()
    lab.pipeline()
    look = "find . -name 'only-*' -not -path './.git/*' | sort > {docs}/seen.txt"

    def script(name: str) -> dict[str, list[dict[str, object]]]:
        own = {"write": {"{docs}/11-architecture.md": "x\n", f"{{docs}}/only-{name}.txt": name}}
        see = look.replace("{docs}", f"docs/work-items/{name}")
        return {
            "architecture": [{**own, "sleep": 3}],
            "development": [{"write": {"src/feature.txt": name}, "run": see}],
        }

    for name in ("left", "right"):
        lab.item(name, script(name))
    for name in ("left", "right"):
        lab.approve(name)
    for name, other in (("left", "right"), ("right", "left")):
        lab.wait_phase(name, "Done")
        branch = f"workitem/{name}"
        assert git.show(branch, f"docs/work-items/{name}/seen.txt") == f"./docs/work-items/{name}/only-{name}.txt\n"
        assert not [path for path in git.files(branch) if other in path]


@pytest.mark.parametrize("mode", ["claim", "shared"])
def test_worktrees_on_volumes_keep_what_the_branch_has(lab: Lab, mode: str) -> None:
    request = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "64Mi"}}}
    if mode == "shared":
        metadata = {"name": "worktrees"}
        lab.apply({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": request})
    git = lab.repository(worktree={"claimName": "worktrees"} if mode == "shared" else {"volumeClaimTemplate": request})
    lab.pipeline()
    names = ["one", "two"] if mode == "shared" else ["one"]
    for name in names:
        # An ignored file is the volume's alone; what is committed is the branch's too.
        lab.item(name)
    for name in names:
        lab.approve(name)
    for name in names:
        lab.wait_phase(name, "Done")
        assert git.show(f"workitem/{name}", "src/feature.txt") == "a feature\n"
    claims = lab.kubectl("get", "pvc", "-o", "jsonpath={.items[*].metadata.name}").split()
    assert len(claims) == 1
    assert (claims == ["worktrees"]) == (mode == "shared")


@pytest.mark.alone
def test_a_sigkill_in_the_middle_of_a_stage_loses_and_doubles_nothing(lab: Lab) -> None:
    git = lab.repository()
    lab.pipeline()
    item = lab.item("killed", {"analysis": [{**_analysis(), "run": UNTIL_TOLD}]})
    status = lab.wait(item, lambda status: (status.get("run") or {}).get("state") == "Running", "a running run")
    lab.operator.restart()
    lab.tell(status["run"]["job"])
    lab.approve(item)
    lab.wait(item, lambda status: status.get("stage") not in ("analysis", "architecture"), "development")
    lab.operator.restart()
    status = lab.wait_phase(item, "Done")

    assert [run["number"] for run in status["runs"]] == [1, 2, 3, 4, 5, 6]
    assert {run["result"] for run in status["runs"]} == {"Succeeded"}
    jobs = lab.kubectl("get", "jobs", "-l", "workitems.dev/item=killed,!workitems.dev/gate", "-o", "name").split()
    assert len(jobs) == 6
    assert len(git.subjects("workitem/killed")) == 6
    assert len([push for push in git.pushes() if "workitem/killed" in push["ref"]]) == 6


def test_reject_sends_the_analysis_back_with_the_comment(lab: Lab) -> None:
    git = lab.repository()
    lab.pipeline()
    item = lab.item("rejected", {"keepPrompts": True})
    lab.wait_phase(item, "InReview")
    decision = lab.decide(item, comment="The refund case is missing.", reject={"gate": "analysis-approved"})
    lab.wait(
        item, lambda status: status["attempts"]["analysis"] == 2 and status["phase"] == "InReview", "InReview again"
    )

    prompt = git.show("workitem/rejected", "docs/work-items/rejected/prompt-analysis-2.md")
    assert "The refund case is missing." in prompt
    assert lab.acknowledged(decision)["result"] == "Accepted"


def test_an_older_commit_is_not_approved_and_the_decision_says_so(lab: Lab) -> None:
    lab.repository()
    lab.pipeline()
    item = lab.item("void")
    lab.wait_phase(item, "InReview")
    name = lab.decide(item, approve={"gate": "analysis-approved", "commit": "0" * 40})
    answered = lab.acknowledged(name)

    assert answered["result"] == "Void"
    assert lab.status(item)["head"] in answered["message"]
    assert lab.status(item)["phase"] == "InReview"


def test_suspend_starts_no_new_run_and_resume_goes_on(lab: Lab) -> None:
    lab.repository()
    lab.pipeline()
    item = lab.item("paused", suspend=True)
    lab.wait_phase(item, "Suspended")
    assert not lab.status(item).get("runs")
    lab.kubectl("patch", "workitem", item, "--type=merge", "-p", '{"spec": {"suspend": false}}')
    lab.wait_phase(item, "InReview")


def test_runs_queue_by_priority_and_say_behind_whom(lab: Lab) -> None:
    lab.repository()

    def one_at_a_time(spec: dict[str, object]) -> None:
        spec["limits"] = {"maxConcurrentRuns": 1, "maxRuns": 30, "maxInfraRetries": 3}

    lab.pipeline(change=one_at_a_time)
    script = {"analysis": [{**_analysis(), "sleep": 5}]}
    # Under way until both others are seen to wait for it.
    lab.item("first", {"analysis": [{**_analysis(), "run": UNTIL_TOLD}]})
    status = lab.wait("first", lambda status: status.get("run") is not None, "its run")
    lab.item("low", script)
    lab.wait_phase("low", "Queued")
    lab.item("high", script, priority=10)
    queued = lab.wait_phase("high", "Queued")
    assert "first" in next(c["message"] for c in queued["conditions"] if c["type"] == "Ready")
    lab.tell(status["run"]["job"])
    for name in ("first", "high", "low"):
        lab.wait_phase(name, "InReview")
    ended = {name: lab.status(name)["runs"][0]["startedAt"] for name in ("first", "high", "low")}
    assert ended["first"] < ended["high"] < ended["low"]


@pytest.mark.alone
def test_deletion_with_the_operator_away_cleans_jobs_pods_and_volume(lab: Lab) -> None:
    lab.repository(worktree={"volumeClaimTemplate": {"resources": {"requests": {"storage": "64Mi"}}}})
    lab.pipeline()
    item = lab.item("deleted", {"analysis": [{"sleep": 300}]})
    lab.wait(item, lambda status: (status.get("run") or {}).get("state") == "Running", "a running run")
    lab.operator.kill()
    try:
        lab.kubectl("delete", "workitem", item, "--cascade=foreground", PATIENTLY)
        for kind in ("job", "pod", "pvc", "controllerrevision"):
            lab.kubectl("wait", kind, "--all", "--for=delete", PATIENTLY)
            assert not lab.kubectl("get", kind, "-o", "name").strip()
    finally:
        lab.operator.start()


def test_the_columns_of_kubectl_get_tell_where_an_item_stands(lab: Lab) -> None:
    lab.repository()
    lab.pipeline()
    item = lab.item("columns", branch="feature/columns")
    lab.wait_phase(item, "InReview")
    header, row = lab.kubectl("get", "workitems", "-o", "wide").splitlines()
    assert header.split() == [
        "NAME",
        "STAGE",
        "PHASE",
        "REASON",
        "RUNS",
        "PR",
        "AGE",
        "AGENT",
        "BRANCH",
        "HEAD",
        "COST",
        "MESSAGE",
    ]
    assert row.split()[:5] == ["columns", "analysis", "InReview", "WaitingForApproval", "1"]
    assert "kubectl -n" in row


def test_logs_of_both_containers_stay_readable(lab: Lab) -> None:
    lab.repository()
    lab.pipeline()
    item = lab.item("logs", {"analysis": [{**_analysis(), "print": "hello from the agent"}]})
    job = lab.wait_phase(item, "InReview")["runs"][0]["job"]
    assert "hello from the agent" in lab.kubectl("logs", f"job/{job}", "-c", "agent")
    assert "push" in lab.kubectl("logs", f"job/{job}", "-c", "runner")


def _analysis() -> dict[str, dict[str, str]]:
    names = ("02-brd.md", "03-trz.md", "04-acceptance-criteria.md", "05-test-plan.md")
    return {"write": {f"{{docs}}/{name}": f"{name}\n" for name in names}}
