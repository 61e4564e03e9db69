"""Trees that an agent has prepared against whoever publishes them. None may run, hide, leak or block anything."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.unit.runner.lab import BRANCH, Lab, git
from workitems.protocol import RunReport
from workitems.runner import tree
from workitems.runner.commit import stays_inside

pytestmark = pytest.mark.slow


def modes(lab: Lab, commit: str | None) -> dict[str, str]:
    listing = git("--git-dir", str(lab.remote), "ls-tree", "-rz", str(commit))
    return {line.split("\t")[1]: line[:6] for line in listing.split("\0") if line}


@pytest.mark.parametrize(
    "script",
    [
        "rm .git",
        "echo 'gitdir: /nonexistent' > .git",
        "rm .git; ln -s /etc .git",
        "rm .git; mkfifo .git",
        "rm .git; git init -q .; git config core.hooksPath hooks; git config core.fsmonitor 'touch $LAB/pwned'",
        'mkdir -p $LAB/evil && git init -q --bare $LAB/evil/git && echo "gitdir: $LAB/evil/git" > .git',
    ],
)
def test_the_trees_own_git_file_is_never_followed_and_the_next_run_has_a_good_one(lab: Lab, script: str) -> None:
    first = lab.run(lab.task(commit_paths=("/",)), f"{script}; echo 1 > src/one")
    assert (first.problem, first.pushed) == (None, True)
    assert not [path for path in lab.files(str(first.head)) if ".git/" in path or path == ".git"]
    second = lab.run(
        lab.task(run=2, expected_head=first.head, base_commit=first.base_commit), "git rev-parse HEAD > src/head"
    )
    assert lab.show(str(second.head), "src/head") == first.head
    assert not list(lab.root.rglob("pwned"))


def test_an_agent_cannot_move_the_index_or_head_by_a_repository_of_its_own(lab: Lab) -> None:
    script = (
        "rm .git; git init -q .; git add -A; git commit -qm mine; git update-index --assume-unchanged src/app.py;"
        "echo changed > src/app.py"
    )
    report = lab.run(lab.task(), script)
    assert report.problem is None
    assert lab.show(str(report.head), "src/app.py") == "changed"


def test_a_nested_repository_becomes_no_gitlink_and_is_reported(lab: Lab) -> None:
    script = (
        "git init -q src/nested; echo x > src/nested/file; (cd src/nested; git add -A; git commit -qm x);"
        "git init -q docs/empty; mkdir -p docs/broken/.git; echo x > docs/broken/kept; echo y > src/ok"
    )
    report = lab.run(lab.task(), script)
    assert report.problem is None
    found = modes(lab, report.head)
    assert "160000" not in found.values()
    assert {"src/ok", "docs/broken/kept"} <= set(found)
    assert not [path for path in found if path.startswith(("src/nested", "docs/empty"))]
    assert {"src/nested/", "docs/empty/", "docs/broken/.git"} <= set(report.left_out)
    # And the next run does not see it any more.
    second = lab.run(
        lab.task(run=2, expected_head=report.head, base_commit=report.base_commit), "find src docs | sort > src/list"
    )
    assert "nested" not in lab.show(str(second.head), "src/list")


def test_a_git_folder_beside_tracked_files_hides_none_of_their_changes(lab: Lab) -> None:
    report = lab.run(lab.task(), "git init -q src; echo changed > src/app.py; echo new > src/new.py")
    assert lab.show(str(report.head), "src/app.py") == "changed"
    assert "src/.git" in report.left_out
    assert "src/new.py" in {*lab.files(str(report.head)), *report.left_out}
    assert "160000" not in modes(lab, report.head).values()


def test_a_folder_replaced_by_a_symlink_to_outside_is_not_committed_and_not_followed(lab: Lab) -> None:
    report = lab.run(lab.task(), "rm -r docs; ln -s /etc docs; echo ok > src/ok")
    assert report.problem is None
    assert report.left_out == ("docs",)
    files = lab.files(str(report.head))
    assert not [path for path in files if path.startswith("docs")]
    assert "src/ok" in files
    second = lab.run(
        lab.task(run=2, expected_head=report.head, base_commit=report.base_commit, task_file="docs/.task.md"),
        "cat $LAB/x",
    )
    assert second.problem is None
    assert not Path("/etc/.task.md").exists()


@pytest.mark.parametrize(
    ("target", "depth", "inside"),
    [
        (b"app.py", 1, True),
        (b"../docs/index.md", 1, True),
        (b"./a/./b", 0, True),
        (b"/etc/passwd", 1, False),
        (b"../../etc", 1, False),
        (b"..", 0, False),
        (b"..", 1, True),
        (b"link/../..", 1, False),
        (b"../.git/config", 1, False),
        (b".GIT", 0, False),
        (b"", 0, False),
    ],
)
def test_symlinks_stay_inside_by_their_text(target: bytes, depth: int, inside: bool) -> None:
    assert stays_inside(target, depth) is inside


def test_symlinks_inside_the_tree_are_committed_as_symlinks_and_others_left_out(lab: Lab) -> None:
    report = lab.run(
        lab.task(watch=("src/in", "src/app.py")),
        "ln -s ../docs/index.md src/in; ln -s /etc/passwd src/out; ln -s ../../../x src/up; rm src/app.py;"
        "ln -s /etc/shadow src/app.py",
    )
    found = modes(lab, report.head)
    assert found["src/in"] == "120000"
    assert {"src/out", "src/up"}.isdisjoint(found)
    # The branch keeps the file that the agent wanted to turn into a way out.
    assert found["src/app.py"] == "100644"
    assert report.blobs[0] is None
    assert set(report.left_out) == {"src/out", "src/up", "src/app.py"}


def test_an_outcome_file_that_became_a_symlink_does_not_bring_the_old_verdict_back(lab: Lab) -> None:
    lab.push("main", docs__verdict_dot_md="Verdict: APPROVED\n")
    report = lab.run(
        lab.task(remove=("docs/verdict.md",), watch=("docs/verdict.md",), verdicts=("docs/verdict.md",)),
        "ln -s /etc/passwd docs/verdict.md",
    )
    assert (report.blobs, report.verdicts) == ((None,), ())


def test_filters_attributes_and_hooks_of_the_tree_run_nothing(lab: Lab) -> None:
    attributes = "* filter=evil diff=evil merge=evil ident text eol=crlf working-tree-encoding=UTF-16"
    script = f"""
    printf '%s\\n' '{attributes}' > .gitattributes
    cp .gitattributes src/; cp .gitattributes docs/
    mkdir -p hooks .git-hooks
    for hook in pre-commit commit-msg pre-push post-checkout post-index-change reference-transaction; do
      printf '#!/bin/sh\\ntouch $LAB/pwned\\n' > hooks/$hook; chmod +x hooks/$hook
    done
    printf '[filter "evil"]\\nclean = touch %s/pwned\\nsmudge = touch %s/pwned\\n' $LAB $LAB > .gitconfig
    printf '[core]\\nhooksPath = hooks\\nfsmonitor = touch %s/pwned\\n' $LAB >> .gitconfig
    cp .gitconfig $HOME/.gitconfig 2>/dev/null
    printf 'crlf\\r\\n$Id$\\n' > src/crlf
    """
    report = lab.run(lab.task(commit_paths=("/",)), script)
    assert report.problem is None
    raw = subprocess.run(
        ["git", "--git-dir", str(lab.remote), "cat-file", "blob", f"{report.head}:src/crlf"],
        capture_output=True,
        check=True,
    ).stdout
    assert raw == b"crlf\r\n$Id$\n"
    second = lab.run(
        lab.task(run=2, expected_head=report.head, base_commit=report.base_commit), "od -c src/crlf > src/seen"
    )
    assert second.problem is None
    assert "\\r" in lab.show(str(second.head), "src/seen")
    assert second.left_out == ()
    assert not list(lab.root.rglob("pwned"))


def test_a_filter_would_run_if_it_were_configured_so_the_test_above_can_fail(lab: Lab) -> None:
    lab.run(lab.task())
    desk = lab.root / "proof"
    git("clone", "--quiet", str(lab.remote), str(desk))
    git("config", "filter.evil.clean", f"touch {lab.root}/pwned", cwd=desk)
    (desk / ".gitattributes").write_text("* filter=evil\n")
    git("add", ".", cwd=desk)
    assert (lab.root / "pwned").exists()


def test_strange_names_are_committed_as_they_are(lab: Lab) -> None:
    names = ["new\nline", "-leading", "--all", ":(top)x", "*", "юникод ё", "\\back", '"quote"', " space ", "tab\there"]
    script = "; ".join(f"printf x > src/'{name}'" for name in names)
    report = lab.run(lab.task(), script)
    assert {f"src/{name}" for name in names} <= lab.files(str(report.head))
    assert report.left_out == ()


def test_names_that_are_no_text_or_forbidden_are_committed_or_reported_without_harm(lab: Lab) -> None:
    def write() -> None:
        folder = os.fsencode(lab.tree()) + b"/src/"
        for name in (b"\xff\xfe", b"git~1", b".GIT"):
            Path(os.fsdecode(folder + name)).write_bytes(b"x")
        Path(os.fsdecode(os.fsencode(lab.tree()) + b"/left\xff\x1b[31m")).write_bytes(b"x")

    report = lab.run(lab.task(), "echo ok > src/ok", during=write)
    assert report.problem is None
    assert "src/ok" in lab.files(str(report.head))
    raw = lab.places.report.read_text()
    assert "\\ud" not in raw
    assert "\x1b" not in raw
    assert any(name.startswith("left") for name in report.left_out)
    assert {"src/git~1", "src/.GIT"} <= set(report.left_out)


def test_pipes_sockets_and_swollen_git_files_neither_block_nor_get_in(lab: Lab) -> None:
    script = (
        "mkfifo src/pipe src/.gitignore docs/.gitattributes; truncate -s 3G tests/.gitignore;"
        "truncate -s 200M src/huge; echo ok > src/ok"
    )
    report = lab.run(lab.task(), script)
    assert report.problem is None
    assert "src/ok" in lab.files(str(report.head))
    left = {"src/pipe", "src/.gitignore", "docs/.gitattributes", "tests/.gitignore", "src/huge"}
    assert left <= set(report.left_out)


def test_locked_folders_are_opened_and_cleaned(lab: Lab) -> None:
    script = (
        "mkdir -p src/locked/in junk/a/b; echo x > src/locked/in/f; echo y > junk/a/b/f;"
        "chmod 0 src/locked/in/f src/locked/in src/locked junk/a/b junk/a junk"
    )
    report = lab.run(lab.task(), script)
    assert "src/locked/in/f" in lab.files(str(report.head))
    second = lab.run(lab.task(run=2, expected_head=report.head, base_commit=report.base_commit), "ls > src/list")
    assert "junk" not in lab.show(str(second.head), "src/list")


def test_the_trees_own_folder_is_opened_too(lab: Lab) -> None:
    first = lab.run(lab.task(), "echo x > src/x; chmod 0 .")
    assert (first.problem, first.pushed) == (None, True)
    assert lab.tree().stat().st_mode & 0o700 == 0o700
    lab.tree().chmod(0o500)
    second = lab.run(lab.task(run=2, expected_head=first.head, base_commit=first.base_commit))
    assert second.problem is None
    assert lab.tree().stat().st_mode & 0o700 == 0o700


def test_a_tree_deeper_than_any_path_is_published_around_and_removed(lab: Lab) -> None:
    def dig() -> None:
        folder = os.open(lab.tree(), os.O_RDONLY)
        for _ in range(3000):
            os.mkdir("d" * 20, dir_fd=folder)
            inner = os.open("d" * 20, os.O_RDONLY, dir_fd=folder)
            os.close(folder)
            folder = inner
        os.close(folder)

    report = lab.run(lab.task(), "echo ok > src/ok", during=dig)
    assert report.problem is None
    assert "src/ok" in lab.files(str(report.head))
    second = lab.run(lab.task(run=2, expected_head=report.head, base_commit=report.base_commit), "ls > src/list")
    assert second.problem is None
    assert "ddd" not in lab.show(str(second.head), "src/list")


def test_a_submodules_entry_stays_whatever_the_agent_does_to_it(lab: Lab) -> None:
    desk = lab.root / "submodule"
    git("clone", "--quiet", str(lab.remote), str(desk))
    git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},src/sub", cwd=desk)
    (desk / ".gitmodules").write_text('[submodule "sub"]\n path = src/sub\n url = ext::sh -c "touch pwned"\n')
    (desk / ".gitattributes").write_text("*.bin filter=lfs diff=lfs merge=lfs -text\n")
    git("add", ".gitmodules", ".gitattributes", cwd=desk)
    git("commit", "--quiet", "-m", "sub", cwd=desk)
    git("push", "--quiet", "origin", "HEAD:main", cwd=desk)
    report = lab.run(lab.task(), "ls -a src/sub > src/list; git init -q src/sub; echo x > src/sub/x; echo y > src/y")
    assert report.problem is None
    assert report.not_fetched == ("submodules", "lfs")
    assert modes(lab, report.head)["src/sub"] == "160000"
    second = lab.run(
        lab.task(run=2, expected_head=report.head, base_commit=report.base_commit),
        "ls src/sub > src/list2; rm -r src/sub; echo file > src/sub",
    )
    assert second.problem is None
    assert lab.show(str(second.head), "src/list2") == ""
    assert modes(lab, second.head)["src/sub"] == "160000"


@pytest.mark.parametrize("path", ["link/.task.md", "link/deep/.task.md", "docs"])
def test_a_task_file_behind_a_symlink_or_in_a_folders_place_is_refused(lab: Lab, path: str) -> None:
    outside = lab.root / "outside"
    outside.mkdir()
    desk = lab.root / "desk"
    git("clone", "--quiet", str(lab.remote), str(desk))
    (desk / "link").symlink_to(outside)
    git("add", "-A", cwd=desk)
    git("commit", "--quiet", "-m", "link", cwd=desk)
    git("push", "--quiet", "origin", "HEAD:main", cwd=desk)
    report = lab.run(lab.task(task_file=path, remove=("link/verdict.md",)))
    assert report.problem is not None
    assert report.problem.reason == "TaskFileRefused"
    assert list(outside.iterdir()) == []
    assert lab.head(BRANCH) is None


def test_a_task_file_that_is_a_tracked_symlink_is_replaced_not_followed(lab: Lab) -> None:
    outside = lab.root / "outside"
    outside.write_text("precious")
    desk = lab.root / "desk"
    git("clone", "--quiet", str(lab.remote), str(desk))
    (desk / ".task.md").symlink_to(outside)
    git("add", "-A", cwd=desk)
    git("commit", "--quiet", "-m", "link", cwd=desk)
    git("push", "--quiet", "origin", "HEAD:main", cwd=desk)
    report = lab.run(lab.task(task_file=".task.md", commit_paths=("/",)), "cp .task.md src/copy")
    assert outside.read_text() == "precious"
    assert lab.show(str(report.head), "src/copy") == "workitem: write the code"
    assert modes(lab, report.head)[".task.md"] == "120000"


def test_removal_takes_nothing_that_a_symlink_points_to(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/file").write_text("x")
    root = tmp_path / "root"
    (root / "folder/inner").mkdir(parents=True)
    (root / "folder/link").symlink_to(tmp_path / "precious")
    (root / "folder/inner/link").symlink_to("../../../precious")
    tree.remove(root, "folder")
    assert list(root.iterdir()) == []
    assert (tmp_path / "precious/file").exists()


def test_what_the_agent_prints_and_commits_is_no_report(lab: Lab) -> None:
    report: RunReport = lab.run(lab.task(), 'echo \'{"run": 9, "uid": "x", "pushed": true}\'; echo x > src/x')
    assert report.run == 1
