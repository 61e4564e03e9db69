"""What people read, in one place: templates by language, and a team's own ones in their stead.

A template of a team's own that cannot be used does not swallow the message: the built-in one is used, and the message
says what is wrong with theirs. A built-in one is never refused for its length: the document that it quotes is cut.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import difflib
import functools
import importlib.resources
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from workitems.messages import apart, template
from workitems.messages.template import Subject, Unusable

LANGUAGES = ("en", "ru")
WORDS = (
    *("action", "agent", "approved_state", "attempt", "base", "branch", "by", "command", "commit", "cost", "cut"),
    *("editor", "excerpt", "file", "folder", "from", "gate", "message", "next", "number", "reason", "result", "run"),
    *("runs", "seconds", "stage", "text", "url"),
)
"""What a template may use; what an event does not have is empty. Beside these: lists `documents` and `approvers`."""
TEXT_LIMIT = 256 * 1024
"""Characters of a text; trackers take them, and chats cut earlier."""
AT_ONCE = 2
"""Texts that are made at the same time, each in a thread: agents write documents that take seconds to render."""

__all__ = ["LANGUAGES", "WORDS", "Own", "Subject", "keys", "render", "rendered", "unknown"]


@dataclass(frozen=True)
class Own:
    """A team's own templates."""

    source: str
    """The ConfigMap's name."""
    templates: Mapping[str, str] = field(default_factory=dict)


def keys() -> tuple[str, ...]:
    """All keys of templates, as in `comment.ApprovalWanted`."""
    built_in = _built_in("en")
    return tuple(f"{kind}.{event}" for kind in ("comment", "message") for event in built_in[kind])


def unknown(own: Own) -> tuple[str, ...]:
    """Keys of a team's own templates that nothing is told by, each with what it may have meant."""
    known = keys()
    found = []
    for key in sorted(set(own.templates) - set(known)):
        near = difflib.get_close_matches(key, known, 1)
        found.append(f"{key} (did you mean {near[0]}?)" if near else key)
    return tuple(found)


async def rendered(
    key: str, words: Mapping[str, Any], subject: Subject, *, language: str = "en", own: Own | None = None
) -> tuple[str, str | None]:
    """As `render`, and nobody else waits for it."""
    make = functools.partial(render, key, words, subject, language=language, own=own)
    return await asyncio.get_running_loop().run_in_executor(_threads(), make)


def render(
    key: str, words: Mapping[str, Any], subject: Subject, *, language: str = "en", own: Own | None = None
) -> tuple[str, str | None]:
    """The text, and what is wrong with the team's own template, where something is; the text says it too."""
    texts = _built_in(language if language in LANGUAGES else "en")
    # The core gives keys for what is a word in a sentence.
    said = {name: known.get(words[name], words[name]) for name, known in texts["words"].items() if name in words}
    values = {**dict.fromkeys(WORDS, ""), "documents": (), "approvers": (), **words, **said}
    problem = None
    if own is not None and key in own.templates:
        try:
            return apart.rendered(own.templates[key], values, subject, texts["units"], TEXT_LIMIT), None
        except Unusable as error:
            problem = str(error)
    kind, _, event = key.partition(".")
    text = template.rendered(texts[kind][event], values, subject, texts["units"])
    while len(text) > TEXT_LIMIT and values["text"]:
        values = {**values, "text": values["text"][: len(values["text"]) // 2], "cut": "yes"}
        text = template.rendered(texts[kind][event], values, subject, texts["units"])
    if problem is None or own is None:
        return text, None
    note = {"key": key, "source": own.source, "problem": problem}
    told = template.rendered(texts["note"], note, subject, texts["units"])
    return f"{text}\n<p><em>{told}</em></p>" if kind == "comment" else f"{text}\n<i>{told}</i>", problem


@functools.cache
def _threads() -> concurrent.futures.Executor:
    return concurrent.futures.ThreadPoolExecutor(AT_ONCE, "texts")


@functools.cache
def _built_in(language: str) -> Any:
    file = importlib.resources.files(__package__) / f"{language}.yaml"
    return yaml.safe_load(file.read_text(encoding="utf-8"))
