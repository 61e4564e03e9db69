"""Claude Code, headless: its command line and its environment; `claude_stream.py` reads its output.

The repository that it works on is hostile: its `.claude/settings.json` may name another API address, hooks and helper
programs, its `.mcp.json` may start servers, and the CLI obeys all of it without a question. So no setting source is
read at all, MCP servers are the Pipeline's alone, and what of the repository is to reach the agent (CLAUDE.md) goes the
way of the system prompt. The prompt is the CLI's input, never an argument. Behaviour measured with version 2.1.330.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from workitems.api.agent import ClaudeCode, ModelCredentials
from workitems.protocol import EXCHANGE, SYSTEM_PROMPT_FILE

PROGRAM = "claude"
TOOLS = ("Read", "Write", "Edit", "Bash")
INSTRUCTIONS_FILE = "CLAUDE.md"
DEFAULT_KEY = "apiKey"
"""The Secret's key that holds an API key where the credentials name none."""
API_KEY, AUTH_TOKEN, BASE_URL = "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL"
# Reach out of the container on the model's own account, so they are denied unless the Pipeline grants them.
_DENIED = ("WebFetch", "WebSearch")

# What a Pipeline may set otherwise.
PREFERENCES = {
    # The CLI's own ten retries take three minutes; what lasts longer is retried as a run, with backoff.
    "CLAUDE_CODE_MAX_RETRIES": "3",
}
# What it may not: calls home that carry the key, files inlined by `@path` in a prompt, memories of other runs.
SWITCHES = {
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "CLAUDE_CODE_DISABLE_BACKGROUND_TASKS": "1",
    "CLAUDE_CODE_DISABLE_FILE_MENTIONS": "1",
    "CLAUDE_CODE_DISABLE_AUTO_MEMORY": "1",
    "DISABLE_AUTOUPDATER": "1",
}

SYSTEM_PROMPT = """\
You work without a person at the keyboard: nobody answers questions while you work. Where the task lets you write \
questions into a file, do that and end; otherwise decide and say what you decided.

You are in a git worktree. Git's own directory is read-only: read history with git log, git show and git diff as you \
like, but do not try to commit, to switch branches or to push. What you leave in the worktree is committed and pushed \
for you after you end, as far as your role may change it: {commit_paths}. Documents of the work item belong into \
{documents}.
"""
# POSIX sh, and constant: the session is continued if its file has something in it (a kill may leave an empty one), else
# a new one begins. Nothing is pasted in.
CONTINUE = """\
old=$1 new=$2
shift 2
for file in "$HOME"/.claude/projects/*/"$old".jsonl; do
  [ -s "$file" ] && exec "$@" --resume="$old"
done
exec "$@" --session-id "$new"
"""


@dataclass(frozen=True)
class Session:
    """The conversation of a run: a new one, or that of an earlier run of the stage if it is still on the volume."""

    new: str
    old: str | None = None


def session_id(uid: str, run: int) -> str:
    """The id of a run's own session: a session can begin once only, so each run has another one."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"workitems.dev/{uid}/{run}"))


def system_prompt(documents: str, commit_paths: Sequence[str]) -> str:
    """What the CLI's own system prompt does not know: nobody is there, git is read-only, and what will be kept."""
    changes = "everything" if "." in commit_paths else ", ".join(commit_paths)
    return SYSTEM_PROMPT.format(documents=documents, commit_paths=changes)


def argv(settings: ClaudeCode, session: Session, budget_usd: Decimal | None) -> list[str]:
    """The command line. `budget_usd`: what the run may cost at most; None: no limit."""
    tools = settings.tools or TOOLS
    servers = settings.mcp_servers or {}
    allowed = [*tools, *(f"mcp__{name}" for name in servers)]
    command = [
        PROGRAM,
        "--print",
        # stream-json needs --verbose.
        *("--output-format", "stream-json", "--verbose"),
        *("--setting-sources", ""),
        "--strict-mcp-config",
        *("--settings", _settings(tools)),
        *("--permission-mode", "dontAsk"),
        *("--tools", ",".join(_names(tools))),
        # One argument a rule: the option takes all up to the next option.
        *("--allowedTools", *allowed),
        "--disable-slash-commands",
        *("--append-system-prompt-file", f"{EXCHANGE}/{SYSTEM_PROMPT_FILE}"),
    ]
    options = {
        "--model": settings.model,
        "--fallback-model": settings.fallback_model,
        "--effort": settings.effort,
        "--max-turns": None if settings.max_turns is None else str(settings.max_turns),
        "--max-budget-usd": None if budget_usd is None else format(budget_usd, "f"),
    }
    for name, value in options.items():
        command += [] if value is None else [name, value]
    if servers:
        listed = {name: server.to_json() for name, server in servers.items()}
        command += ["--mcp-config", json.dumps({"mcpServers": listed})]
    if session.old is None:
        return [*command, "--session-id", session.new]
    return ["/bin/sh", "-c", CONTINUE, PROGRAM, session.old, session.new, *command]


def credentials_environment(credentials: ModelCredentials | None) -> list[dict[str, Any]]:
    """The variables with the model's key and address, as a container's env; the key by reference, never by value."""
    if credentials is None:
        return []
    name, key = AUTH_TOKEN, credentials.auth_token
    if key is None:
        name, key = API_KEY, credentials.api_key or DEFAULT_KEY
    reference = {"secretKeyRef": {"name": credentials.secret_name, "key": key}}
    variables: list[dict[str, Any]] = [{"name": name, "valueFrom": reference}]
    if credentials.base_url is not None:
        variables.append({"name": BASE_URL, "value": credentials.base_url})
    return variables


def _settings(tools: Sequence[str]) -> str:
    denied = [tool for tool in _DENIED if tool not in _names(tools)]
    return json.dumps({"attribution": {"commit": "", "pr": ""}, "permissions": {"deny": denied}})


def _names(tools: Sequence[str]) -> tuple[str, ...]:
    """The tools without their scopes: `Bash(git log:*)` is Bash; an MCP server's are not among the built-in ones."""
    names = (re.split(r"[(\s]", tool, maxsplit=1)[0] for tool in tools)
    return tuple(dict.fromkeys(name for name in names if not name.startswith("mcp__")))
