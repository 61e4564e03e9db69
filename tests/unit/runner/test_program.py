"""The program as a process: signals, deadlines, a task that cannot be read, and the speed of its start."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.unit.runner.lab import BRANCH, Lab, git
from workitems import runner
from workitems.protocol import GO_FILE, STOP_FILE, RunKind, RunReport
from workitems.runner import checkout
from workitems.runner.exchange import Termination
from workitems.runner.problems import RunProblemError
from workitems.runner.program import Runner, read_task

pytestmark = pytest.mark.slow


RUN = """
import logging, pathlib, sys
from workitems.protocol import RunKind
from workitems.runner.exchange import Termination
from workitems.runner.places import Patience, Places
from workitems.runner.program import Runner
logging.basicConfig(level=logging.INFO, stream=sys.stdout)
root, pod, retries = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), float(sys.argv[3])
task, exchange, report = pod / "task.json", pod / "exchange", pod / "report"
places = Places(task, exchange, root / "credentials", root / "ca", root / "workspace", report, True)
termination = Termination()
termination.install()
patience = Patience(fetch_retries=retries, first_delay=0.1, parting=1)
sys.exit(Runner(places, patience, termination).run(RunKind.AGENT))
"""


def start(lab: Lab, retries: float = 0.2) -> subprocess.Popen[str]:
    pod = lab.places.exchange.parent
    return subprocess.Popen(
        [sys.executable, "-c", RUN, str(lab.root), str(pod), str(retries)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(path: Path) -> None:
    for _ in range(600):
        if path.exists():
            return
        time.sleep(0.05)
    pytest.fail(f"{path} did not appear")


def test_sigterm_during_the_run_publishes_what_is_there(lab: Lab) -> None:
    task = lab.task()
    pod = lab.fresh(task).exchange.parent
    process = start(lab)
    script = "echo half > src/half; touch $LAB/working; trap '' TERM; until [ -e $LAB/end ]; do sleep 0.2; done"
    agent = lab.start_agent(lab.places, task, ["sh", "-c", script])
    try:
        wait_for(pod / "working")
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
        output = process.communicate(timeout=25)[0]
    finally:
        (pod / "end").touch()
        agent.kill()
        agent.communicate()
    assert process.returncode == 0, output
    report = lab.report()
    assert (report.problem, report.pushed, report.agent_started) == (None, True, True)
    assert lab.show(BRANCH, "src/half") == "half"


def test_sigterm_before_the_agent_starts_stops_it_and_is_worth_a_retry(lab: Lab) -> None:
    task = lab.task(url="http://127.0.0.1:9/x.git")
    pod = lab.fresh(task).exchange.parent
    process = start(lab, retries=60)
    try:
        wait_for(lab.places.git_dir(task) / "HEAD")
        process.send_signal(signal.SIGTERM)
        output = process.communicate(timeout=20)[0]
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, output
    report = lab.report()
    assert report.problem is not None
    assert (report.problem.reason, report.problem.retry) in {("Interrupted", True), ("RemoteUnreachable", True)}
    assert (pod / "exchange" / STOP_FILE).exists()
    assert not (pod / "exchange" / GO_FILE).exists()


def test_a_killed_agent_container_ends_the_wait_and_keeps_its_work(lab: Lab) -> None:
    task = lab.task()
    pod = lab.fresh(task).exchange.parent
    process = start(lab)
    agent = lab.start_agent(lab.places, task, ["sh", "-c", "echo half > src/half; touch $LAB/working; sleep 30"])
    try:
        wait_for(pod / "working")
        agent.kill()
        output = process.communicate(timeout=20)[0]
    finally:
        agent.kill()
        agent.wait()
        if agent.stdout:
            agent.stdout.close()
    assert process.returncode == 0, output
    assert lab.show(BRANCH, "src/half") == "half"


def test_an_agent_that_never_starts_ends_in_a_report_and_cannot_start_later(lab: Lab) -> None:
    lab.patience = dataclasses.replace(lab.patience, hello=0.3)
    task = lab.task(kind=RunKind.AGENT)
    places = lab.fresh(task)
    termination = Termination()
    try:
        assert Runner(places, lab.patience, termination).run(RunKind.AGENT) == 0
    finally:
        termination.close()
    report = lab.report()
    assert report.problem is not None
    assert (report.problem.reason, report.agent_started) == ("AgentNotStarted", False)
    assert (places.exchange / STOP_FILE).exists()
    assert lab.head() is None


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"kind": "Agent"}', '{"kind": "Look"}', None, '{"kind": "Agent", "prompt": "secret-prompt"}'],
)
def test_a_task_that_cannot_be_read_stops_the_agent_and_is_reported(lab: Lab, content: str | None) -> None:
    places = lab.fresh(lab.task())
    if content is None:
        places.task_file.unlink()
    else:
        places.task_file.write_text(content)
    termination = Termination()
    try:
        assert Runner(places, lab.patience, termination).run(RunKind.AGENT) == 0
    finally:
        termination.close()
    report = lab.report()
    assert report.problem is not None
    assert report.problem.reason == "TaskUnreadable"
    assert "secret-prompt" not in report.problem.message
    assert (places.exchange / STOP_FILE).exists()


@pytest.mark.parametrize("changes", [{"item": "../etc"}, {"repository": "a/b"}, {"item": ""}, {"kind": RunKind.LOOK}])
def test_names_that_would_leave_the_volume_and_foreign_tasks_are_refused(lab: Lab, changes: dict[str, str]) -> None:
    path = lab.root / "task.json"
    path.write_text(lab.task(**changes).dumps())
    with pytest.raises(RunProblemError):
        read_task(path, RunKind.AGENT)


def test_a_defect_of_ours_still_stops_the_agent(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise AssertionError("a defect")

    monkeypatch.setattr(checkout, "prepare", broken)
    places = lab.fresh(lab.task())
    termination = Termination()
    try:
        with pytest.raises(AssertionError):
            Runner(places, lab.patience, termination).run(RunKind.AGENT)
    finally:
        termination.close()
    assert (places.exchange / STOP_FILE).exists()


def test_the_command_line_writes_its_report_where_it_is_told(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import pathlib, sys, workitems.runner as r; sys.exit(r.main(sys.argv[1:-1], pathlib.Path(sys.argv[-1])))",
            "look",
            str(tmp_path / "report"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = RunReport.strictly((tmp_path / "report").read_text())
    assert report.problem is not None
    assert report.problem.reason == "TaskUnreadable"
    assert callable(runner.main)


@pytest.mark.parametrize("argv", [[], ["deploy"], ["look", "--report", "x"]])
def test_another_command_is_told_what_there_is(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert runner.main(argv) == 2
    assert capsys.readouterr().err == "usage: python -m workitems runner agent|gate|look\n"


def test_a_runner_imports_no_framework() -> None:
    """A run waits for this start; pydantic alone would cost as much as all of it."""
    imports = "import sys, json, workitems.__main__, workitems.runner"
    code = f"{imports}; print(json.dumps(sorted({{m.split('.')[0] for m in sys.modules}})))"
    loaded = set(json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout))
    assert not loaded & {"kopf", "kubernetes", "aiohttp", "httpx", "asyncio", "structlog", "yaml", "pydantic"}
    assert "argparse" not in loaded


def test_the_runners_files_are_readable_by_the_agents_user(lab: Lab) -> None:
    lab.run(lab.task(system_prompt_file=".openclaw/agents/developer.md", task_file=".task.md"))
    for name in ("prompt.md", "system.md", GO_FILE):
        assert (lab.places.exchange / name).stat().st_mode & 0o044 == 0o044
    assert git("status", "--porcelain", cwd=lab.tree(), GIT_OPTIONAL_LOCKS="0") == "?? .task.md"
    assert os.access(lab.tree(), os.W_OK)
