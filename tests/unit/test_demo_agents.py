"""The demo's agents on a clone: the whole way with its rework, and what they do with a prompt that is none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hack.demo import install
from hack.gitserver.bundle import bundle

pytestmark = pytest.mark.slow


AGENT = install.DEMO / "agents" / "agent.py"
DOCUMENTS = Path("docs/work-items/et-1")


class Worktree:
    """Stands in for the runner: gives an agent its prompt and commits what it did, as the contract says."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.runs = 0
        self.spec = install.manifest("workitem")["spec"]

    def agent(self, role: str, prompt: str, attempt: int = 1) -> subprocess.CompletedProcess[str]:
        self.runs += 1
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.root.parent),
            "PYTHONSAFEPATH": "1",
            "WORKITEM_NAME": "et-1",
            "WORKITEM_RUN": str(self.runs),
            "WORKITEM_ATTEMPT": str(attempt),
            "WORKITEM_DOCUMENTS": str(DOCUMENTS),
        }
        command = [sys.executable, str(AGENT), role]
        return subprocess.run(
            command, cwd=self.root, env=environment, input=prompt, capture_output=True, text=True, check=False
        )

    def work(self, role: str, attempt: int = 1, before: str = "") -> None:
        prompt = f"You are the {role}.\n\nAttempt: {attempt}\n\n# {self.spec['title']}\n\n{self.spec['description']}"
        done = self.agent(role, prompt + (f"\n# What happened before\n\n{before}" if before else ""), attempt)
        assert done.returncode == 0, done.stdout + done.stderr
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", f"--message={role}(et-1): run {self.runs}")

    def git(self, *arguments: str) -> None:
        identity = ["-c", "user.name=bot", "-c", "user.email=bot@example.com"]
        subprocess.run(["git", *identity, *arguments], cwd=self.root, check=True)

    def tests_pass(self) -> bool:
        return subprocess.run(["make", "test"], cwd=self.root, capture_output=True, check=False).returncode == 0

    def document(self, name: str) -> str:
        return (self.root / DOCUMENTS / name).read_text()


@pytest.fixture
def worktree(tmp_path: Path) -> Worktree:
    (tmp_path / "shop.bundle").write_bytes(bundle(install.DEMO / "repository"))
    subprocess.run(["git", "clone", "--quiet", "shop.bundle", "tree"], cwd=tmp_path, check=True)
    return Worktree(tmp_path / "tree")


def test_the_work_goes_all_the_way_with_one_rework_that_answers_the_review(worktree: Worktree) -> None:
    assert not worktree.tests_pass()
    for role in ("analyst", "architect", "developer", "reviewer"):
        worktree.work(role)
    assert worktree.tests_pass()
    review = worktree.document("12-review.md")
    assert review.startswith("---\nverdict: REQUEST_CHANGES\n---\n")
    assert "F1 (src/shop/discounts.py)" in review
    assert "F2 (README.md)" in review
    worktree.work("developer", 2, review)
    for role in ("reviewer", "tester", "deployer"):
        worktree.work(role, 2)
    assert worktree.tests_pass()
    assert worktree.document("12-review.md").startswith("---\nverdict: APPROVED\n---\n")
    assert "\nVerdict: PASS\n" in worktree.document("13-test-report.md")
    assert "`WELCOME10` (10 %)" in worktree.document("14-deploy.md")


def test_a_developer_that_is_not_told_the_findings_does_not_know_them(worktree: Worktree) -> None:
    for role in ("analyst", "architect", "developer", "reviewer"):
        worktree.work(role)
    worktree.work("developer", 2)
    worktree.work("reviewer", 2)
    assert "verdict: REQUEST_CHANGES" in worktree.document("12-review.md")


def test_the_tester_reports_a_failure_where_the_feature_is_missing(worktree: Worktree) -> None:
    worktree.work("tester")
    assert "\nVerdict: FAIL\n" in worktree.document("13-test-report.md")


def test_the_analyst_asks_where_the_request_names_no_price_and_goes_on_with_the_answer(worktree: Worktree) -> None:
    vague = "You are the analyst.\n\n# Some discount\n\nNew customers should get a discount.\n"
    assert worktree.agent("analyst", vague).returncode == 0
    assert "Which discount codes" in worktree.document("01-questions.md")
    assert not (worktree.root / DOCUMENTS / "02-brd.md").exists()
    assert worktree.agent("analyst", f"{vague}\n# Answer\n\n`HELLO5` takes 5 %.\n").returncode == 0
    assert "| `HELLO5` | 5 |" in worktree.document("03-trz.md")


@pytest.mark.parametrize(
    ("prompt", "words"), [(" \n", "is empty"), ("Do something, please.", "names no title")], ids=["empty", "no title"]
)
def test_a_prompt_that_is_none_ends_with_two_and_the_reason(worktree: Worktree, prompt: str, words: str) -> None:
    done = worktree.agent("analyst", prompt)
    assert done.returncode == 2
    assert words in done.stderr
