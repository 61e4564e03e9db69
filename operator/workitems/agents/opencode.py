"""opencode (`opencode run --format json`): the command that a Pipeline gives, and how its NDJSON is read.

Run on 2026-11-27 with npm `opencode-ai` 1.18.33 against a scripted model. Events: text, tool_use, step_finish (tokens
and cost of one step), error. What stands on the input is appended to the message that is the argument. An error that
may pass (429, 5xx) is tried again until the agent's timeout, without an event: the lines of its log, on stderr, are all
that a person sees of it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from workitems.agents import output
from workitems.agents.output import Ending
from workitems.protocol import Usage

COMMAND = (
    "opencode",
    "run",
    "--auto",
    "--print-logs",
    "--log-level",
    "ERROR",
    "--title",
    "work item",
    "--format",
    "json",
    "-m",
    "anthropic/claude-opus-5-5",
    "Do the task that follows.",
)


@dataclass
class Reader:
    """Reads opencode's NDJSON."""

    _session: str | None = None
    _failure: tuple[str, str] | None = None
    _finished: bool = False
    _usage: Usage = field(default_factory=Usage)
    _cost: float = 0.0

    def feed(self, line: str) -> list[str]:
        """See output.Reader."""
        event = output.parsed(line)
        if event is None:
            return output.shown(line)
        self._session = self._session or output.text(event, "sessionID")[:100] or None
        part = output.inner(event, "part")
        match event.get("type"):
            case "text":
                return output.shown(output.text(part, "text"), f"[{self._usage.turns + 1}] ")
            case "tool_use":
                return output.shown(_tool(part), f"[{self._usage.turns + 1}] ")
            case "step_finish":
                return self._step(part)
            case "error":
                error = output.inner(event, "error")
                data = output.inner(error, "data")
                said = output.text(data, "message") or output.text(error, "name") or "error"
                self._failure = (output.from_answer(output.number(data, "statusCode"), said), said)
                return output.shown(f"! {said}")
        return []

    def end(self) -> Ending:
        """See output.Reader."""
        usage = dataclasses.replace(self._usage, cost_usd=output.money(self._cost))
        if self._failure is not None:
            return output.ending(*self._failure, usage=usage, session=self._session)
        reason = output.SUCCEEDED if self._finished else output.NO_RESULT
        return output.ending(reason, "", usage=usage, session=self._session)

    def _step(self, part: output.JSON) -> list[str]:
        tokens = output.inner(part, "tokens")
        cache = output.inner(tokens, "cache")
        # A step that ends because tools were called is not the last one.
        self._finished = part.get("reason") != "tool-calls"
        self._cost = min(self._cost + output.amount(part, "cost"), 1e9)
        self._usage = Usage(
            input_tokens=self._usage.input_tokens + output.number(tokens, "input"),
            output_tokens=self._usage.output_tokens + output.number(tokens, "output"),
            cached_input_tokens=self._usage.cached_input_tokens
            + output.number(cache, "read")
            + output.number(cache, "write"),
            turns=self._usage.turns + 1,
        )
        return output.shown(f"{self._usage.turns} turns, {output.money(self._cost)} USD") if self._finished else []


def _tool(part: output.JSON) -> str:
    state = output.inner(part, "state")
    mark = "✗" if state.get("status") == "error" else "→"
    words = output.text(state, "title") or output.gist(state.get("input"))
    code = output.number(output.inner(state, "metadata"), "exit")
    why = f": {error}" if (error := output.text(state, "error")) else ""
    return f"{mark} {output.text(part, 'tool')} {words}{why}" + (f" (exit code {code})" if code else "")
