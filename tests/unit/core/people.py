"""The tracker and the chats of a `World`: what arrives there is kept as a person reads it."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tests.unit.core.world import World
from workitems import errors, messages
from workitems.api import Repository
from workitems.integrations.html_parts import plain
from workitems.messages import Own
from workitems.telling import Telling

PLANE = {
    "url": "https://plane.example.com",
    "workspace": "shop",
    "project": "5f4d2c1b-0000-4000-8000-000000000001",
    "token": {"secretName": "shop-plane", "key": "token"},
    "states": {
        "inProgress": "In Progress",
        "inReview": "In Review",
        "needsInput": "Needs Input",
        "blocked": "Blocked",
        "done": "Done",
        "aborted": "Cancelled",
        "approved": "Approved",
        "stages": {"review": "Code Review"},
    },
    "approvers": ["lead@example.com"],
}
CHAT = {"telegram": {"chatId": "-100200300", "token": {"secretName": "shop-telegram", "key": "token"}}}
EVERYTHING = [
    *("StageChanged", "GateFailed", "RunStarted", "RunFinished"),
    *("ApprovalWanted", "InputWanted", "Blocked", "Done"),
]
ISSUE = {"id": "issue-12", "url": "https://plane.example.com/shop/projects/web/issues/ET-12"}


class People:
    """Implements `telling.Channels`, a tracker and a notifier."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.comments: dict[str, str] = {}
        """HTML by external id."""
        self.posts: Counter[str] = Counter()
        """How often each comment was really made."""
        self.states: list[str] = []
        self.messages: list[tuple[int, str]] = []
        self.documents: dict[str, str] = {}
        self.own: Own | None = None
        self.away: errors.WorkItemsError | None = None
        self.answers_lost = 0
        """How many messages to take without an answer."""
        self._index = 0
        world._carriers = {**world._carriers, **Telling(self, made).carriers()}

    @property
    def told(self) -> list[str]:
        """Comments as a person reads them."""
        return [read(html) for html in self.comments.values()]

    @property
    def heard(self) -> list[str]:
        """Messages as a person reads them."""
        return [read(html) for _, html in self.messages]

    async def repository(self, _namespace: str, _name: str) -> Repository:
        if self.world.repository is None:
            raise errors.Permanent("RepositoryNotFound", "there is no Repository shop in namespace team-a")
        return Repository.parse(self.world.repository)

    async def tracker(self, _repository: Repository) -> People:
        if self.away is not None:
            raise self.away
        return self

    async def notifier(self, _repository: Repository, index: int) -> People:
        if self.away is not None:
            raise self.away
        self._index = index
        return self

    async def templates(self, _repository: Repository) -> Own | None:
        return self.own

    async def document(self, _repository: Repository, _commit: str, path: str) -> str | None:
        return self.documents.get(path)

    async def set_state(self, issue: str, state: str) -> None:
        assert issue == ISSUE["id"]
        self.states.append(state)

    async def comment(self, issue: str, external_id: str, html: str) -> str:
        assert issue == ISSUE["id"]
        if external_id not in self.comments:
            self.comments[external_id] = html
            self.posts[external_id] += 1
        return f"id-{external_id}"

    async def send(self, html: str) -> str:
        self.messages.append((self._index, html))
        if self.answers_lost:
            self.answers_lost -= 1
            raise errors.Unanswered("POST https://api.telegram.org/bot***/sendMessage: no answer in time")
        return str(len(self.messages))


async def made(*arguments: Any, **words: Any) -> tuple[str, str | None]:
    """A text, without the thread that a `World` has no loop for."""
    return messages.render(*arguments, **words)


def read(html: str) -> str:
    """Without markup, in one line."""
    return " ".join(plain(html).split())


def team(pipeline: object = None, *, notify: object = None, forge: object = None, **repository: object) -> People:
    """A world whose Repository has a tracker and a chat."""
    spec = {"tracker": {"plane": PLANE}, "notify": [CHAT] if notify is None else notify, **repository}
    if forge is not None:
        spec["forge"] = forge
    world = World(pipeline, spec, externalRef=ISSUE)  # type: ignore[arg-type]
    world.twice = True
    return People(world)
