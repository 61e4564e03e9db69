"""What the real CLIs printed, each against a model that was scripted to fail in one way, and what is read of it.

Recorded on 2026-11-27 in a git worktree as it is in a pod: another user than root, a read-only root, no network but the
model's. Codex 0.169.0, Gemini CLI 0.61.0, opencode 1.18.33, aider 0.86.2. Trimmed of times and HTTP headers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from workitems.agents import output
from workitems.agents.output import Ending
from workitems.agents.readers import READERS
from workitems.protocol import Usage

RECORDED = Path(__file__).parent / "recorded"


@dataclass(frozen=True)
class Case:
    reason: str
    message: str = ""
    usage: Usage = field(default_factory=Usage)
    shown: tuple[str, ...] = ()
    """The last lines for a person."""


CASES = {
    "codex-done": Case(
        "Succeeded",
        usage=Usage(input_tokens=2400, cached_input_tokens=600, output_tokens=50, turns=1),
        shown=(
            "I write the file.",
            "→ file_change /workspace/tree/src/a.py, /workspace/tree/src/new.py",
            "All done.",
            "turn 1 is done (2400 tokens in, 50 out)",
        ),
    ),
    "codex-failed-command": Case(
        "Succeeded",
        usage=Usage(input_tokens=2400, cached_input_tokens=600, output_tokens=50, turns=1),
        shown=(
            "→ command_execution /bin/bash -lc 'make test' (exit code 1)",
            "  1 failed",
            "All done.",
            "turn 1 is done (2400 tokens in, 50 out)",
        ),
    ),
    "codex-no-tool": Case(
        "Succeeded", usage=Usage(input_tokens=1200, cached_input_tokens=300, output_tokens=25, turns=1)
    ),
    "codex-key": Case("ModelKeyRefused", "Incorrect API key provided"),
    "codex-rate": Case(
        "ModelRateLimited",
        "429 Too Many Requests",
        shown=("! exceeded retry limit, last status: 429 Too Many Requests",),
    ),
    "codex-high-demand": Case("ModelOverloaded", "high demand"),  # said for a status 500
    "codex-overloaded": Case("ModelOverloaded", "503 Service Unavailable"),
    "codex-cut-stream": Case("ModelUnreachable", "stream disconnected before completion"),
    "codex-credit": Case("OutOfCredit", "Quota exceeded"),
    "codex-too-long": Case("PromptTooLong", "ran out of room in the model's context window"),
    "codex-refused": Case(
        "ModelRequestRefused",
        "refused the request: Unsupported parameter: 'foo'.",
        shown=("! Unsupported parameter: 'foo'.",),
    ),
    "codex-model": Case("ModelNotFound", "does not exist or you do not have access"),
    "codex-deleted": Case("NoResult"),
    "gemini-done": Case(
        "Succeeded",
        usage=Usage(input_tokens=3600, cached_input_tokens=900, output_tokens=99, turns=2),
        shown=(
            "[1] I write the file.",
            "[1] → write_file src/new.py",
            "[2] All done.",
            "2 turns (3600 tokens in, 99 out)",
        ),
    ),
    "gemini-no-tool": Case(
        "Succeeded", usage=Usage(input_tokens=2400, cached_input_tokens=600, output_tokens=66, turns=1)
    ),
    "gemini-key": Case(
        "ModelKeyRefused",
        "Secret: API key not valid. Please pass a valid API key.",
        shown=("! API key not valid. Please pass a valid API key.",),
    ),
    "gemini-billing": Case("OutOfCredit", "Secret: This API method requires billing to be enabled."),
    "gemini-daily-quota": Case("ModelRateLimited", "You have exhausted your daily quota on this model."),
    "gemini-too-long": Case("PromptTooLong", "The input token count (1234567) exceeds the maximum"),
    "gemini-model": Case("ModelNotFound", "agent's model: models/gemini-x is not found"),
    "gemini-refused": Case("ModelRequestRefused", "refused the request: Request contains an invalid argument."),
    "opencode-done": Case(
        "Succeeded",
        usage=Usage(input_tokens=2400, cached_input_tokens=700, output_tokens=50, turns=2, cost_usd="0.01122"),
        shown=("[1] I write the file.", "[1] → write src/new.py", "[2] All done.", "2 turns, 0.01122 USD"),
    ),
    "opencode-failed-command": Case(
        "Succeeded",
        usage=Usage(input_tokens=2400, cached_input_tokens=700, output_tokens=50, turns=2, cost_usd="0.01122"),
        shown=(
            "[1] → bash echo hi > /tmp/x; cat /tmp/x; exit 3 (exit code 3)",
            "[2] All done.",
            "2 turns, 0.01122 USD",
        ),
    ),
    # Without --auto: it refuses itself what lies outside of the worktree, and ends with 0.
    "opencode-refused-tool": Case(
        "NoResult",
        usage=Usage(input_tokens=1200, cached_input_tokens=350, output_tokens=25, turns=1, cost_usd="0.00561"),
        shown=("[1] ✗ read /etc/hostname: The user rejected permission to use this specific tool call.",),
    ),
    "opencode-too-long": Case("PromptTooLong", "210417 tokens > 200000 maximum"),
    "opencode-model": Case("ModelNotFound", "model: claude-opus-5-5"),
    "opencode-refused": Case("ModelRequestRefused", "at least one block is required"),
    "opencode-deleted": Case(
        "NoResult",
        usage=Usage(input_tokens=1200, cached_input_tokens=350, output_tokens=25, turns=1, cost_usd="0.00561"),
    ),
    "opencode-key": Case("ModelKeyRefused", "invalid x-api-key"),
    "opencode-credit": Case("OutOfCredit", "Your credit balance is too low"),
    "aider-done": Case(
        "Succeeded",
        usage=Usage(input_tokens=2500, cached_input_tokens=700, output_tokens=50, turns=2, cost_usd="0.0085"),
        shown=("Applied edit to src/a.py",),
    ),
    # All of them with exit code 0.
    "aider-key": Case("ModelKeyRefused", "Secret: invalid x-api-key"),
    "aider-credit": Case("OutOfCredit", "Secret: Your credit balance is too low to access the Anthropic API."),
    "aider-too-long": Case(
        "PromptTooLong",
        "Model claude-sonnet-4-5 has hit a token limit!",
        Usage(input_tokens=2700, cost_usd="0.0081"),
    ),
}
NAMES = sorted(CASES)


def _read(name: str) -> tuple[Ending, list[str]]:
    reader, shown = READERS[name.partition("-")[0]](), list[str]()
    for line in (RECORDED / f"{name}.txt").read_text().splitlines():
        shown += reader.feed(line)
    return reader.end(), shown


def test_every_recorded_output_is_read() -> None:
    assert {path.stem for path in RECORDED.iterdir()} == set(CASES)


@pytest.mark.parametrize("name", NAMES)
def test_what_the_real_cli_printed_is_read(name: str) -> None:
    case, (found, shown) = CASES[name], _read(name)
    assert found.reason == case.reason
    assert case.message in found.message
    assert found.usage == case.usage
    assert tuple(shown[len(shown) - len(case.shown) :]) == case.shown


def test_what_passes_by_itself_is_tried_again() -> None:
    retried = {name for name, case in CASES.items() if case.reason in output.RETRYABLE}
    assert retried == {
        *("codex-rate", "codex-high-demand", "codex-overloaded", "codex-cut-stream"),
        "gemini-daily-quota",
    }


@pytest.mark.parametrize(
    ("name", "session", "model"),
    [
        ("codex-done", "01a21b48-c6ee-7412-99fb-908d23caab60", None),
        ("gemini-done", "4dd186d1-f35d-4176-b413-7edda4d0abf7", "gemini-3.8-flash"),
        ("opencode-done", "ses_de4c083aaffelPbmFWvMzb9e3W", None),
        ("aider-done", None, "claude-sonnet-4-5"),
    ],
)
def test_who_worked_is_known(name: str, session: str | None, model: str | None) -> None:
    found, _ = _read(name)
    assert (found.session, found.model) == (session, model)
