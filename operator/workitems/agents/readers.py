"""Which module reads the output of which agent CLI: the names that a Pipeline's `output` may have."""

from __future__ import annotations

from collections.abc import Callable

from workitems.agents import aider, claude_stream, codex, gemini, opencode
from workitems.agents.output import Reader

READERS: dict[str, Callable[[], Reader]] = {
    "claude": claude_stream.Reader,
    "codex": codex.Reader,
    "gemini": gemini.Reader,
    "opencode": opencode.Reader,
    "aider": aider.Reader,
}
PRESETS: dict[str, tuple[str, ...]] = {
    "codex": codex.COMMAND,
    "gemini": gemini.COMMAND,
    "opencode": opencode.COMMAND,
    "aider": aider.COMMAND,
}
"""Commands for Pipelines, as docs/agents.md shows them."""
