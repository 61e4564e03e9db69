"""What people wrote in a tracker's editor, as text: descriptions as Markdown, comments as the words they said."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import markdownify

QUOTED = frozenset({"blockquote", "code", "pre", "script", "style"})
"""What is in these was not said by who wrote the comment."""
_BLOCKS = frozenset({"p", "br", "li", "div", "tr", "h1", "h2", "h3", "h4", "h5", "h6"})


def markdown(html: str) -> str:
    """HTML as Markdown, without runs of empty lines; scripts and styles are left out."""
    without = re.sub(r"(?is)<(script|style)\b.*?</\1\s*>", "", html)
    text: str = markdownify.markdownify(without, heading_style="ATX", bullets="-", escape_misc=False)
    lines = [line.rstrip() for line in text.replace("\xa0", " ").splitlines()]
    joined = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
    return f"{joined}\n" if joined else ""


def spoken(html: str) -> str:
    """The words of a comment, without quotations and code, its lines kept apart."""
    parser = _Words()
    parser.feed(html)
    parser.close()
    lines = (" ".join(line.split()) for line in "".join(parser.words).splitlines())
    return "\n".join(line for line in lines if line)


class _Words(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.words: list[str] = []
        self._quoted: list[str] = []

    def handle_starttag(self, tag: str, _attrs: list[tuple[str, str | None]]) -> None:
        if tag in QUOTED:
            self._quoted.append(tag)
        if tag in _BLOCKS:
            self.words.append("\n")

    def handle_endtag(self, tag: str) -> None:
        if tag in self._quoted:
            # Whatever was left open within it ends with it.
            while self._quoted.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        if not self._quoted:
            self.words.append(data)
