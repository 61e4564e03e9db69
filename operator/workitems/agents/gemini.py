"""Gemini CLI (`gemini --output-format stream-json`): the command that a Pipeline gives, and how its NDJSON is read.

Run on 2026-11-27 with npm `@google/gemini-cli` 0.61.0 against a scripted model. Events: init, message (an answer comes
in pieces), tool_use, tool_result, error, and at the end one result with `status`, `stats` and, where a request failed,
`error`. A refusal to start (no key: exit code 41; a folder that it was not told to trust: 55) is on stderr alone, so in
the container's log. `json`, the other format, says nothing until the end, and of failures nothing on its output. Costs
are not told.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from workitems.agents import output
from workitems.agents.output import Ending
from workitems.protocol import Usage

COMMAND = (
    "gemini",
    "--output-format",
    "stream-json",
    "--approval-mode=yolo",
    "--skip-trust",
    "-p",
    "Do the task above.",
)

TURN_LIMIT = "FatalTurnLimitedError"
_WRAPPED = "[API Error: "


@dataclass
class Reader:
    """Reads Gemini's NDJSON."""

    _session: str | None = None
    _model: str | None = None
    _turns: int = 0
    _answering: bool = False
    _said: str = ""
    """The last line of an answer, until it is complete."""
    _error: str = ""
    _usage: Usage = field(default_factory=Usage)
    _ended: tuple[str, str] | None = None

    def feed(self, line: str) -> list[str]:
        """See output.Reader."""
        event = output.parsed(line)
        if event is None:
            return output.shown(line)
        kind = event.get("type")
        if kind == "message" and event.get("role") == "assistant":
            self._answer()
            *lines, self._said = f"{self._said}{output.text(event, 'content')}"[-output.LONGEST :].split("\n")
            return output.shown("\n".join(lines), f"[{self._turns}] ")
        return [*self._rest(), *self._other(kind, event)]

    def end(self) -> Ending:
        """See output.Reader."""
        usage = dataclasses.replace(self._usage, turns=self._turns)
        reason, said = self._ended or (output.NO_RESULT, self._error)
        if reason == output.SUCCEEDED and not self._turns:
            reason = output.NO_WORK
        return output.ending(reason, said, usage=usage, session=self._session, model=self._model)

    def _other(self, kind: object, event: output.JSON) -> list[str]:
        match kind:
            case "init":
                self._session = output.text(event, "session_id")[:100] or None
                self._model = output.text(event, "model")[:100] or None
                return output.shown(f"gemini, session {self._session}")
            case "tool_use":
                self._answer()
                words = output.gist(event.get("parameters"))
                return output.shown(f"→ {output.text(event, 'tool_name')} {words}", f"[{self._turns}] ")
            case "tool_result":
                self._answering = False
                if event.get("status") != "error":
                    return []
                return output.shown(f"✗ {output.text(output.inner(event, 'error'), 'message')}", f"[{self._turns}] ", 5)
            case "error":
                self._error = output.text(event, "message")
                return output.shown(f"! {self._error}")
            case "result":
                return self._result(event)
        return []

    def _answer(self) -> None:
        """A piece of an answer: the first one after the prompt or after tools begins a turn."""
        self._turns += not self._answering
        self._answering = True

    def _rest(self) -> list[str]:
        rest, self._said = self._said, ""
        return output.shown(rest, f"[{self._turns}] ")

    def _result(self, event: output.JSON) -> list[str]:
        stats = output.inner(event, "stats")
        cached, prompt = output.number(stats, "cached"), output.number(stats, "input_tokens")
        # What came from the cache is counted among the input; what it thought, only in the total.
        thought_and_said = output.number(stats, "total_tokens") - prompt
        self._usage = Usage(
            input_tokens=max(prompt - cached, 0),
            output_tokens=max(thought_and_said, output.number(stats, "output_tokens")),
            cached_input_tokens=cached,
        )
        # A small model chooses the one that works: the most tokens are that one's.
        models = output.inner(stats, "models")
        used = {name: output.number(output.inner(models, name), "total_tokens") for name in models}
        if any(used.values()):
            self._model = max(reversed(used), key=lambda name: used[name])[:100]
        if event.get("status") == "success":
            self._ended = (output.SUCCEEDED, "")
            tokens = f"{self._usage.input_tokens} tokens in, {self._usage.output_tokens} out"
            return output.shown(f"{self._turns} turns ({tokens})")
        error = output.inner(event, "error")
        said = output.text(error, "message") or self._error
        if said.startswith(_WRAPPED):
            said = said[len(_WRAPPED) :].removesuffix("]").replace("]\n", " ")
        # The API's whole answer, in most cases.
        status = output.number(output.inner(output.parsed(said), "error"), "code")
        said = output.spoken(said)
        reason = output.from_answer(status, said)
        self._ended = (output.MAX_TURNS if error.get("type") == TURN_LIMIT else reason, said)
        return output.shown(f"! {said}")
