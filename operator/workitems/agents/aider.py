"""aider: the command that a Pipeline gives, and what its text says about tokens and cost.

Run on 2026-11-27 with PyPI `aider-chat` 0.86.2 against a scripted model. It reads the prompt from a file and would
commit by itself, which it cannot here (git's directory is read-only), so that is switched off; its histories go out of
the worktree. A link in the prompt it would fetch, and install a browser for that. It ends with 0 whatever the model's
API said, so its text alone tells a failure. Whether it did what it was told is the gates' to judge: its text has no
result, only a line on tokens and cost after each answer. Its lines are broken at a terminal's width, 80 without one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from workitems.agents import output
from workitems.agents.output import Ending
from workitems.protocol import EXCHANGE, PROMPT_FILE, Usage

COMMAND = (
    "aider",
    "--yes-always",
    "--no-auto-commits",
    "--no-dirty-commits",
    "--no-gitignore",
    "--no-check-update",
    "--no-show-release-notes",
    "--no-detect-urls",
    "--analytics-disable",
    "--no-pretty",
    "--no-stream",
    "--chat-history-file",
    "/tmp/aider.chat.md",  # noqa: S108 - in the container, and outside of the worktree
    "--input-history-file",
    "/tmp/aider.input",  # noqa: S108 - see above
    "--model",
    "sonnet",
    "--message-file",
    f"{EXCHANGE}/{PROMPT_FILE}",
)

_COUNT = r"([\d.,]+[kM]?)"
_TOKENS = re.compile(rf"^Tokens: {_COUNT} sent((?:, {_COUNT} cache \w+)*), {_COUNT} received")
_CACHED = re.compile(rf"{_COUNT} cache")
_COST = re.compile(r"^(?:Tokens: .*)?Cost: \$[\d.]+ message, \$(\d{1,9}(?:\.\d+)?) session")
_MODEL = re.compile(r"^(?:Main model|Model): (\S+) with ")
_ERROR = re.compile(r"^(?:litellm\.\w+: |# Uncaught |Model \S+ has hit a token limit)")
_AFTER_AN_ERROR = re.compile(r"^(?:$|The API provider|Retrying in |https?://)")
_SCALE = {"k": 1_000, "M": 1_000_000}


@dataclass
class Reader:
    """Passes the text on."""

    _usage: Usage = field(default_factory=Usage)
    _model: str | None = None
    _failure: str = ""
    _continues: bool = False
    """The next line may be the rest of the failure."""

    def feed(self, line: str) -> list[str]:
        """See output.Reader."""
        self._count(line)
        if _ERROR.match(line):
            self._failure, self._continues = line, not line.startswith("# ")
        elif self._continues and not _AFTER_AN_ERROR.match(line) and len(self._failure) < output.LONGEST:
            self._failure += line if self._failure.endswith(" ") else f" {line}"
        else:
            self._continues = False
        if self._model is None and (found := _MODEL.match(line)):
            self._model = found.group(1)[:100]
        return output.shown(line)

    def end(self) -> Ending:
        """See output.Reader."""
        reason, said = output.SUCCEEDED if self._usage.turns else output.NO_WORK, ""
        if self._failure:
            reason, said = output.from_words(self._failure), output.spoken(self._failure)
        return output.ending(reason, said, usage=self._usage, model=self._model)

    def _count(self, line: str) -> None:
        tokens, cost = _TOKENS.match(line), _COST.match(line)
        if not (tokens or cost):
            return
        sent = cached = received = 0
        if tokens:
            sent, received = _number(tokens.group(1)), _number(tokens.group(4))
            cached = sum(map(_number, _CACHED.findall(tokens.group(2))))
        if received:
            # An answer: whatever failed before it was tried again.
            self._failure, self._continues = "", False
        self._usage = Usage(
            # What came from the cache, or went into it, is counted among what was sent.
            input_tokens=self._usage.input_tokens + max(sent - cached, 0),
            output_tokens=self._usage.output_tokens + received,
            cached_input_tokens=self._usage.cached_input_tokens + cached,
            turns=self._usage.turns + (received > 0),
            cost_usd=output.money(float(cost.group(1))) if cost else self._usage.cost_usd,
        )


def _number(words: str) -> int:
    scale = _SCALE.get(words[-1], 1)
    try:
        return int(min(float(words.rstrip("kM").replace(",", "")) * scale, 10**12))
    except ValueError:
        return 0
