"""What people wrote in a tracker's editor, as text: descriptions as Markdown, comments as the words they said.

Anybody who may comment chooses this HTML, and it is read in the one event loop that everything waits for. So it is read
in one pass that never looks back, and only a part of it that is bounded in size and depth goes to the library that
knows Markdown: that one, and Python's own parser, take minutes or give up on what nobody would write by hand.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass

import markdownify

from workitems import errors

QUOTED = frozenset({"blockquote", "code", "pre", "script", "style"})
"""What is in these was not said by who wrote the comment."""
TEXT_CHARACTERS = 100_000
"""More than a WorkItem's description has room for."""
PIECES_MOST = 6_000
"""Tags and texts; numbering a list takes the square of its length."""
SPOKEN_PIECES_MOST = 50_000
DEPTH_MOST = 32
"""Deeper tags are left out, their text stays."""

_BLOCKS = frozenset({"p", "br", "li", "div", "tr", "h1", "h2", "h3", "h4", "h5", "h6"})
_VOID = frozenset({"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "wbr"})
_RAW_END = {tag: re.compile(f"</{tag}", re.IGNORECASE | re.ASCII) for tag in ("script", "style")}
"""Tags whose content is no HTML, and what ends it."""
_KEPT = frozenset({"href", "src", "alt", "start"})
"""Attributes that Markdown can say."""
# Possessive everywhere: what does not match is not tried again in another way.
_OPENING = re.compile("</?[a-zA-Z]")
_TAG = re.compile(r"""<(/?)([a-zA-Z][a-zA-Z0-9:-]*+)((?:[^>"']++|"[^"]*+"|'[^']*+')*+)>""")
_ATTRIBUTE = re.compile(r"""(?<![^\s"'/])([a-zA-Z]++)\s*+=\s*+(?:"([^"]*+)"|'([^']*+)'|([^\s"']++))""")


@dataclass(frozen=True)
class Piece:
    """A start tag, an end tag, or text."""

    tag: str
    """Lower case; "": text."""
    ends: bool = False
    text: str = ""
    """Text as people read it; of a start tag: its attributes as written."""


def markdown(source: str) -> str:
    """HTML as Markdown, without runs of empty lines; scripts and styles are left out, as is what is far too long.

    Raises errors.Permanent TextUnreadable.
    """
    try:
        clean, whole = _clean(source)
        text: str = markdownify.markdownify(clean, heading_style="ATX", bullets="-", escape_misc=False)
    except Exception as error:  # a library, with a stranger's text: it may fail in any way there is
        raise _unreadable(error) from error
    lines = [line.rstrip() for line in text.replace("\xa0", " ").splitlines()]
    joined = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
    if not whole:
        joined += "\n\n…"
    return f"{joined}\n" if joined else ""


def spoken(source: str) -> str:
    """The words of a comment, without quotations and code, its lines kept apart.

    Raises errors.Permanent TextUnreadable, also where there is far too much: half a comment must not decide.
    """
    words: list[str] = []
    quoted: list[str] = []
    try:
        for number, piece in enumerate(_pieces(source)):
            if number >= SPOKEN_PIECES_MOST:
                raise errors.Permanent("TextUnreadable", "it is far too long")
            if not piece.tag:
                if not quoted:
                    words.append(piece.text)
            elif piece.ends:
                if piece.tag in quoted:
                    # Whatever was left open within it ends with it.
                    while quoted.pop() != piece.tag:
                        pass
            elif piece.tag in QUOTED:
                quoted.append(piece.tag)
            if piece.tag in _BLOCKS and not piece.ends:
                words.append("\n")
    except ValueError as error:
        raise _unreadable(error) from error
    lines = (" ".join(line.split()) for line in "".join(words).splitlines())
    return "\n".join(line for line in lines if line)


def _unreadable(error: Exception) -> errors.Permanent:
    return errors.Permanent("TextUnreadable", f"it cannot be read as HTML ({type(error).__name__})")


def _pieces(source: str) -> Iterator[Piece]:
    """As HTML has it: what is opened and never closed (a comment, a tag, a quote, a script) goes on to the end.

    Raises ValueError for a number of a character that is none.
    """
    at = 0
    while at < len(source):
        begins = source.find("<", at)
        if begins != at:
            ends = begins if begins >= 0 else len(source)
            yield Piece("", text=html.unescape(source[at:ends]))
            at = ends
            continue
        if source.startswith(("<!", "<?"), at):
            mark = "-->" if source.startswith("<!--", at) else ">"
            ends = source.find(mark, at)
            if ends < 0:
                return
            at = ends + len(mark)
            continue
        if _OPENING.match(source, at) is None:
            yield Piece("", text="<")
            at += 1
            continue
        match = _TAG.match(source, at)
        if match is None:
            return
        tag, at = match.group(2).lower(), match.end()
        yield Piece(tag, ends=bool(match.group(1)), text=match.group(3))
        if tag in _RAW_END and not match.group(1):
            end = _RAW_END[tag].search(source, at)
            if end is None:
                return
            at = end.start()


def _clean(source: str) -> tuple[str, bool]:
    """Well-formed HTML with what Markdown can say, of a bounded size; whether it is all."""
    made: list[str] = []
    stack: list[str] = []
    room = TEXT_CHARACTERS
    for number, piece in enumerate(_pieces(source)):
        if room <= 0 or number >= PIECES_MOST:
            return "".join(made) + "".join(f"</{tag}>" for tag in reversed(stack)), False
        if not piece.tag:
            made.append(html.escape(piece.text[:room]))
            room -= len(piece.text)
        elif piece.tag in _RAW_END:
            continue
        elif piece.ends:
            if piece.tag in stack:
                while stack[-1] != piece.tag:
                    made.append(f"</{stack.pop()}>")
                made.append(f"</{stack.pop()}>")
        elif piece.tag in _VOID:
            made.append(f"<{piece.tag}{_attributes(piece.text)}>")
        elif len(stack) < DEPTH_MOST:
            made.append(f"<{piece.tag}{_attributes(piece.text)}>")
            stack.append(piece.tag)
    return "".join(made) + "".join(f"</{tag}>" for tag in reversed(stack)), room >= 0


def _attributes(written: str) -> str:
    found = []
    for name, double, single, bare in _ATTRIBUTE.findall(written):
        value = html.unescape(double or single or bare)
        # A picture in the text itself says nothing to an agent, at great length.
        if name.lower() in _KEPT and not value.lower().startswith("data:"):
            found.append(f' {name.lower()}="{html.escape(value)}"')
    return "".join(found)
