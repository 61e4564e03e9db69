"""Plain text out of what strangers wrote: safe for a log, a terminal and JSON.

An agent's words, a git server's messages and a tool's output may hold escape sequences that rewrite a terminal, and
be as long as they like.
"""

from __future__ import annotations


def readable(text: str, characters: int) -> str:
    """One line without control characters or stray surrogates, cut with an ellipsis: safe for a log and for JSON."""
    # What is cut anyway need not be looked at letter by letter.
    head = text if len(text) <= 2 * characters else text[: 2 * characters]
    # Nearly always there is nothing to do: an agent's output of 10 GB goes through here.
    clean = head if head.isprintable() else "".join(map(_printable, head))
    return clean if len(clean) <= characters else clean[: characters - 1] + "…"


def _printable(letter: str) -> str:
    if letter.isprintable():
        return letter
    return " " if letter in "\r\n\t" else "�"
