"""Finds the verdict that an agent wrote into a document, where it wrote it to be found and nowhere else.

Two forms count: `verdict: X` in the front matter (between a first line `---` and the next), and a line
`Verdict: X`, which may be a heading or bold. Prose is never searched: "I would not say APPROVED" must not approve.
Who wrote the text is not trusted, so values are cut and stripped of what cannot be printed.
"""

from __future__ import annotations

import re

VALUES_KEPT = 4
VALUE_CHARACTERS = 63

_LINE = re.compile(r"^ {0,3}(?:#{1,6}[ \t]+)?[*_]{0,3}verdict[*_]{0,3}[ \t]*:(.*)$", re.IGNORECASE)
_FRONT_MATTER_LINE = re.compile(r"^verdict[ \t]*:(.*)$", re.IGNORECASE)
_FENCE = "---"
# Markup around a value; an underscore inside, as in REQUEST_CHANGES, belongs to it.
_MARKUP = " \t*_`~#"


def find(text: str) -> tuple[str, ...]:
    """The distinct verdicts of a document in order, at most four; empty if it has none."""
    lines = [line.rstrip("\r") for line in text.removeprefix("\ufeff").split("\n")]
    end = _front_matter_end(lines)
    values = [_yaml_value(match[1]) for line in lines[:end] if (match := _FRONT_MATTER_LINE.match(line))]
    values += [match[1].strip(_MARKUP) for line in lines[end:] if (match := _LINE.match(line))]
    printable = ("".join(letter for letter in value if letter.isprintable()).strip() for value in values)
    return tuple(dict.fromkeys(value[:VALUE_CHARACTERS] for value in printable if value))[:VALUES_KEPT]


def _front_matter_end(lines: list[str]) -> int:
    """The index after the front matter's last line; 0 if there is none, or if nothing closes it."""
    if not lines or lines[0].rstrip() != _FENCE:
        return 0
    for index, line in enumerate(lines[1:], start=1):
        if line.rstrip() in (_FENCE, "..."):
            return index + 1
    return 0


def _yaml_value(text: str) -> str:
    """A plain or quoted scalar without its comment."""
    text = text.strip()
    for quote in ('"', "'"):
        if text.startswith(quote):
            return text[1:].partition(quote)[0].strip()
    return re.split(r"[ \t]#", text, maxsplit=1)[0].strip(_MARKUP)
