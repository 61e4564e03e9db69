"""Plain text out of what strangers wrote: safe for a log, a terminal and JSON.

An agent's words, a git server's messages and a tool's output may hold escape sequences that rewrite a terminal, and
be as long as they like.
"""

from __future__ import annotations


def readable(text: str, characters: int) -> str:
    """One line without control characters or stray surrogates, cut with an ellipsis: safe for a log and for JSON."""
    # What is cut anyway need not be looked at letter by letter.
    head = text if len(text) <= 2 * characters else text[: 2 * characters]
    clean = "".join(letter if letter.isprintable() else "�" if letter not in "\r\n\t" else " " for letter in head)
    return clean if len(clean) <= characters else clean[: characters - 1] + "…"
