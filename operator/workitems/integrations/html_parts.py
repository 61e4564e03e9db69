"""One HTML message in parts that a chat takes: each is short enough once read, and each is well formed by itself.

Telegram counts 4,096 UTF-16 code units after it has read the tags and entities, and refuses a part that ends within a
tag. So the text is cut, never the markup: what is open at a cut is closed before it and opened again after it.
"""

from __future__ import annotations

import html
from html.parser import HTMLParser

VOID = frozenset({"br", "img", "hr"})


def plain(text: str) -> str:
    """What a person reads of an HTML message, without any markup."""
    parser = _Pieces()
    parser.feed(text)
    parser.close()
    return "".join(word for kind, word, _ in parser.pieces if kind == "text")


def parts(text: str, most: int) -> tuple[str, ...]:
    """The message in parts of at most `most` UTF-16 code units of readable text; empty ones are left out."""
    parser = _Pieces()
    parser.feed(text)
    parser.close()
    made = _Parts(most)
    for kind, word, tag in parser.pieces:
        if kind == "text":
            made.text(word)
        elif kind == "open":
            made.open(tag, word)
        else:
            made.close(tag)
    return made.all()


class _Pieces(HTMLParser):
    """(kind, text as written or read, tag) in order."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[tuple[str, str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in VOID:
            self.pieces.append(("text", "\n", ""))
            return
        words = "".join(f' {name}="{html.escape(value or "")}"' for name, value in attrs)
        self.pieces.append(("open", f"<{tag}{words}>", tag))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            self.pieces.append(("close", "", tag))

    def handle_data(self, data: str) -> None:
        self.pieces.append(("text", data, ""))


class _Parts:
    def __init__(self, most: int) -> None:
        self._most = most
        self._room = most
        self._open: list[tuple[str, str]] = []
        self._now = ""
        self._read = ""
        self._done: list[str] = []

    def open(self, tag: str, written: str) -> None:
        self._open.append((tag, written))
        self._now += written

    def close(self, tag: str) -> None:
        """A tag that is not open is left out; what was opened within it and left open ends with it."""
        if not any(name == tag for name, _ in self._open):
            return
        while self._open:
            name, _ = self._open.pop()
            self._now += f"</{name}>"
            if name == tag:
                return

    def text(self, text: str) -> None:
        while _units(text) > self._room:
            head = _fits(text, self._room)
            cut = head.rfind("\n") + 1 or head.rfind(" ") + 1
            if not cut and self._room < self._most:
                # A word that does not fit here may fit into the next part.
                head = ""
            elif cut:
                head = head[:cut]
            self._add(head)
            text = text[len(head) :]
            self._cut()
        self._add(text)

    def _add(self, text: str) -> None:
        self._now += html.escape(text, quote=False)
        self._read += text
        self._room -= _units(text)

    def _cut(self) -> None:
        self._end()
        self._now, self._read, self._room = "".join(written for _, written in self._open), "", self._most

    def _end(self) -> None:
        if self._read.strip():
            self._done.append(self._now + "".join(f"</{tag}>" for tag, _ in reversed(self._open)))

    def all(self) -> tuple[str, ...]:
        self._end()
        return tuple(self._done)


def _units(text: str) -> int:
    return len(text.encode("utf-16-le", errors="surrogatepass")) // 2


def _fits(text: str, room: int) -> str:
    """The longest beginning of `text` with at most `room` code units."""
    cut = text.encode("utf-16-le", errors="surrogatepass")[: room * 2]
    return cut.decode("utf-16-le", errors="ignore")
