"""OpenAI Codex CLI (`codex exec --json`): the command that a Pipeline gives, and how its JSONL is read.

Run on 2026-11-27 with npm `@openai/codex` 0.169.0 against a scripted model. Events: thread.started, item.started and
item.completed (agent messages, commands, file changes), turn.completed with usage, turn.failed and error with a
message, mostly the same one twice. Costs are not told, nor the tokens of a turn that failed.

Codex' own sandbox is bubblewrap, which needs user namespaces. The pod's seccomp profile has none, every command failed,
and the run was a success that changed nothing: the container is the sandbox.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from workitems.agents import output
from workitems.agents.output import Ending
from workitems.protocol import Usage

COMMAND = (
    "codex",
    "exec",
    "--json",
    "--sandbox",
    "danger-full-access",
    "--ephemeral",
    "-o",
    "/tmp/last.txt",  # noqa: S108 - in the container, and outside of the worktree
    "-",
)

_ITEM_WORDS = {"agent_message": "text", "reasoning": "text", "command_execution": "command", "error": "message"}


@dataclass
class Reader:
    """Reads Codex' JSONL."""

    _session: str | None = None
    _failure: str | None = None
    _error: str = ""
    _completed: bool = False
    _usage: Usage = field(default_factory=Usage)

    def feed(self, line: str) -> list[str]:
        """See output.Reader."""
        event = output.parsed(line)
        if event is None:
            return output.shown(line)
        match event.get("type"):
            case "thread.started":
                self._session = output.text(event, "thread_id")[:100] or None
                return output.shown(f"codex, thread {self._session}")
            case "item.completed":
                return _item(output.inner(event, "item"))
            case "turn.completed":
                used = output.inner(event, "usage")
                self._completed = True
                cached = output.number(used, "cached_input_tokens")
                self._usage = Usage(
                    # What came from the cache is counted among the input.
                    input_tokens=self._usage.input_tokens + max(output.number(used, "input_tokens") - cached, 0),
                    output_tokens=self._usage.output_tokens + output.number(used, "output_tokens"),
                    cached_input_tokens=self._usage.cached_input_tokens + cached,
                    turns=self._usage.turns + 1,
                )
                tokens = f"{self._usage.input_tokens} tokens in, {self._usage.output_tokens} out"
                return output.shown(f"turn {self._usage.turns} is done ({tokens})")
            case "turn.failed":
                self._failure = output.text(output.inner(event, "error"), "message") or "turn.failed"
                return [] if self._failure == self._error else output.shown(f"! {output.spoken(self._failure)}")
            case "error":
                # Fatal ones may be all that there is; others are tried again, and a turn is completed after them.
                self._error = output.text(event, "message") or "error"
                return output.shown(f"! {output.spoken(self._error)}")
        return []

    def end(self) -> Ending:
        """See output.Reader."""
        failure = self._failure or ("" if self._completed else self._error)
        if failure:
            return output.ending(output.from_words(failure), output.spoken(failure), **self._facts())
        if not self._completed:
            return output.ending(output.NO_RESULT, "", **self._facts())
        return output.ending(output.SUCCEEDED, "", **self._facts())

    def _facts(self) -> dict[str, object]:
        return {"usage": self._usage, "session": self._session}


def _item(item: output.JSON) -> list[str]:
    kind = output.text(item, "type")
    words = output.text(item, _ITEM_WORDS.get(kind, ""))
    if kind == "agent_message":
        return output.shown(words)
    if kind == "error":
        return output.shown(f"! {words}")
    code = item.get("exit_code")
    ended = f" (exit code {code})" if isinstance(code, int) else ""
    changed = ", ".join(output.text(change, "path") for change in output.objects(item, "changes"))
    shown = output.shown(f"→ {kind} {output.gist(words or changed or item)}{ended}")
    # Why a command failed: its last lines.
    said = output.text(item, "aggregated_output").splitlines()[-5:] if code else []
    return [*shown, *output.shown("\n".join(said), "  ")]
