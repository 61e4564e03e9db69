"""Gemini CLI (`gemini --output-format json`): the command that a Pipeline gives, and how its one JSON object is read.

Documented, not run here: npm `@google/gemini-cli` 0.61.0. The object has `response`, `stats` (tokens by model) and,
where the request failed, `error`; exit codes 0, 1, 42 (input), 53 (turns). It may be spread over many lines. The prompt
is read from the input; the argument is appended to it. Costs are not told.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from workitems.agents import output
from workitems.agents.output import Ending
from workitems.protocol import Usage

COMMAND = ("gemini", "--output-format", "json", "--approval-mode=yolo", "-p", "Do the task above.")

MOST_CHARACTERS = 4 * 1024 * 1024


@dataclass
class Reader:
    """Collects the lines from the first one that is `{` on, and reads them at the end."""

    _lines: list[str] = field(default_factory=list)
    _size: int = 0

    def feed(self, line: str) -> list[str]:
        """See output.Reader."""
        if not self._lines and not line.startswith("{"):
            return output.shown(line)
        if self._size <= MOST_CHARACTERS:
            self._lines.append(line)
            self._size += len(line) + 1
        value = self._value() if line.rstrip().endswith("}") else None
        return output.shown(output.text(value, "response")) if value is not None else []

    def end(self) -> Ending:
        """See output.Reader."""
        value = self._value()
        if value is None:
            return output.ending(output.NO_RESULT, "")
        models = output.inner(value, "stats", "models")
        usage = Usage()
        for name in models:
            tokens = output.inner(models, name, "tokens")
            cached = output.number(tokens, "cached")
            usage = Usage(
                # What came from the cache is counted among the prompt.
                input_tokens=usage.input_tokens + max(output.number(tokens, "prompt") - cached, 0),
                output_tokens=usage.output_tokens + output.number(tokens, "candidates"),
                cached_input_tokens=usage.cached_input_tokens + cached,
                turns=usage.turns + output.number(output.inner(models, name, "api"), "totalRequests"),
            )
        model = next((name[:100] for name in models), None)
        error = output.inner(value, "error")
        if error:
            said = output.text(error, "message")
            code = output.number(error, "code")
            reason = output.MAX_TURNS if code == 53 else output.from_words(f"{code} {said}")
            return output.ending(reason, said, usage=usage, model=model)
        return output.ending(output.SUCCEEDED, "", usage=usage, model=model)

    def _value(self) -> output.JSON | None:
        try:
            value = json.loads("\n".join(self._lines))
        except (ValueError, RecursionError):
            return None
        return value if isinstance(value, dict) else None
