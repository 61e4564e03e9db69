"""What people read, in one place: templates by language, and a team's own ones in their stead.

A template is Jinja2 in its sandbox, and every value is escaped when it is put in, because titles, findings and
questions are other people's text. A template of a team's own that cannot be used does not swallow the message: the
built-in one is used, and the message says what is wrong with theirs.
"""

from __future__ import annotations

import functools
import importlib.resources
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import jinja2
import markdown_it
import yaml
from jinja2.sandbox import SandboxedEnvironment
from markupsafe import Markup

LANGUAGES = ("en", "ru")
TEXT_LIMIT = 64 * 1024
"""Characters of a rendered text; a template that goes on for ever is broken."""
WORDS = (
    *("action", "agent", "approved_state", "attempt", "base", "branch", "by", "command", "commit", "cost", "cut"),
    *("editor", "excerpt", "file", "folder", "from", "gate", "message", "next", "number", "reason", "result", "run"),
    *("runs", "seconds", "stage", "text", "url"),
)
"""What a template may use; what an event does not have is empty. Beside these: lists `documents` and `approvers`."""


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


@dataclass(frozen=True)
class Own:
    """A team's own templates."""

    source: str
    """The ConfigMap's name."""
    templates: Mapping[str, str] = field(default_factory=dict)


class Unusable(Exception):  # noqa: N818 - an answer within this module
    """A template that cannot be used, in words."""


def keys() -> tuple[str, ...]:
    """All keys of templates, as in `comment.ApprovalWanted`."""
    built_in = _built_in("en")
    return tuple(f"{kind}.{event}" for kind in ("comment", "message") for event in built_in[kind])


def render(
    key: str, words: Mapping[str, Any], subject: Subject, *, language: str = "en", own: Own | None = None
) -> tuple[str, str | None]:
    """The text, and what is wrong with the team's own template, where something is; the text says it too."""
    values = {**dict.fromkeys(WORDS, ""), "documents": (), "approvers": (), **words}
    problem = None
    if own is not None and key in own.templates:
        try:
            return _rendered(own.templates[key], values, subject), None
        except Unusable as error:
            problem = str(error)
    kind, _, event = key.partition(".")
    language = language if language in LANGUAGES else "en"
    text = _rendered(_built_in(language)[kind][event], values, subject)
    if problem is None or own is None:
        return text, None
    note = {"key": key, "source": own.source, "problem": problem}
    said = _rendered(_built_in(language)["note"], note, subject)
    return f"{text}\n<p><em>{said}</em></p>" if kind == "comment" else f"{text}\n<i>{said}</i>", problem


@functools.cache
def _built_in(language: str) -> Any:
    file = importlib.resources.files(__package__) / f"{language}.yaml"
    return yaml.safe_load(file.read_text(encoding="utf-8"))


@functools.cache
def _environment() -> SandboxedEnvironment:
    return SandboxedEnvironment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=False, keep_trailing_newline=False
    )


def _rendered(template: str, values: Mapping[str, Any], subject: Subject) -> str:
    """Raises Unusable."""
    functions = {
        "item": subject,
        "title": _title(subject),
        "link": functools.partial(_link, subject),
        "at": functools.partial(_at, subject),
        "markdown": _markdown,
        "duration": _duration,
    }
    pieces, size = [], 0
    try:
        for piece in _environment().from_string(template).generate({**values, **functions}):
            pieces.append(piece)
            size += len(piece)
            if size > TEXT_LIMIT:
                break
    except Exception as error:  # a stranger's program may fail in any way there is
        where = f"line {error.lineno}: " if isinstance(error, jinja2.TemplateSyntaxError) else ""
        raise Unusable(f"{where}{type(error).__name__}: {' '.join(str(error).split())[:200]}") from error
    if size > TEXT_LIMIT:
        raise Unusable(f"it makes more than {TEXT_LIMIT} characters")
    text = "".join(pieces).strip()
    if not text:
        raise Unusable("it makes an empty text")
    return text


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


def _duration(seconds: Any) -> str:
    """`75` as `1m 15s`."""
    whole = int(seconds or 0)
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    if hours:
        return f"{hours}h {minutes}m"
    return f"{minutes}m {rest}s" if minutes else f"{rest}s"
