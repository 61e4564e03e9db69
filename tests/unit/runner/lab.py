"""A remote, a volume and an agent that is a real process under the real entry script; git is real everywhere."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from workitems.agents import entry
from workitems.protocol import EXCHANGE, RunKind, RunReport, RunTask
from workitems.runner.exchange import Termination
from workitems.runner.places import Patience, Places
from workitems.runner.program import Runner

UID = "8d1f3c1e-4b3e-4f3a-9a7e-0123456789ab"
BRANCH = "feature/et-12-discounts"
DOCUMENTS = "docs/work-items/et-12"
QUICK = Patience(hello=20, network=60, local=60, lock=30, fetch_retries=1.5, push_retries=1.5, first_delay=0.05)

# A person's git at a desk: nothing of the machine's own configuration.
DESK = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_COUNT": "2",
    "GIT_CONFIG_KEY_0": "safe.directory",
    "GIT_CONFIG_VALUE_0": "*",
    "GIT_CONFIG_KEY_1": "protocol.file.allow",
    "GIT_CONFIG_VALUE_1": "always",
    "GIT_AUTHOR_NAME": "Ann",
    "GIT_AUTHOR_EMAIL": "ann@example.com",
    "GIT_COMMITTER_NAME": "Ann",
    "GIT_COMMITTER_EMAIL": "ann@example.com",
}


def git(*arguments: str, cwd: Path | None = None, stdin: bytes | None = None, **environment: str) -> str:
    done = subprocess.run(
        ["git", *arguments], env={**DESK, **environment}, cwd=cwd, input=stdin, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout.decode(errors="replace").strip("\n")


def limit_counts_from(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """Let limits count from the moment when a file appears: until then a busy machine may need all of a short one.

    Of agents and gates that are started from then on; `path` is a word of the shell.
    """
    for script in ("ENTRY", "GATE"):
        before, limit = getattr(entry, script), 'sleep "$limit"'
        assert before.count(limit) == 1
        waits = f"until [ -e {path} ]; do sleep 0.05; done; {limit}"
        monkeypatch.setattr(entry, script, before.replace(limit, waits))


@dataclasses.dataclass
class Lab:
    """One remote repository, one volume, and whatever a test does with them."""

    root: Path
    url: str
    places: Places
    patience: Patience = QUICK
    shell: tuple[str, ...] = ()
    agent_exit: int | None = None
    agent_log: str = ""
    exit_code: int | None = None
    counter: int = 0
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    """Of the agent's container, in addition."""

    @property
    def remote(self) -> Path:
        return self.root / "remote.git"

    def task(self, **changes: Any) -> RunTask:
        fields: dict[str, Any] = {
            "kind": RunKind.AGENT,
            "item": "et-12",
            "uid": UID,
            "run": 1,
            "stage": "development",
            "attempt": 1,
            "agent": "developer",
            "repository": "shop",
            "url": self.url,
            "branch": BRANCH,
            "base_branch": "main",
            "commit_paths": ("docs/", "src/"),
            "documents": DOCUMENTS,
            "prompt": "workitem: write the code\n",
            "agent_timeout_seconds": 60,
        }
        return RunTask(**{**fields, **changes})

    def tree(self, task: RunTask | None = None) -> Path:
        return self.places.tree(task or self.task())

    def fresh(self, task: RunTask) -> Places:
        """What the kubelet does before a pod's containers start: an empty exchange, the subPath folders, the task."""
        self.counter += 1
        pod = self.root / f"pod-{self.counter}"
        (pod / "exchange").mkdir(parents=True)
        (pod / "task.json").write_text(task.dumps())
        self.places.git_dir(task).mkdir(parents=True, exist_ok=True)
        self.tree(task).mkdir(parents=True, exist_ok=True)
        self.places = dataclasses.replace(
            self.places, exchange=pod / "exchange", task_file=pod / "task.json", report=pod / "report"
        )
        return self.places

    def run(
        self, task: RunTask, script: str | list[str] = ":", *, during: Callable[[], object] | None = None
    ) -> RunReport:
        """One Job: the runner in this process, the agent's entry as a process beside it.

        `script` is the agent's program, in sh or as a command. `during` is what somebody else does while it works.
        """
        places = self.fresh(task)
        agent: subprocess.Popen[bytes] | None = None
        if task.kind is RunKind.AGENT:
            if during is not None:
                assert isinstance(script, str)
                script = f'{script}; touch "$LAB/working"; until [ -e "$LAB/done" ]; do sleep 0.05; done'
            command = ["sh", "-c", script] if isinstance(script, str) else script
            agent = self.start_agent(places, task, command)
        termination = Termination()
        try:
            with self._while_working(places, during):
                self.exit_code = Runner(places, self.patience, termination).run(task.kind)
        finally:
            termination.close()
            if agent is not None:
                try:
                    self.agent_exit = agent.wait(timeout=30)
                finally:
                    agent.kill()
                    agent.wait()
                self.agent_log = (self.places.exchange.parent / "log").read_text(errors="replace")
        return self.report()

    def report(self) -> RunReport:
        content = self.places.report.read_bytes()
        assert len(content) <= 4096
        return RunReport.strictly(content.decode())

    def start_agent(self, places: Places, task: RunTask, command: list[str]) -> subprocess.Popen[bytes]:
        # Mount points are constants of the command; here the exchange is a folder of the test.
        command = [word.replace(EXCHANGE, str(places.exchange)) for word in command]
        argv = entry.argv(command, task.agent_timeout_seconds, str(places.exchange))
        environment = {**DESK, "GIT_OPTIONAL_LOCKS": "0", "LAB": str(places.exchange.parent), **self.environment}
        # A file takes what is printed at once, as a container runtime does.
        with (places.exchange.parent / "log").open("wb") as log:
            return subprocess.Popen(
                [*self.shell, *(argv[1:] if self.shell else argv)],
                cwd=self.tree(task),
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )

    @contextlib.contextmanager
    def _while_working(self, places: Places, during: Callable[[], object] | None) -> Iterator[None]:
        """Do it once the agent works, however long that takes; not at all where the run ends without it."""
        if during is None:
            yield
            return
        over = threading.Event()

        def watch() -> None:
            while not (places.exchange.parent / "working").exists():
                if over.wait(0.05):
                    return
            try:
                during()
            finally:
                (places.exchange.parent / "done").touch()

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()

    # What a person sees and does at the remote.

    def head(self, branch: str = BRANCH) -> str | None:
        return (
            git("--git-dir", str(self.remote), "for-each-ref", "--format=%(objectname)", f"refs/heads/{branch}") or None
        )

    def files(self, commit: str) -> set[str]:
        listing = git(
            "--git-dir", str(self.remote), "-c", "core.quotePath=false", "ls-tree", "-rz", "--name-only", commit
        )
        return set(filter(None, listing.split("\0")))

    def show(self, commit: str, path: str) -> str:
        return git("--git-dir", str(self.remote), "show", f"{commit}:{path}")

    def push(self, branch: str, message: str = "a person's change", base: str | None = None, **files: str) -> str:
        """Push a commit that a person made; `files` maps names (with __ for / and _dot_ for .) to texts."""
        self.counter += 1
        desk = self.root / f"desk-{self.counter}"
        git("clone", "--quiet", str(self.remote), str(desk))
        start = base or (f"origin/{branch}" if self.head(branch) else "origin/main")
        git("checkout", "--quiet", "-B", branch, start, cwd=desk)
        for name, text in (files or {"person_dot_txt": "mine"}).items():
            path = desk / name.replace("__", "/").replace("_dot_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        git("add", "-A", cwd=desk)
        git("commit", "--quiet", "--allow-empty", "-m", message, cwd=desk)
        git("push", "--quiet", "--force", "origin", branch, cwd=desk)
        return git("rev-parse", "HEAD", cwd=desk)


def make_remote(path: Path) -> None:
    """A bare repository with one commit on main."""
    git("init", "--quiet", "--bare", "--initial-branch=main", str(path))
    desk = path.parent / "seed"
    git("init", "--quiet", "--initial-branch=main", str(desk))
    for name, text in {
        "README.md": "# shop\n",
        ".gitignore": "*.pyc\nbuild/\n",
        ".openclaw/agents/developer.md": "You are the developer.\n",
        "docs/index.md": "index\n",
        f"{DOCUMENTS}/03-trz.md": "the task\n",
        "src/app.py": "print('hello')\n",
        "tests/test_app.py": "def test(): pass\n",
    }.items():
        (desk / name).parent.mkdir(parents=True, exist_ok=True)
        (desk / name).write_text(text)
    git("add", "-A", cwd=desk)
    git("commit", "--quiet", "-m", "seed", cwd=desk)
    git("push", "--quiet", str(path), "main", cwd=desk)
