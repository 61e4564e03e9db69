"""What the output of each agent CLI says: how the run ended, what it used, and what a person sees of it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from workitems.agents import output
from workitems.agents.output import Ending, settled
from workitems.agents.readers import PRESETS, READERS
from workitems.api import Agent
from workitems.protocol import Usage

DOCS = Path(__file__).parents[3] / "docs/agents.md"
NAMES = sorted(READERS)
JSON = dict[str, Any]


@dataclass(frozen=True)
class Case:
    cli: str
    lines: list[JSON | str]
    reason: str
    usage: Usage
    message: str = ""
    shown: list[str] = field(default_factory=list)


def _codex(*last: JSON) -> list[JSON | str]:
    return [
        {"type": "thread.started", "thread_id": "th_1"},
        {"type": "turn.started"},
        {"type": "item.completed", "item": {"id": "i1", "type": "agent_message", "text": "I look."}},
        {
            "type": "item.completed",
            "item": {
                "type": "command_execution",
                "command": "make test",
                "aggregated_output": "F\n\nmake: *** [test] Error 2\n",
                "exit_code": 2,
            },
        },
        *last,
    ]


def _claude(message: str, *content: JSON, fresh: int, said: int) -> JSON:
    usage = {"input_tokens": fresh, "output_tokens": said, "cache_read_input_tokens": 1000}
    return {"type": "assistant", "message": {"id": message, "content": list(content), "usage": usage}}


CASES = {
    "codex: done": Case(
        "codex",
        _codex(
            {"type": "turn.completed", "usage": {"input_tokens": 90, "cached_input_tokens": 60, "output_tokens": 7}}
        ),
        "Succeeded",
        Usage(input_tokens=30, cached_input_tokens=60, output_tokens=7, turns=1),
        shown=[
            "codex, thread th_1",
            "I look.",
            "→ command_execution make test (exit code 2)",
            "  F",
            "  make: *** [test] Error 2",
            "turn 1 is done (30 tokens in, 7 out)",
        ],
    ),
    "codex: a failed turn": Case(
        "codex",
        _codex({"type": "turn.failed", "error": {"message": "unexpected status 401 Unauthorized"}}),
        "ModelKeyRefused",
        Usage(),
        "401 Unauthorized",
    ),
    "codex: an error is all that there is": Case(
        "codex",
        [{"type": "thread.started", "thread_id": "th_1"}, {"type": "error", "message": "429 Too Many Requests"}],
        "ModelRateLimited",
        Usage(),
        "429 Too Many Requests",
        ["codex, thread th_1", "! 429 Too Many Requests"],
    ),
    "codex: an error that was overcome": Case(
        "codex",
        _codex({"type": "error", "message": "Reconnecting... 1/5"}, {"type": "turn.completed", "usage": {}}),
        "Succeeded",
        Usage(turns=1),
    ),
    "codex: an end without a turn's end": Case("codex", _codex(), "NoResult", Usage()),
    "gemini: an answer in pieces, thoughts, and a tool that failed": Case(
        "gemini",
        [
            "Loaded cached credentials.",
            {"type": "init", "session_id": "s1", "model": "auto"},
            {"type": "message", "role": "user", "content": "the prompt"},
            {"type": "message", "role": "assistant", "content": "I lo", "delta": True},
            {"type": "message", "role": "assistant", "content": "ok.\nAnd rea", "delta": True},
            {"type": "message", "role": "assistant", "content": "d.", "delta": True},
            {"type": "tool_use", "tool_name": "read_file", "parameters": {"file_path": "a.py"}},
            {"type": "tool_result", "status": "error", "error": {"message": "File not found."}},
            {"type": "message", "role": "assistant", "content": "No file.", "delta": True},
            {
                "type": "result",
                "status": "success",
                "stats": {"total_tokens": 65, "input_tokens": 50, "output_tokens": 9, "cached": 5},
            },
        ],
        "Succeeded",
        Usage(input_tokens=45, output_tokens=15, cached_input_tokens=5, turns=2),
        shown=[
            "Loaded cached credentials.",
            "gemini, session s1",
            "[1] I look.",
            "[1] And read.",
            "[1] → read_file a.py",
            "[1] ✗ File not found.",
            "[2] No file.",
            "2 turns (45 tokens in, 15 out)",
        ],
    ),
    "gemini: the turn limit": Case(
        "gemini",
        [
            {
                "type": "result",
                "status": "error",
                "error": {"type": "FatalTurnLimitedError", "message": "Reached max session turns"},
            }
        ],
        "MaxTurnsReached",
        Usage(),
        "Reached max session turns",
    ),
    "gemini: an error without words of its own has the last ones": Case(
        "gemini",
        [
            {"type": "error", "severity": "error", "message": "The model returned an empty response"},
            {"type": "result", "status": "error", "stats": {}},
        ],
        "AgentFailed",
        Usage(),
        "The model returned an empty response",
    ),
    "gemini: a success without an answer": Case(
        "gemini", [{"type": "result", "status": "success", "stats": {}}], "NoWorkDone", Usage()
    ),
    "gemini: nothing": Case("gemini", [], "NoResult", Usage()),
    "opencode: done": Case(
        "opencode",
        [
            {"type": "step_start", "sessionID": "ses_1", "part": {"type": "step-start"}},
            {"type": "text", "sessionID": "ses_1", "part": {"text": "I look."}},
            {
                "type": "tool_use",
                "part": {"tool": "bash", "state": {"status": "completed", "input": {"command": "ls"}, "title": "List"}},
            },
            {
                "type": "step_finish",
                "part": {
                    "reason": "tool-calls",
                    "cost": 0.01,
                    "tokens": {"input": 10, "output": 2, "cache": {"read": 3}},
                },
            },
            {"type": "step_finish", "part": {"reason": "stop", "cost": 0.02, "tokens": {"input": 5, "output": 1}}},
        ],
        "Succeeded",
        Usage(input_tokens=15, output_tokens=3, cached_input_tokens=3, turns=2, cost_usd="0.03"),
        shown=["[1] I look.", "[1] → bash List", "2 turns, 0.03 USD"],
    ),
    "opencode: an error": Case(
        "opencode",
        [{"type": "error", "error": {"name": "APIError", "data": {"message": "Overloaded"}}}],
        "ModelOverloaded",
        Usage(),
        "Overloaded",
        ["! Overloaded"],
    ),
    "opencode: cut off between two steps": Case(
        "opencode", [{"type": "step_finish", "part": {"reason": "tool-calls"}}], "NoResult", Usage(turns=1)
    ),
    "aider: done": Case(
        "aider",
        [
            "Added src/a.py to the chat",
            "Tokens: 2.3k sent, 1.1k cache hit, 150 received. Cost: $0.01 message, $0.01 session.",
            "Tokens: 1,000 sent, 50 received. Cost: $0.02 message, $0.03 session.",
        ],
        "Succeeded",
        Usage(input_tokens=2200, output_tokens=200, cached_input_tokens=1100, turns=2, cost_usd="0.03"),
    ),
    "aider: a failure that was overcome": Case(
        "aider",
        [
            "litellm.InternalServerError: AnthropicException - Overloaded",
            "Retrying in 0.2 seconds...",
            "Done.",
            "Tokens: 900 sent, 50 received.",
            "Cost: $0.02 message, $0.02 session.",
        ],
        "Succeeded",
        Usage(input_tokens=900, output_tokens=50, turns=1, cost_usd="0.02"),
    ),
    "aider: a defect of its own": Case(
        "aider", ["# Uncaught OSError in util.py line 1054", "", "Aider version"], "AgentFailed", Usage(), "OSError"
    ),
    "aider: nothing": Case("aider", [], "NoWorkDone", Usage()),
    "claude: output after the result is no result": Case(
        "claude",
        [
            {"type": "result", "subtype": "success", "is_error": False, "num_turns": 1, "result": "forged"},
            "something else",
        ],
        "NoResult",
        Usage(),
        "something else",
    ),
    "claude: killed in the middle of a line": Case(
        "claude",
        [
            {"type": "system", "subtype": "init", "session_id": "s"},
            _claude("m1", {"type": "text", "text": "I look."}, fresh=100, said=5),
            # The same message goes on: its usage so far, not one more of it.
            _claude("m1", {"type": "tool_use", "id": "t1", "name": "Bash", "input": {}}, fresh=100, said=20),
            {"type": "user", "message": {"content": [{"type": "tool_result", "tool_use_id": "t1", "content": "ok"}]}},
            _claude("m2", {"type": "text", "text": "I write."}, fresh=30, said=7),
            '{"type":"assistant","message":{"id":"m3","usage":{"input_tok',
        ],
        "NoResult",
        Usage(input_tokens=130, output_tokens=27, cached_input_tokens=2000, turns=2),
        "I write.",
    ),
    "claude: no is_error is an error": Case(
        "claude", [{"type": "result", "subtype": "success", "num_turns": 1}], "AgentFailed", Usage(turns=1)
    ),
    "claude: an interrupted run": Case(
        "claude",
        [
            {
                "type": "result",
                "subtype": "error_during_execution",
                "is_error": True,
                "errors": ["No conversation found"],
            }
        ],
        "AgentFailed",
        Usage(),
        "No conversation found",
    ),
}


def _read(case: Case) -> tuple[Ending, list[str]]:
    reader, shown = READERS[case.cli](), list[str]()
    for line in case.lines:
        shown += reader.feed(line if isinstance(line, str) else json.dumps(line))
    return reader.end(), shown


@pytest.mark.parametrize("name", CASES)
def test_an_output_is_read_for_its_end(name: str) -> None:
    case = CASES[name]
    found, shown = _read(case)
    assert found.reason == case.reason
    assert case.message in found.message
    assert (found.message == "") == (case.reason == "Succeeded")
    assert found.usage in (case.usage, None if case.usage == Usage() else case.usage)
    if case.shown:
        assert shown == case.shown


def test_a_denied_tool_matters_only_where_nothing_came_of_the_run() -> None:
    denied = Ending(output.SUCCEEDED, denied=("Bash", "WebFetch"))
    assert settled(denied, changed=True) == denied
    assert settled(Ending(output.SUCCEEDED), changed=False).reason == output.SUCCEEDED
    refused = settled(denied, changed=False)
    assert refused.reason == output.TOOLS_DENIED
    assert "denied: Bash, WebFetch" in refused.message


def test_the_log_has_no_escape_sequences_and_no_endless_lines() -> None:
    reader = READERS["claude"]()
    said = "\x1b]0;evil\x07\x1b[2J" + "x" * 5000 + "\n" * 3 + "\n".join(str(number) for number in range(100))
    message = {"id": "m", "content": [{"type": "text", "text": said}]}
    shown = reader.feed(json.dumps({"type": "assistant", "message": message}))
    assert all(line.isprintable() and len(line) <= output.LINE_CHARACTERS + 10 for line in shown)
    assert shown[-1] == f"[1] … {101 - output.TEXT_LINES} more lines"


@pytest.mark.parametrize(
    ("status", "said", "reason"),
    [
        (400, "Your credit balance is too low", "OutOfCredit"),
        (400, "messages: at least one is required", "ModelRequestRefused"),
        (400, "prompt is too long: 210417 tokens > 200000 maximum", "PromptTooLong"),
        (403, "This API method requires billing to be enabled.", "OutOfCredit"),
        (429, "You exceeded your current quota", "ModelRateLimited"),
        (401, "Prompt is too long to be authenticated", "ModelKeyRefused"),
        (500, "no credit", "ModelUnavailable"),
    ],
)
def test_where_a_status_has_several_reasons_the_words_tell(status: int, said: str, reason: str) -> None:
    assert output.from_answer(status, said) == reason


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("stream disconnected before completion: failed to lookup address information", "ModelUnreachable"),
        ("Reconnecting... 4/5 (unexpected end)", "AgentFailed"),
        ("litellm.APIConnectionError: AnthropicException - Cannot connect to host", "ModelUnreachable"),
        ("litellm.ServiceUnavailableError: AnthropicException - x", "ModelUnavailable"),
        ("exception TypeError: fetch failed sending request", "ModelUnreachable"),
    ],
)
def test_the_words_of_a_cli_have_reasons(said: str, reason: str) -> None:
    assert output.from_words(said) == reason


def test_statuses_of_a_models_api_have_reasons() -> None:
    reasons = {
        status: output.from_status(status) for status in (None, 400, 401, 402, 403, 404, 413, 429, 500, 503, 529)
    }
    assert reasons == {
        None: "ModelUnreachable",
        400: "ModelRequestRefused",
        401: "ModelKeyRefused",
        402: "OutOfCredit",
        403: "ModelKeyRefused",
        404: "ModelNotFound",
        413: "PromptTooLong",
        429: "ModelRateLimited",
        500: "ModelUnavailable",
        503: "ModelUnavailable",
        529: "ModelOverloaded",
    }
    assert {reason for reason in reasons.values() if reason in output.RETRYABLE} == {
        "ModelUnreachable",
        "ModelRateLimited",
        "ModelUnavailable",
        "ModelOverloaded",
    }


WORDS = ["type", "result", "system", "assistant", "user", "init", "message", "content", "usage", "num_turns", "item"]
WORDS += ["turn.completed", "error", "part", "tokens", "stats", "models", "text", "tool_use", "input", "subtype", "id"]
WORDS += ["permission_denials", "modelUsage", "total_cost_usd", "step_finish", "cost", "is_error", "api_error_status"]
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(WORDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=6),
    max_leaves=20,
)
LINES = st.lists(
    st.text(max_size=30)
    | st.dictionaries(st.sampled_from(WORDS), ANYTHING, max_size=6).map(json.dumps)
    | st.just('{"a":' * 5000)
    | st.just("Tokens: ..k sent, ,,M received. Cost: $. message, $9 session.")
    | st.just(f'{{"type": "result", "total_cost_usd": {"9" * 400}, "num_turns": 1e999}}'),
    max_size=8,
)


@pytest.mark.slow
@pytest.mark.parametrize("cli", NAMES)
@given(lines=LINES)
def test_no_output_whatever_its_shape_breaks_a_reader(cli: str, lines: list[str]) -> None:
    reader = READERS[cli]()
    for line in lines:
        assert all(shown.isprintable() for shown in reader.feed(line))
    found = reader.end()
    assert len(found.message) <= output.MESSAGE_CHARACTERS
    assert found.reason.isalpha()


@pytest.mark.parametrize("cli", sorted(PRESETS))
def test_the_documentation_shows_each_preset_as_it_is(cli: str) -> None:
    blocks = [yaml.safe_load(text.split("```")[0]) for text in DOCS.read_text().split("```yaml\n")[1:]]
    agents = [Agent.model_validate(agent) for block in blocks for agent in block.values() if isinstance(agent, dict)]
    (shown,) = [agent for agent in agents if agent.output == cli]
    assert shown.command == PRESETS[cli]
