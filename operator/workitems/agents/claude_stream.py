"""Claude Code's stream-json, one JSON object a line, the last one of type `result`. Measured with version 2.1.330.

A run is a success only if the last line is a result, is no error, and took at least one turn; the exit code, which
must be 0 as well, is the operator's to look at. An error of the model's API is a result of subtype "success" too.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from workitems.agents import output
from workitems.agents.output import Ending
from workitems.plain import readable
from workitems.protocol import Usage

NAME_CHARACTERS = 100
MOST_CALLS = 10_000
GIST_CHARACTERS = 160


@dataclass
class Reader:
    """Reads stream-json: one JSON object a line, the last one of type `result`."""

    _result: output.JSON | None = None
    _folder: str = ""
    _session: str | None = None
    _model: str | None = None
    _turns: int = 0
    _answer: str = ""
    _noise: str = ""
    _message: str = ""
    _before: Usage = field(default_factory=Usage)
    _now: Usage = field(default_factory=Usage)
    _calls: dict[str, str] = field(default_factory=dict)
    _worked: set[str] = field(default_factory=set)

    def feed(self, line: str) -> list[str]:
        """See output.Reader."""
        event = output.parsed(line)
        if event is None:
            if line.strip():
                # Whatever it is, after it the result is no longer the last line.
                self._result, self._noise = None, line
            return output.shown(line)
        self._result = None
        match event.get("type"):
            case "system":
                return self._system(event)
            case "assistant":
                return self._assistant(event)
            case "user":
                return self._tool_results(event)
            case "result":
                self._result = event
                return self._finished(event)
        return []

    def end(self) -> Ending:
        """See output.Reader."""
        result = self._result
        facts = {"usage": self._usage(), "session": self._session, "model": self._model}
        if result is None:
            return output.ending(output.NO_RESULT, self._answer or self._noise, **facts)
        reason, said = _reason(result)
        return output.ending(reason, said, **facts, denied=self._denied(result))

    def _system(self, event: output.JSON) -> list[str]:
        kind = event.get("subtype")
        if kind == "init":
            self._folder = f"{output.text(event, 'cwd').rstrip('/')}/"
            self._session = output.text(event, "session_id")[:NAME_CHARACTERS] or None
            self._model = readable(output.text(event, "model"), NAME_CHARACTERS) or None
            version = output.text(event, "claude_code_version")
            return output.shown(f"Claude Code {version}, model {self._model}, session {self._session}")
        if kind == "api_retry":
            attempt, most = output.number(event, "attempt"), output.number(event, "max_retries")
            return output.shown(f"! the model's API: {event.get('error')}; retry {attempt} of {most}")
        if kind == "permission_denied":
            return output.shown(f"! denied: {output.text(event, 'tool_name')}")
        return []

    def _assistant(self, event: output.JSON) -> list[str]:
        message = output.inner(event, "message")
        identity = output.text(message, "id")
        if identity != self._message:
            self._message, self._before = identity, _sum(self._before, self._now)
            self._turns += 1
        # Several events in a row may carry parts of one message, each with its usage so far.
        self._now = _tokens(output.inner(message, "usage"))
        lines: list[str] = []
        for block in output.objects(message, "content"):
            mark = f"[{self._turns}] "
            if block.get("type") == "text":
                self._answer = output.text(block, "text")
                lines += output.shown(self._answer, mark)
            elif block.get("type") == "tool_use":
                name = output.text(block, "name")
                self._remember(output.text(block, "id"), name)
                lines += output.shown(f"→ {name} {self._gist(block.get('input'))}", mark)
        return lines

    def _tool_results(self, event: output.JSON) -> list[str]:
        lines: list[str] = []
        for block in output.objects(output.inner(event, "message"), "content"):
            if block.get("type") != "tool_result":
                continue
            failed = block.get("is_error") is True
            if not failed and len(self._worked) < MOST_CALLS:
                self._worked.add(self._calls.pop(output.text(block, "tool_use_id"), ""))
            content = block.get("content")
            said = (
                content
                if isinstance(content, str)
                else " ".join(output.text(part, "text") for part in output.objects(block, "content"))
            )
            lines += output.shown(f"{'✗' if failed else '←'} {self._gist(said)}", f"[{self._turns}] ")
        return lines

    def _gist(self, value: object) -> str:
        """The gist of a tool's arguments or result, paths in the worktree without the way to it."""
        gist = output.gist(value, 400)
        return readable(gist.replace(self._folder, "") if len(self._folder) > 1 else gist, GIST_CHARACTERS)

    def _remember(self, call: str, tool: str) -> None:
        """Which tool a call was of. Bounded: an agent may claim as many calls as it likes."""
        if len(self._calls) < MOST_CALLS:
            self._calls[call[:NAME_CHARACTERS]] = tool[:NAME_CHARACTERS]

    def _finished(self, event: output.JSON) -> list[str]:
        reason, said = _reason(event)
        seconds = output.number(event, "duration_ms") // 1000
        usage = self._usage()
        used = f"{usage.turns} turns, {seconds} s, {usage.cost_usd} USD"
        tokens = f"{usage.input_tokens + usage.cached_input_tokens} tokens in, {usage.output_tokens} out"
        how = "done" if reason == output.SUCCEEDED else f"ended: {reason}: {said}"
        return output.shown(f"{how} ({used}; {tokens})")

    def _usage(self) -> Usage:
        # What the answers said on their way; what they cost only the result would tell.
        streamed = _sum(self._before, self._now)
        if self._result is None:
            return dataclasses.replace(streamed, turns=self._turns)
        total = _tokens(output.inner(self._result, "usage"))
        if total == Usage():
            # After a budget's end the models have the figures; `modelUsage` has the whole conversation's, so not that.
            for model in output.inner(self._result, "model_usage_since_last_result").values():
                total = _sum(total, _tokens(model if isinstance(model, dict) else {}, _CAMEL))
        total = streamed if total == Usage() else total
        turns, cost = output.number(self._result, "num_turns"), output.amount(self._result, "total_cost_usd")
        return dataclasses.replace(total, turns=turns, cost_usd=output.money(cost))

    def _denied(self, result: output.JSON) -> tuple[str, ...]:
        names = (output.text(entry, "tool_name") for entry in output.objects(result, "permission_denials"))
        return tuple(dict.fromkeys(name for name in names if name and name not in self._worked))


_SNAKE = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
_CAMEL = ("inputTokens", "outputTokens", "cacheReadInputTokens", "cacheCreationInputTokens")


def _tokens(usage: output.JSON, names: tuple[str, str, str, str] = _SNAKE) -> Usage:
    fresh, said, read, written = (output.number(usage, name) for name in names)
    return Usage(input_tokens=fresh, output_tokens=said, cached_input_tokens=read + written)


def _sum(one: Usage, other: Usage) -> Usage:
    return Usage(
        input_tokens=one.input_tokens + other.input_tokens,
        output_tokens=one.output_tokens + other.output_tokens,
        cached_input_tokens=one.cached_input_tokens + other.cached_input_tokens,
    )


def _reason(result: output.JSON) -> tuple[str, str]:
    """The reason of a result line, and what the CLI says about it itself."""
    subtype, terminal = output.text(result, "subtype"), output.text(result, "terminal_reason")
    errors = result.get("errors")
    said = output.text(result, "result") or output.gist(errors if isinstance(errors, list) else None)
    if subtype == "error_max_turns":
        return output.MAX_TURNS, said
    if subtype == "error_max_budget_usd":
        return output.MAX_BUDGET, said
    if result.get("is_error") is not False:
        if terminal == "prompt_too_long":
            return output.PROMPT_TOO_LONG, said
        if "credit balance" in said.lower():
            return output.OUT_OF_CREDIT, said
        status = result.get("api_error_status")
        if isinstance(status, int) and not isinstance(status, bool):
            return output.from_status(status), f"HTTP {status}: {said}"
        # No answer at all, or no key to ask with: only the words tell.
        reason = output.from_words(said) if terminal == "api_error" else output.AGENT_ERROR
        return (output.UNREACHABLE if terminal == "api_error" and reason == output.AGENT_ERROR else reason), said
    if subtype != "success":
        return output.AGENT_ERROR, f"{subtype}: {said}"
    if output.number(result, "num_turns") == 0:
        return output.NO_WORK, said
    return output.SUCCEEDED, said
