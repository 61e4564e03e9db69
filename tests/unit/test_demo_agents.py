"""The demo's agents on a clone: the whole way with its rework, and what they do with a prompt that is none."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hack.cluster import claude, settings
from hack.demo import install
from hack.demo.agents import model
from hack.gitserver.bundle import bundle
from hack.scriptedmodel.server import Server
from workitems.agents import claude_code
from workitems.agents.claude_code import Session
from workitems.agents.claude_stream import Reader
from workitems.api.agent import ClaudeCode
from workitems.protocol import EXCHANGE, SYSTEM_PROMPT_FILE

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
        first = f"You are the {role} of work item et-1, in stage any.\n\nAttempt: {attempt}\nDocuments: {DOCUMENTS}\n"
        prompt = f"{first}\n# {self.spec['title']}\n\n{self.spec['description']}"
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


class ClaudeWorktree(Worktree):
    """The same work by the real Claude Code CLI, with the demo's scripted model."""

    def __init__(self, root: Path, address: str) -> None:
        super().__init__(root)
        self.address = address

    def agent(self, _role: str, prompt: str, _attempt: int = 1) -> subprocess.CompletedProcess[str]:
        self.runs += 1
        system = self.root.parent / "system.md"
        system.write_text(claude_code.system_prompt("docs/work-items/et-12", ("docs/", "src/")))
        command = claude_code.argv(ClaudeCode(), Session(claude_code.session_id("et-1", self.runs)), None)
        environment = {
            "PATH": f"{claude.folder(settings.read().cache)}:{os.environ['PATH']}",
            "HOME": str(self.root.parent),
            **claude_code.SWITCHES,
            "CLAUDE_CODE_MAX_RETRIES": "0",
            claude_code.API_KEY: "scripted",
            claude_code.BASE_URL: self.address,
        }
        command = [word.replace(f"{EXCHANGE}/{SYSTEM_PROMPT_FILE}", str(system)) for word in command]
        done = subprocess.run(
            command, cwd=self.root, env=environment, input=prompt, capture_output=True, text=True, check=False
        )
        reader = Reader()
        for line in done.stdout.splitlines():
            reader.feed(line)
        assert reader.end().reason == "Succeeded", done.stdout + done.stderr
        return done


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "shop.bundle").write_bytes(bundle(install.DEMO / "repository"))
    subprocess.run(["git", "clone", "--quiet", "shop.bundle", "tree"], cwd=tmp_path, check=True)
    return tmp_path / "tree"


@pytest.fixture
def worktree(tree: Path) -> Worktree:
    return Worktree(tree)


@pytest.fixture(params=["programs", "claude"])
def either(request: pytest.FixtureRequest, tree: Path) -> Iterator[Worktree]:
    if request.param == "programs":
        yield Worktree(tree)
        return
    server = Server(("127.0.0.1", 0), model.reply)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield ClaudeWorktree(tree, f"http://127.0.0.1:{server.server_address[1]}")
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_work_goes_all_the_way_with_one_rework_that_answers_the_review(either: Worktree) -> None:
    worktree = either
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
