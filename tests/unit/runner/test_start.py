"""Where a run starts: the table in checkout.py, against a real remote that people push to."""

from __future__ import annotations

import dataclasses

import pytest

from tests.unit.runner.lab import BRANCH, UID, Lab, git
from workitems.protocol import RunKind, RunReport

pytestmark = pytest.mark.slow

TRAILERS = f"developer(et-12): run 1\n\nWorkItem: {UID}\nRun: 1\n"


def reason(report: RunReport) -> str | None:
    return report.problem.reason if report.problem else None


def test_a_branch_that_exists_is_not_taken_over(lab: Lab) -> None:
    theirs = lab.push(BRANCH)
    report = lab.run(lab.task(), "echo x > src/x")
    assert reason(report) == "BranchExists"
    assert report.problem is not None
    assert BRANCH in report.problem.message
    assert "adoptBranch" in report.problem.message
    assert not report.problem.retry
    assert lab.head() == theirs
    assert not report.agent_started
    assert lab.agent_exit == 0


def test_even_a_branch_without_commits_of_its_own_is_not_taken_over_by_a_first_run(lab: Lab) -> None:
    git("--git-dir", str(lab.remote), "branch", BRANCH, "main")
    assert reason(lab.run(lab.task())) == "BranchExists"


def test_a_branch_is_adopted_where_the_item_says_so(lab: Lab) -> None:
    theirs = lab.push(BRANCH, src__theirs="theirs")
    report = lab.run(lab.task(adopt_branch=True), "cat src/theirs > src/mine")
    assert report.problem is None
    assert report.base_commit == lab.head("main")
    assert lab.show(str(report.head), "src/mine") == "theirs"
    assert git("--git-dir", str(lab.remote), "rev-parse", f"{report.head}^") == theirs


def test_adopting_a_branch_that_does_not_exist_creates_it(lab: Lab) -> None:
    assert lab.run(lab.task(adopt_branch=True), "echo x > src/x").pushed


def test_a_missing_base_branch_is_named_with_the_repository(lab: Lab) -> None:
    report = lab.run(lab.task(base_branch="develop"))
    assert reason(report) == "BaseBranchNotFound"
    assert report.problem is not None
    assert "develop" in report.problem.message
    assert lab.url in report.problem.message


def test_an_empty_repository_has_no_base_branch(lab: Lab) -> None:
    git("init", "--quiet", "--bare", str(lab.root / "empty.git"))
    assert reason(lab.run(lab.task(url=f"file://{lab.root}/empty.git"))) == "BaseBranchNotFound"


def test_the_branch_begins_at_the_pinned_base_even_if_the_base_branch_has_moved(lab: Lab) -> None:
    base = lab.head("main")
    lab.push("main", src__later="later")
    report = lab.run(lab.task(base_commit=base), "echo x > src/x")
    assert report.base_commit == base
    assert "src/later" not in lab.files(str(report.head))


def test_a_base_commit_that_was_rewritten_away_is_still_fetched_if_the_remote_gives_it(lab: Lab) -> None:
    base = str(lab.head("main"))
    tree = git("--git-dir", str(lab.remote), "rev-parse", "main^{tree}")
    other = git("--git-dir", str(lab.remote), "commit-tree", "-m", "rewritten", tree)
    git("--git-dir", str(lab.remote), "update-ref", "refs/heads/main", other)
    git("--git-dir", str(lab.remote), "config", "uploadpack.allowAnySHA1InWant", "true")
    assert lab.run(lab.task(base_commit=base), "echo x > src/x").problem is None
    assert git("--git-dir", str(lab.remote), "merge-base", BRANCH, base) == base


def test_a_base_commit_that_is_gone_is_named(lab: Lab) -> None:
    report = lab.run(lab.task(base_commit="1" * 40))
    assert reason(report) == "BaseCommitNotFound"


def test_a_deleted_branch_is_a_problem_with_the_command_that_restores_it(lab: Lab) -> None:
    first = lab.run(lab.task(), "echo x > src/x")
    git("--git-dir", str(lab.remote), "branch", "-D", BRANCH)
    report = lab.run(lab.task(run=2, expected_head=first.head, base_commit=first.base_commit))
    assert reason(report) == "BranchNotFound"
    assert report.problem is not None
    assert f"git push {lab.url} {first.head}:refs/heads/{BRANCH}" in report.problem.message


def test_a_run_whose_report_was_lost_is_continued(lab: Lab) -> None:
    first = lab.run(lab.task(), "echo 1 > src/one")
    lost = lab.run(lab.task(run=2, expected_head=first.head, base_commit=first.base_commit), "echo 2 > src/two")
    again = lab.run(lab.task(run=3, expected_head=first.head, base_commit=first.base_commit), "ls src > src/seen")
    assert again.problem is None
    assert "two" in lab.show(str(again.head), "src/seen").split()
    assert git("--git-dir", str(lab.remote), "rev-parse", f"{again.head}^") == lost.head


@pytest.mark.parametrize("script", ["echo 1 > src/one", ":"])
def test_a_first_run_whose_report_was_lost_is_continued(lab: Lab, script: str) -> None:
    lost = lab.run(lab.task(), script)
    again = lab.run(lab.task(run=2), "echo 2 > src/two")
    assert again.problem is None
    assert git("--git-dir", str(lab.remote), "rev-parse", f"{again.head}^") == lost.head


def test_a_persons_push_stops_the_run_and_the_report_describes_the_new_head(lab: Lab) -> None:
    first = lab.run(lab.task(), "echo 1 > src/one")
    theirs = lab.push(BRANCH, docs__new_dot_md="Verdict: PASS\n")
    report = lab.run(
        lab.task(
            run=2,
            expected_head=first.head,
            base_commit=first.base_commit,
            watch=("docs/new.md",),
            verdicts=("docs/new.md",),
            excerpts=("docs/new.md",),
        ),
        "echo 2 > src/two",
    )
    assert reason(report) == "HeadMoved"
    assert report.problem is not None
    assert not report.problem.retry
    assert not report.agent_started
    assert report.head == theirs
    assert report.base_commit == first.base_commit
    assert report.blobs == (git("--git-dir", str(lab.remote), "rev-parse", f"{theirs}:docs/new.md"),)
    assert report.verdicts[0].values == ("PASS",)
    assert report.excerpts[0].text == "Verdict: PASS\n"
    assert (report.tree, report.code) != (None, None)


def test_a_persons_push_on_top_of_a_lost_run_is_a_persons_push(lab: Lab) -> None:
    first = lab.run(lab.task(), "echo 1 > src/one")
    lab.run(lab.task(run=2, expected_head=first.head, base_commit=first.base_commit), "echo 2 > src/two")
    lab.push(BRANCH)
    report = lab.run(lab.task(run=3, expected_head=first.head, base_commit=first.base_commit))
    assert reason(report) == "HeadMoved"


def test_a_rewritten_branch_is_a_persons_push_even_with_our_trailers(lab: Lab) -> None:
    first = lab.run(lab.task(), "echo 1 > src/one")
    theirs = lab.push(BRANCH, TRAILERS, base="origin/main")
    report = lab.run(lab.task(run=2, expected_head=first.head, base_commit=first.base_commit))
    assert (reason(report), report.head) == ("HeadMoved", theirs)


def test_another_items_trailers_are_not_ours(lab: Lab) -> None:
    first = lab.run(lab.task(), "echo 1 > src/one")
    lab.push(BRANCH, TRAILERS.replace(UID, "another"))
    assert reason(lab.run(lab.task(run=2, expected_head=first.head, base_commit=first.base_commit))) == "HeadMoved"


def test_a_look_reports_the_new_head_without_touching_the_tree(lab: Lab) -> None:
    first = lab.run(lab.task(), "echo 1 > src/one; echo left > left")
    theirs = lab.push(BRANCH)
    task = lab.task(kind=RunKind.LOOK, run=1, expected_head=first.head, watch=("person.txt",))
    report = lab.run(task)
    assert (report.head, report.problem, report.agent_started) == (theirs, None, False)
    assert report.blobs == (git("--git-dir", str(lab.remote), "rev-parse", f"{theirs}:person.txt"),)
    assert (lab.tree() / "left").exists()


def test_a_look_needs_no_branch_to_have_been_worked_on(lab: Lab) -> None:
    theirs = lab.push(BRANCH)
    assert lab.run(lab.task(kind=RunKind.LOOK)).head == theirs


def test_a_look_at_a_branch_that_is_gone_says_so(lab: Lab) -> None:
    report = lab.run(lab.task(kind=RunKind.LOOK, expected_head="1" * 40))
    assert (reason(report), report.head) == ("BranchNotFound", None)


def test_a_gate_gets_exactly_the_commit_even_if_the_branch_went_on(lab: Lab) -> None:
    first = lab.run(lab.task(), "echo 1 > src/one")
    lab.push(BRANCH)
    lab.places = dataclasses.replace(lab.places, volume=lab.root / "empty-dir")
    report = lab.run(lab.task(kind=RunKind.GATE, expected_head=first.head))
    assert (report.head, report.problem, lab.exit_code) == (first.head, None, 0)
    tree = lab.tree()
    assert (tree / "src/one").exists()
    assert not (tree / "person.txt").exists()
    assert git("rev-parse", "HEAD", cwd=tree) == first.head
    assert git("status", "--porcelain", cwd=tree) == ""


def test_before_a_gate_a_problem_keeps_the_command_from_running(lab: Lab) -> None:
    report = lab.run(lab.task(kind=RunKind.GATE, expected_head="1" * 40))
    assert reason(report) == "CommitNotFound"
    assert lab.exit_code == 1


def test_a_new_branch_below_an_old_items_branch_gets_its_place_in_the_cache(lab: Lab) -> None:
    lab.run(lab.task(branch="feature", item="et-1"), "echo x > src/x")
    git("--git-dir", str(lab.remote), "branch", "-D", "feature")
    assert lab.run(lab.task(branch="feature/x/y", item="et-2"), "echo x > src/x").pushed
    git("--git-dir", str(lab.remote), "branch", "-D", "feature/x/y")
    assert lab.run(lab.task(branch="feature/x", item="et-3"), "echo x > src/x").pushed
