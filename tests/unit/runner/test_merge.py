"""A run that begins with the base merged in: the agent resolves, both sides become parents, no marker is committed."""

from __future__ import annotations

from pathlib import Path

from tests.unit.runner.lab import Lab, git


def both_changed(lab: Lab, other: str = "") -> tuple[str, str]:
    """The branch and the base change the same line; the commits of both."""
    first = lab.run(lab.task(), "printf 'one\\nours\\n' > src/price.py; echo b > src/branch.py")
    desk = lab.root / "desk"
    git("clone", "--quiet", str(lab.remote), str(desk))
    git("checkout", "--quiet", "main", cwd=desk)
    (desk / "src" / "price.py").write_text("one\ntheirs\n")
    (desk / "src" / "base.py").write_text("base\n")
    if other:
        (desk / other).write_text("theirs\n")
    git("add", ".", cwd=desk)
    git("commit", "--quiet", "-m", "Prices in cents", cwd=desk)
    git("push", "--quiet", "origin", "main", cwd=desk)
    assert first.head is not None
    return first.head, git("rev-parse", "HEAD", cwd=desk)


def content(lab: Lab, head: str, path: str) -> str:
    return git("--git-dir", str(lab.remote), "show", f"{head}:{path}")


def parents(lab: Lab, head: str) -> list[str]:
    return git("--git-dir", str(lab.remote), "log", "-1", "--format=%P", head).split()


def test_the_agent_resolves_what_conflicts_and_the_merge_has_both_sides(lab: Lab, tmp_path: Path) -> None:
    branch, base = both_changed(lab)
    seen = tmp_path / "prompt"
    task = lab.task(run=2, expected_head=branch, merge_base=True)
    resolve = "grep -q '<<<<<<<' src/price.py && printf 'one\\nboth\\n' > src/price.py"
    report = lab.run(task, f"cat > {seen}; {resolve}")
    assert report.problem is None
    assert report.head is not None
    assert parents(lab, report.head) == [branch, base]
    assert content(lab, report.head, "src/price.py") == "one\nboth"
    assert {"src/base.py", "src/branch.py"} <= lab.files(report.head)
    told = seen.read_text()
    assert f"The newest main ({base}) has been merged into your working tree" in told
    assert "- src/price.py" in told
    assert "src/base.py" not in told


def test_markers_that_are_left_are_never_committed(lab: Lab) -> None:
    branch, _ = both_changed(lab)
    report = lab.run(lab.task(run=2, expected_head=branch, merge_base=True), "echo more > src/more.py")
    assert report.problem is not None
    assert report.problem.reason == "MergeUnresolved"
    assert "conflict markers are left in src/price.py" in report.problem.message
    assert (report.head, lab.head()) == (branch, branch)


def test_a_conflict_outside_commit_paths_is_said(lab: Lab) -> None:
    branch, _ = both_changed(lab)
    task = lab.task(run=2, expected_head=branch, merge_base=True, commit_paths=("docs/",))
    report = lab.run(task, "printf 'one\\nboth\\n' > src/price.py")
    assert report.problem is not None
    assert report.problem.reason == "MergeUnresolved"
    assert lab.head() == branch


def test_a_base_without_conflicts_is_merged_even_if_the_agent_changes_nothing(lab: Lab) -> None:
    first = lab.run(lab.task(), "echo b > src/branch.py")
    assert first.head is not None
    desk = lab.root / "desk"
    git("clone", "--quiet", str(lab.remote), str(desk))
    git("checkout", "--quiet", "main", cwd=desk)
    (desk / "src" / "base.py").write_text("base\n")
    git("add", ".", cwd=desk)
    git("commit", "--quiet", "-m", "More", cwd=desk)
    git("push", "--quiet", "origin", "main", cwd=desk)
    report = lab.run(lab.task(run=2, expected_head=first.head, merge_base=True))
    assert (report.problem, report.pushed) == (None, True)
    assert report.head is not None
    assert parents(lab, report.head) == [first.head, git("rev-parse", "HEAD", cwd=desk)]


def test_a_base_that_is_in_the_branch_already_is_not_merged_again(lab: Lab) -> None:
    first = lab.run(lab.task(), "echo b > src/branch.py")
    report = lab.run(lab.task(run=2, expected_head=first.head, merge_base=True))
    assert (report.committed, report.pushed, report.problem) == (False, False, None)


def test_a_merge_whose_report_was_lost_is_still_the_items_own(lab: Lab) -> None:
    branch, _ = both_changed(lab)
    merged = lab.run(lab.task(run=2, expected_head=branch, merge_base=True), "printf 'both\\n' > src/price.py")
    assert merged.problem is None
    again = lab.run(lab.task(run=3, expected_head=branch, merge_base=True), "echo 3 > src/three.py")
    assert again.problem is None
    assert again.head is not None
    assert parents(lab, again.head) == [merged.head]
