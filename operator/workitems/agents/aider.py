"""aider: the command that a Pipeline gives, and what its text says about tokens and cost.

Documented, not run here: PyPI `aider-chat` 0.86.2. It reads the prompt from a file and would commit by itself, which it
cannot here (git's directory is read-only), so that is switched off; its histories go out of the worktree. Whether it
did what it was told is the gates' to judge: its text has no result, only a line on tokens and cost after each answer.
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

_TOKENS = re.compile(r"^Tokens: ([\d.,]+[kM]?) sent(?:, [\d.,]+[kM]? cache \w+)*, ([\d.,]+[kM]?) received")
_COST = re.compile(r"Cost: \$[\d.]+ message, \$(\d{1,9}(?:\.\d+)?) session")
_ERROR = re.compile(r"^(?:litellm\.\w+Error|The API provider|.*AuthenticationError)")
_SCALE = {"k": 1_000, "M": 1_000_000}


@dataclass
class Reader:
    """Passes the text on."""

    _usage: Usage = field(default_factory=Usage)
    _failure: str | None = None

    def feed(self, line: str) -> list[str]:
        """See output.Reader."""
        tokens, cost = _TOKENS.match(line), _COST.search(line)
        if tokens:
            # An answer: whatever failed before it was tried again.
            self._failure = None
            self._usage = Usage(
                input_tokens=self._usage.input_tokens + _count(tokens.group(1)),
                output_tokens=self._usage.output_tokens + _count(tokens.group(2)),
                turns=self._usage.turns + 1,
                cost_usd=output.money(float(cost.group(1))) if cost else self._usage.cost_usd,
            )
        elif _ERROR.match(line):
            self._failure = line
        return output.shown(line)

    def end(self) -> Ending:
        """See output.Reader."""
        if self._failure is not None:
            return output.ending(output.from_words(self._failure), self._failure, usage=self._usage)
        reason = output.SUCCEEDED if self._usage.turns else output.NO_WORK
        return output.ending(reason, "", usage=self._usage)


def _count(words: str) -> int:
    scale = _SCALE.get(words[-1], 1)
    try:
        return int(min(float(words.rstrip("kM").replace(",", "")) * scale, 10**12))
    except ValueError:
        return 0
