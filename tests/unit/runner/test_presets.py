"""The presets of the other CLIs under the real entry and runner: what each is given, and what is read of it.

Their binaries are not here. A program of the same name writes down its arguments and its input, and prints what the CLI
would.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.unit.runner.lab import Lab
from workitems.agents.readers import PRESETS
from workitems.protocol import Usage

STUB = """\
#!/bin/sh
for word in "$@"; do printf '%s\\n' "$word"; done > "$LAB/arguments"
cat > "$LAB/input"
echo "x = 1" > src/feature.py
cat "$LAB/../output"
"""


@dataclass(frozen=True)
class Preset:
    arguments: list[str]
    output: str
    usage: Usage


def _lines(*events: object) -> str:
    return "".join(f"{json.dumps(event)}\n" for event in events)


PROMPT = "EXCHANGE/prompt.md"
CASES = {
    "codex": Preset(
        ["exec", "--json", "--sandbox", "danger-full-access", "--ephemeral", "-o", "/tmp/last.txt", "-"],
        _lines(
            {"type": "thread.started", "thread_id": "th_1"},
            {"type": "turn.completed", "usage": {"input_tokens": 9, "output_tokens": 2}},
        ),
        Usage(input_tokens=9, output_tokens=2, turns=1),
    ),
    "gemini": Preset(
        ["--output-format", "stream-json", "--approval-mode=yolo", "--skip-trust", "-p", "Do the task above."],
        _lines(
            {"type": "message", "role": "assistant", "content": "Done."},
            {"type": "result", "status": "success", "stats": {"input_tokens": 9, "output_tokens": 2}},
        ),
        Usage(input_tokens=9, output_tokens=2, turns=1),
    ),
    "opencode": Preset(
        [
            *("run", "--auto", "--print-logs", "--log-level", "ERROR", "--title", "work item", "--format", "json"),
            *("-m", "anthropic/claude-opus-5-5", "Do the task that follows."),
        ],
        _lines({"type": "step_finish", "part": {"reason": "stop", "cost": 0.02, "tokens": {"input": 9, "output": 2}}}),
        Usage(input_tokens=9, output_tokens=2, turns=1, cost_usd="0.02"),
    ),
    "aider": Preset(
        [
            *("--yes-always", "--no-auto-commits", "--no-dirty-commits", "--no-gitignore", "--no-check-update"),
            *("--no-show-release-notes", "--no-detect-urls", "--analytics-disable", "--no-pretty", "--no-stream"),
            *("--chat-history-file", "/tmp/aider.chat.md"),
            *("--input-history-file", "/tmp/aider.input", "--model", "sonnet", "--message-file", PROMPT),
        ],
        "Tokens: 9 sent, 2 received. Cost: $0.02 message, $0.02 session.\n",
        Usage(input_tokens=9, output_tokens=2, turns=1, cost_usd="0.02"),
    ),
}


def test_every_preset_is_tried() -> None:
    assert set(CASES) == set(PRESETS)


@pytest.mark.parametrize("cli", CASES)
def test_a_preset_is_started_with_its_arguments_and_the_prompt_and_its_output_is_read(
    lab: Lab, cli: str, tmp_path: Path
) -> None:
    case = CASES[cli]
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / cli).write_text(STUB)
    (programs / cli).chmod(0o755)
    (tmp_path / "output").write_text(case.output)
    lab.environment = {"PATH": f"{programs}:{os.environ['PATH']}"}
    task = lab.task(output=cli, prompt="You are the developer.\n\n# Do it\n", system_prompt_file="README.md")

    report = lab.run(task, list(PRESETS[cli]))

    pod = lab.places.exchange.parent
    assert (pod / "arguments").read_text().splitlines() == [
        word.replace("EXCHANGE", str(lab.places.exchange)) for word in case.arguments
    ]
    # The role's text first, behind a line of ours; the task after it.
    assert (pod / "input").read_text() == (
        "These are the instructions of your role, the task follows them.\n\n# shop\n\n"
        "This is the task.\n\nYou are the developer.\n\n# Do it\n"
    )
    assert (pod / "input").read_text() == (lab.places.exchange / "prompt.md").read_text()
    assert lab.agent_exit == 0
    assert report.ending is not None
    assert (report.ending.reason, report.usage) == ("Succeeded", case.usage)
    assert lab.show(report.head or "", "src/feature.py") == "x = 1"


def test_a_program_without_output_finds_its_system_prompt_beside_the_prompt(lab: Lab) -> None:
    task = lab.task(prompt="# Do it\n", system_prompt_file="README.md")
    lab.run(task, 'cat; cat "$LAB/exchange/system.md"')
    assert lab.agent_log == "# Do it\n# shop\n"
