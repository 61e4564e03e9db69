"""How one template becomes a text: Jinja2 in its sandbox, with everything escaped that is put in.

Titles, findings and questions are other people's text. This module starts quickly and needs nothing of the operator:
a child process renders a team's own templates with it, too.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import jinja2
import markdown_it
from jinja2.sandbox import SandboxedEnvironment
from markupsafe import Markup


@dataclass(frozen=True)
class Subject:
    """What a text is about."""

    name: str
    namespace: str
    title: str
    url: str | None = None
    """Of the issue."""
    files_url: str | None = None
    """Address of the repository's files, to which a commit and a path are added; none: no forge."""
    commits_url: str | None = None


class Unusable(Exception):  # noqa: N818 - an answer within this package
    """A template that cannot be used, in words."""


def rendered(
    template: str, values: Mapping[str, Any], subject: Subject, units: Mapping[str, str], most: int | None = None
) -> str:
    """The text; `units` are the words for hours, minutes and seconds.

    Raises Unusable, also for a text of more than `most` characters.
    """
    functions = {
        "item": subject,
        "title": _title(subject),
        "link": functools.partial(_link, subject),
        "at": functools.partial(_at, subject),
        "markdown": _markdown,
        "duration": functools.partial(_duration, units),
    }
    pieces, size = [], 0
    try:
        for piece in _environment().from_string(template).generate({**values, **functions}):
            pieces.append(piece)
            size += len(piece)
            if most is not None and size > most:
                break
    except Exception as error:  # a stranger's program may fail in any way there is
        where = f"line {error.lineno}: " if isinstance(error, jinja2.TemplateSyntaxError) else ""
        said = " ".join(str(error).split())[:200]
        raise Unusable(f"{where}{type(error).__name__}{': ' if said else ''}{said}") from error
    if most is not None and size > most:
        raise Unusable(f"it makes more than {most} characters")
    text = "".join(pieces).strip()
    if not text:
        raise Unusable("it makes an empty text")
    return text


@functools.cache
def _environment() -> SandboxedEnvironment:
    return SandboxedEnvironment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=False, keep_trailing_newline=False
    )


def _title(subject: Subject) -> Markup:
    name = Markup("<b>{}</b>").format(subject.name)
    if subject.url:
        name = Markup('<a href="{}">{}</a>').format(subject.url, name)
    return name + Markup(" {}").format(subject.title)


def _link(subject: Subject, path: str, commit: str) -> Markup:
    """A file at a commit: a link where the repository has a forge, else its path."""
    if subject.files_url is None or not commit:
        return Markup("<code>{}</code>").format(path)
    return Markup('<a href="{}/{}/{}">{}</a>').format(subject.files_url, commit, quote(path), path)


def _at(subject: Subject, commit: str) -> Markup:
    short = commit[:12]
    if subject.commits_url is None or not commit:
        return Markup("<code>{}</code>").format(short)
    return Markup('<a href="{}/{}">{}</a>').format(subject.commits_url, commit, short)


@functools.cache
def _reader() -> markdown_it.MarkdownIt:
    # No HTML of its own: what an agent wrote is text. Dangerous links are refused by the library.
    return markdown_it.MarkdownIt("commonmark", {"html": False}).enable("table")


def _markdown(text: str) -> Markup:
    """Markdown as HTML; HTML within it is shown, not used."""
    return Markup(_reader().render(str(text)))  # noqa: S704 - escaped by the reader, html=False


def _duration(units: Mapping[str, str], seconds: Any) -> str:
    """`75` as `1m 15s`."""
    whole = int(seconds or 0)
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    hour, minute, second = units["hour"], units["minute"], units["second"]
    if hours:
        return f"{hours}{hour} {minutes}{minute}"
    return f"{minutes}{minute} {rest}{second}" if minutes else f"{rest}{second}"
