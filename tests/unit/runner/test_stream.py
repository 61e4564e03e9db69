"""The agent's output on its way: kept raw, shown readably, understood, and in nobody's way."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.unit.runner.lab import Lab
from workitems.agents import entry
from workitems.agents.output import Ending
from workitems.protocol import OUTPUT_FIFO
from workitems.runner import stream
from workitems.runner.stream import Stream

EVENTS = [
    {"type": "thread.started", "thread_id": "th_1"},
    {"type": "item.completed", "item": {"type": "agent_message", "text": "hello"}},
    {"type": "turn.completed", "usage": {"input_tokens": 5, "output_tokens": 2}},
]
PRINT = "printf '%s\\n' '" + "' '".join(json.dumps(event) for event in EVENTS) + "'"


def kept(lab: Lab, run: int = 1) -> Path:
    return lab.places.output(lab.task(run=run))


def test_output_is_shown_kept_and_understood(lab: Lab) -> None:
    report = lab.run(lab.task(output="codex"), f"cat >/dev/null; {PRINT}; echo 'to stderr' >&2; mkdir -p src; >src/new")

    assert report.ending is not None
    assert (report.ending.reason, report.ending.session) == ("Succeeded", "th_1")
    assert report.usage is not None
    assert (report.usage.input_tokens, report.usage.output_tokens) == (5, 2)
    assert sorted(lab.agent_log.splitlines()) == sorted(
        ["codex, thread th_1", "hello", "turn 1 is done (5 tokens in, 2 out)", "to stderr"]
    )
    assert [json.loads(line) for line in kept(lab).read_text().splitlines()] == EVENTS
    assert lab.agent_exit == 0


def test_without_a_reader_output_is_the_containers_own_and_nothing_is_kept(lab: Lab) -> None:
    report = lab.run(lab.task(), "cat; echo plain")
    assert report.ending is None
    assert lab.agent_log == "workitem: write the code\nplain\n"
    assert not kept(lab).parent.exists()


@pytest.mark.slow
@pytest.mark.parametrize("shell", [("bash", "--posix"), ("busybox", "sh")])
def test_other_shells_carry_the_output_too(lab: Lab, shell: tuple[str, ...]) -> None:
    lab.shell = shell
    report = lab.run(lab.task(output="codex"), PRINT)
    assert report.ending is not None
    assert report.ending.reason == "Succeeded"
    assert "hello" in lab.agent_log


def test_an_agent_without_a_word_has_no_result(lab: Lab) -> None:
    report = lab.run(lab.task(output="codex"), "exit 3")
    assert report.ending is not None
    assert report.ending.reason == "NoResult"
    assert (lab.agent_exit, lab.agent_log) == (3, "")


def test_a_last_line_without_an_end_counts(lab: Lab) -> None:
    report = lab.run(lab.task(output="codex"), f"{PRINT} | head -c -1")
    assert report.ending is not None
    assert report.ending.reason == "Succeeded"


@pytest.mark.slow
def test_a_hundred_megabytes_of_output_are_bounded_everywhere(lab: Lab) -> None:
    text = json.dumps({"type": "item.completed", "item": {"type": "agent_message", "text": "x" * 3900}})
    script = f"yes '{text}' | head -c 104857600; echo; head -c 20000000 /dev/zero | tr '\\0' y; echo; {PRINT}"
    report = lab.run(lab.task(output="codex"), script)

    assert report.ending is not None
    assert report.ending.reason == "Succeeded"
    raw = kept(lab).read_bytes()
    assert len(raw) < stream.KEPT_BYTES + 1000
    cut, last = [json.loads(line) for line in raw.splitlines()[-2:]]
    assert cut["type"] == "workitem_cut"
    assert last == EVENTS[-1]
    assert len(lab.agent_log) < stream.LOG_BYTES + 100_000
    lines = lab.agent_log.splitlines()
    assert "[a line of 20000000 bytes]" in lines
    assert lines[-1] == "turn 1 is done (5 tokens in, 2 out)"


@pytest.mark.slow
def test_what_an_agent_leaves_behind_does_not_hold_the_run_up(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that still holds the output open."""
    monkeypatch.setattr(entry, "ENTRY", entry.ENTRY.replace(f"sleep {entry.LOG_SECONDS};", "sleep 1;"))
    lab.patience = dataclasses.replace(lab.patience, output=0.2)
    report = lab.run(lab.task(output="codex"), f"{PRINT}; (sleep 8 2>/dev/null &)")
    assert report.ending is not None
    assert report.ending.reason == "Succeeded"
    assert lab.agent_exit == 0


class Collecting:
    """A reader that keeps what it is fed."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def feed(self, line: str) -> list[str]:
        self.lines.append(line)
        return [line] * 3

    def end(self) -> Ending:
        return Ending("Succeeded", str(len(self.lines)))


def test_a_log_that_nobody_takes_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "STUCK_SECONDS", 0.05)
    reader = Collecting()
    made = Stream(tmp_path, tmp_path / "kept/run-1.jsonl", reader)
    made.open()
    with (tmp_path / OUTPUT_FIFO).open("wb") as agent:
        for number in range(5000):
            agent.write(b"%d " % number + b"z" * 100 + b"\n")
    assert made.ending(20).message == "5000"


def test_a_volume_that_is_full_is_no_failure_of_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    made = Stream(tmp_path, tmp_path / "file/run-1.jsonl", Collecting())
    made.open()
    with (tmp_path / OUTPUT_FIFO).open("wb") as agent:
        agent.write(b"one\ntwo\n")
    assert made.ending(20).message == "2"


def test_a_small_volume_is_left_to_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = SimpleNamespace(f_bavail=10, f_frsize=10)
    monkeypatch.setattr("os.statvfs", lambda _path: small)
    made = Stream(tmp_path, tmp_path / "kept/run-1.jsonl", Collecting())
    made.open()
    with (tmp_path / OUTPUT_FIFO).open("wb") as agent:
        agent.write(b"a line of more than ten bytes\nthe last one\n")
    assert made.ending(20).message == "2"
    assert (tmp_path / "kept/run-1.jsonl").read_text().splitlines() == [
        "a line of ",
        '{"type": "workitem_cut", "bytes": 33}',
        "the last one",
    ]


def test_the_oldest_outputs_go_where_an_item_has_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "KEPT_IN_ALL_BYTES", 2500)
    folder = tmp_path / "kept"
    folder.mkdir()
    for run in range(1, 12):
        (folder / f"run-{run}.jsonl").write_bytes(b"x" * 1000)
    (folder / "other").write_bytes(b"x" * 9000)
    made = Stream(tmp_path, folder / "run-12.jsonl", Collecting())
    made.open()
    with (tmp_path / OUTPUT_FIFO).open("wb"):
        pass
    made.ending(20)
    assert sorted(path.name for path in folder.iterdir()) == ["other", "run-10.jsonl", "run-11.jsonl", "run-12.jsonl"]


def test_a_defect_of_a_reader_is_not_hidden(tmp_path: Path) -> None:
    class Broken(Collecting):
        def feed(self, line: str) -> list[str]:
            raise KeyError(line)

    made = Stream(tmp_path, tmp_path / "kept/run-1.jsonl", Broken())
    made.open()
    with (tmp_path / OUTPUT_FIFO).open("wb") as agent:
        agent.write(b"one\n")
    with pytest.raises(KeyError):
        made.ending(20)
