"""What becomes of the work when the remote has changed, refuses, or answers too late."""

from __future__ import annotations

import dataclasses
import os
import shutil

import pytest

from tests.unit.runner.lab import BRANCH, Lab, git
from workitems.protocol import RunReport

pytestmark = pytest.mark.slow


DIVERTED = "workitems/et-12/run-2"


def second(lab: Lab, first: RunReport) -> dict[str, object]:
    return {"run": 2, "expected_head": first.head, "base_commit": first.base_commit}


def hook(lab: Lab, name: str, script: str) -> None:
    path = lab.remote / "hooks" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_a_lost_lease_diverts_the_work_and_reports_the_remotes_head(lab: Lab) -> None:
    first = lab.run(lab.task(), "echo 1 > src/one")
    theirs: list[str] = []
    report = lab.run(
        lab.task(**second(lab, first), watch=("person.txt",)),
        "echo 2 > src/two",
        during=lambda: theirs.append(lab.push(BRANCH)),
    )
    assert report.problem is not None
    assert report.problem.reason == "HeadMoved"
    assert DIVERTED in report.problem.message
    assert (report.committed, report.pushed, report.diverted_to) == (True, False, DIVERTED)
    assert report.head == theirs[0] == lab.head()
    assert report.blobs == (git("--git-dir", str(lab.remote), "rev-parse", f"{theirs[0]}:person.txt"),)
    assert lab.show(DIVERTED, "src/two") == "2"
    assert lab.agent_exit == 0


def test_a_branch_that_somebody_created_meanwhile_is_not_overwritten(lab: Lab) -> None:
    report = lab.run(lab.task(), "echo 1 > src/one", during=lambda: lab.push(BRANCH))
    assert report.problem is not None
    assert report.problem.reason == "HeadMoved"
    assert report.diverted_to == "workitems/et-12/run-1"
    assert "src/one" not in lab.files(str(lab.head()))


def test_without_work_a_moved_branch_is_not_even_noticed(lab: Lab) -> None:
    first = lab.run(lab.task(), "echo 1 > src/one")
    report = lab.run(lab.task(**second(lab, first)), during=lambda: lab.push(BRANCH))
    assert (report.problem, report.diverted_to, report.pushed) == (None, None, False)


def test_a_branch_deleted_meanwhile_leaves_the_work_in_its_own_branch(lab: Lab) -> None:
    first = lab.run(lab.task(), "echo 1 > src/one")
    report = lab.run(
        lab.task(**second(lab, first)),
        "echo 2 > src/two",
        during=lambda: git("--git-dir", str(lab.remote), "branch", "-D", BRANCH),
    )
    assert report.problem is not None
    assert report.problem.reason == "BranchNotFound"
    assert (report.head, report.diverted_to) == (None, DIVERTED)
    assert lab.head(DIVERTED) is not None


def test_a_push_whose_answer_was_lost_is_a_success(lab: Lab) -> None:
    # The server takes the push and the client sees a failure, once: what a broken connection looks like.
    marker = lab.root / "failed-once"
    wrapper = lab.root / "bin" / "git"
    wrapper.parent.mkdir()
    wrapper.write_text(
        f'#!/bin/sh\ncase " $* " in *" push "*) if [ ! -e {marker} ]; then'
        f' touch {marker}; {real_git()} "$@" >/dev/null 2>&1;'
        f' echo "fatal: the remote end hung up unexpectedly" >&2; exit 128; fi;; esac\nexec {real_git()} "$@"\n'
    )
    wrapper.chmod(0o755)
    # The first try's own time counts, and a busy machine may take more than all of it.
    lab.patience = dataclasses.replace(lab.patience, push_retries=60)
    path = os.environ["PATH"]
    os.environ["PATH"] = f"{wrapper.parent}:{path}"
    try:
        report = lab.run(lab.task(), "echo 1 > src/one")
    finally:
        os.environ["PATH"] = path
    assert marker.exists()
    assert (report.problem, report.pushed, report.head) == (None, True, lab.head())


def test_what_is_committed_is_on_the_disk_before_it_is_pushed(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """An object that a lost node left empty is there for git: the same content could never be pushed again."""
    wrapper, traces = lab.root / "bin" / "git", lab.root / "traces"
    wrapper.parent.mkdir()
    traces.mkdir()
    wrapper.write_text(f'#!/bin/sh\nGIT_TRACE2_EVENT={traces} exec {real_git()} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:{os.environ['PATH']}")
    assert lab.run(lab.task(), "echo 1 > src/one").pushed
    monkeypatch.undo()
    told = [trace.read_text() for trace in traces.iterdir()]
    for command in ("update-index", "write-tree", "commit-tree"):
        (said,) = (text for text in told if f'"name":"{command}"' in text)
        assert '"fsync/hardware-flush"' in said, command


def real_git() -> str:
    found = shutil.which("git")
    assert found is not None
    return found


def test_a_hooks_refusal_is_shown_in_the_servers_own_words(lab: Lab) -> None:
    hook(lab, "pre-receive", "echo 'protected branch: ask \033[31mteam-lead\033[0m' >&2; exit 1")
    report = lab.run(lab.task(), "echo 1 > src/one")
    assert report.problem is not None
    assert report.problem.reason == "PushRefused"
    assert "protected branch: ask" in report.problem.message
    assert "\033" not in report.problem.message
    assert not report.problem.retry
    assert (report.committed, report.pushed, report.head) == (True, False, None)
    assert lab.exit_code == 0


def test_a_refusal_that_speaks_of_a_full_disk_is_the_servers_not_ours(lab: Lab) -> None:
    hook(lab, "pre-receive", "echo 'fatal: write error: No space left on device' >&2; exit 1")
    report = lab.run(lab.task(), "echo 1 > src/one")
    assert report.problem is not None
    assert report.problem.reason == "PushRefused"


def test_a_later_runs_refusal_reports_the_head_that_stands(lab: Lab) -> None:
    first = lab.run(lab.task(), "echo 1 > src/one")
    hook(lab, "update", "exit 1")
    report = lab.run(lab.task(**second(lab, first)), "echo 2 > src/two")
    assert report.problem is not None
    assert (report.problem.reason, report.head) == ("PushRefused", first.head)
    assert report.tree == first.tree


def test_a_remote_that_vanishes_during_the_run_is_unreachable_and_worth_a_retry(lab: Lab) -> None:
    away = lab.root / "away.git"
    report = lab.run(lab.task(), "echo 1 > src/one", during=lambda: lab.remote.rename(away))
    assert report.problem is not None
    assert report.problem.reason == "RepositoryNotFound"
    assert (report.committed, report.pushed, report.agent_started) == (True, False, True)
