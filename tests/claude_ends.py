"""How a run of the real Claude Code CLI may fail: what the scripted model does, and what a person must then read.

For the tests of the runner and of the cluster alike.
"""

from __future__ import annotations

from typing import Any

JSON = dict[str, Any]


def write(path: str, content: str = "text\n") -> JSON:
    return {"use": "Write", "input": {"file_path": f"{{cwd}}/{path}", "content": content}}


def bash(command: str) -> JSON:
    return {"use": "Bash", "input": {"command": command, "description": "as the script says"}}


FAILURES: dict[str, tuple[list[JSON], JSON, str, str]] = {
    "a bad key": (
        [{"fail": 401, "type": "authentication_error", "message": "invalid x-api-key"}],
        {},
        "ModelKeyRefused",
        "put a valid one into the agent's credentials Secret: HTTP 401",
    ),
    "a key without the right": (
        [{"fail": 403, "type": "permission_error", "message": "no access"}],
        {},
        "ModelKeyRefused",
        "HTTP 403",
    ),
    "no credit": (
        [
            {
                "fail": 400,
                "type": "invalid_request_error",
                "message": "Your credit balance is too low to access the API.",
            }
        ],
        {},
        "OutOfCredit",
        "top it up",
    ),
    "no such model": ([{"fail": 404, "type": "not_found_error", "message": "model: x"}], {}, "ModelNotFound", "model"),
    "a limited rate": ([{"fail": 429, "type": "rate_limit_error"}], {}, "ModelRateLimited", "HTTP 429"),
    "an overloaded model": ([{"fail": 529, "type": "overloaded_error"}], {}, "ModelOverloaded", "HTTP 529"),
    "a broken server": ([{"fail": 500, "type": "api_error"}], {}, "ModelUnavailable", "HTTP 500"),
    "a prompt that is too long": (
        [
            {
                "fail": 400,
                "type": "invalid_request_error",
                "message": "prompt is too long: 300000 tokens > 200000 maximum",
            }
        ],
        {},
        "PromptTooLong",
        "shorten the description",
    ),
    "a refused request": (
        [{"fail": 400, "type": "invalid_request_error", "message": "nonsense"}],
        {},
        "ModelRequestRefused",
        "nonsense",
    ),
    "the last turn": (
        [bash("echo 1"), bash("echo 2"), bash("echo 3")],
        {"maxTurns": 2},
        "MaxTurnsReached",
        "Reached maximum number of turns (2)",
    ),
    "the last dollar": (
        [{**bash("echo 1"), "usage": {"input_tokens": 2_000_000}}, bash("echo 2")],
        {"maxBudgetUSD": "1"},
        "MaxBudgetReached",
        "Reached maximum budget ($1)",
    ),
    "a tool that is denied": ([write(".claude/settings.json", "{}")], {}, "ToolsDenied", "denied: Write"),
}
"""A sentence -> moves of the model, claudeCode options, reason, words of the message."""
