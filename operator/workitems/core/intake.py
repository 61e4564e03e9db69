"""An issue of the tracker as a WorkItem: its name, its branch, its words; and which of them still follow an edit."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from workitems.api import API_VERSION, Repository, WorkItem
from workitems.api.integrations import PlaneIntake, PlaneTracker
from workitems.core.stages import CREATED
from workitems.core.tracker import Issue

TRACKER_LABEL = "workitems.dev/tracker"
"""Of WorkItems that were made of an issue; only these follow its edits."""
PLANE = "plane"
TOLD_LABEL = "workitems.dev/tracker-told"
"""Of these: the issue says which WorkItem it has become."""
UNTOLD = f"{TRACKER_LABEL}={PLANE},{TOLD_LABEL}!=true"
"""Selects those whose issue does not."""
NAME_LIMIT = 63
TITLE_LIMIT = 250
DESCRIPTION_BYTES = 65536
SLUG_CHARACTERS = 40
BRANCH_LIMIT = 200
CUT = "\n\n(The description is longer; this is what a WorkItem has room for.)\n"


def name_of(identifier: str, sequence: int) -> str:
    """`et-12` of ET-12: a DNS label."""
    return _label(f"{identifier}-{sequence}", NAME_LIMIT) or f"issue-{sequence}"


def branch_of(intake: PlaneIntake, name: str, issue: Issue) -> str:
    """The branch by its template."""
    slug = _label(issue.title, SLUG_CHARACTERS) or "task"
    values = {"item": name, "slug": slug, "sequence": str(issue.sequence)}
    branch = re.sub(r"\{(\w+)\}", lambda match: values.get(match.group(1), match.group(0)), intake.branch)
    return branch[:BRANCH_LIMIT].rstrip("-/.")


def words_of(issue: Issue, description: str, name: str) -> dict[str, str]:
    """Title and description (Markdown) as a WorkItem takes them."""
    title = " ".join(re.sub(r"[\x00-\x1f\x7f]", " ", issue.title).split())[:TITLE_LIMIT]
    if len(description.encode()) > DESCRIPTION_BYTES:
        room = DESCRIPTION_BYTES - len(CUT.encode())
        description = description.encode()[:room].decode(errors="ignore") + CUT
    return {"title": title or name, "description": description}


def manifest(repository: Repository, plane: PlaneTracker, issue: Issue, name: str, words: dict[str, str]) -> Any:
    """The WorkItem of an issue."""
    intake = plane.work_items
    if intake is None:
        raise AssertionError("only a Repository that takes issues comes here")
    return {
        "apiVersion": API_VERSION,
        "kind": "WorkItem",
        "metadata": {"name": name, "namespace": repository.metadata.namespace, "labels": {TRACKER_LABEL: PLANE}},
        "spec": {
            "repository": repository.metadata.name,
            **words,
            "branch": branch_of(intake, name, issue),
            "pipeline": intake.pipeline,
            "externalRef": {"id": issue.id, "url": url_of(plane, name, issue)},
        },
    }


def url_of(plane: PlaneTracker, name: str, issue: Issue) -> str:
    """Where people see the issue."""
    identifier = name.rpartition("-")[0].upper()
    return f"{plane.url.rstrip('/')}/{plane.workspace}/browse/{identifier}-{issue.sequence}/"


def edit(item: WorkItem, words: dict[str, str]) -> dict[str, str]:
    """What of an item's spec follows its issue: nothing once it has started, or if nobody made it of an issue."""
    if item.metadata.labels.get(TRACKER_LABEL) != PLANE or item.status.stage != CREATED:
        return {}
    now = {"title": item.spec.title, "description": item.spec.description}
    return {field: text for field, text in words.items() if now[field] != text}


def _label(text: str, most: int) -> str:
    plain = unicodedata.normalize("NFKD", _in_latin(text)).encode("ascii", errors="ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:most].strip("-")


_LATIN = "a b v g d e zh z i i k l m n o p r s t u f kh ts ch sh shch - y - e iu ia"
# U+0430 to U+044F are the letters in their order.
_CYRILLIC = {chr(0x430 + index): latin.strip("-") for index, latin in enumerate(_LATIN.split())} | {"\u0451": "e"}


def _in_latin(text: str) -> str:
    """Cyrillic letters in Latin ones, as in a passport: a slug of a Russian title is to be readable too."""
    return "".join(_CYRILLIC.get(letter, letter) for letter in text.lower())
