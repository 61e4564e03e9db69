"""One repository on a Gitea or Forgejo server as its API shows it: addresses, pages, and refusals in words.

Whoever mends a refusal sits elsewhere and knows nothing of HTTP: the sentence names the Secret and its key, the scopes,
the owner and the name, whichever is wrong.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote

from workitems import errors
from workitems.integrations.http import Answer, Client, Query

PAGE = 50
"""What a server gives at most, unless its administrator chose less."""
PAGES = 200
READINGS = 3
"""How often a listing that changes while it is paged is read again."""

JSON = dict[str, Any]
Value = TypeVar("Value")


@dataclass(frozen=True)
class Place:
    """One repository on a server, and where its token comes from, for sentences."""

    owner: str
    name: str
    secret: str
    """As in `Secret shop-gitea (key token)`."""

    @property
    def path(self) -> str:
        """The repository's address on the server."""
        return f"/api/v1/repos/{quote(self.owner, safe='')}/{quote(self.name, safe='')}"

    def __str__(self) -> str:
        return f"{self.owner}/{self.name}"


class API:
    """Requests about one repository. All raise errors.Transient and errors.Permanent."""

    def __init__(self, client: Client, place: Place) -> None:
        """Take the client and the repository."""
        self._client = client
        self.place = place

    def __repr__(self) -> str:
        return f"{self._client.base_url}/{self.place}"

    async def ask(
        self, method: str, path: str, params: Query | None = None, *, body: Any = None, repeat: bool | None = None
    ) -> Answer:
        """What the server decided about `path` below the repository; see `http.Client.request`."""
        return await self._client.request(method, f"{self.place.path}{path}", params=params, body=body, repeat=repeat)

    async def pages(self, path: str, params: Query) -> AsyncIterator[JSON]:
        """Entries of all pages; a server may give fewer on a page than it is asked for."""
        seen = 0
        for page in range(1, PAGES + 1):
            answer = await self.ask("GET", path, {**params, "page": page, "limit": PAGE})
            entries = self.read(self.json(answer), list)
            for entry in entries:
                yield entry
            seen += len(entries)
            if not entries or seen >= total(answer, seen + 1):
                return
        raise errors.Permanent(
            "TooMuch", f"{self._client.base_url}: {path} of {self.place} has more than {PAGES} pages"
        )

    async def statuses(self, commit: str) -> list[JSON]:
        """All statuses of a commit, each of them once."""
        path = f"/commits/{quote(commit)}/status"
        for _ in range(READINGS):
            statuses: list[JSON] = []
            expected, page = 1, 1
            while len(statuses) < expected and page <= PAGES:
                answer = self.good(await self.ask("GET", path, {"page": page, "limit": PAGE}))
                found = self.read(self.json(answer), lambda body: list(body.get("statuses") or ()))
                expected = total(answer, len(statuses) + len(found))
                if not found:
                    break
                statuses += found
                page += 1
            # A status that arrives meanwhile moves others to a page that was read already: then one is there twice.
            if self.read(statuses, lambda listed: len({int(status["id"]) for status in listed})) >= expected:
                return statuses
        raise errors.Transient(f"the statuses of {commit[:12]} of {self.place} change faster than they can be read")

    async def check_repository(self) -> None:
        """Raise what is to be said if there is none: a 404 of anything below it may be its own."""
        self.read(self.json(await self.ask("GET", "")), lambda repository: int(repository["id"]))

    def good(self, answer: Answer) -> Answer:
        """The answer, if it is a 2xx."""
        if not answer.good:
            raise self.refusal(answer)
        return answer

    def json(self, answer: Answer) -> Any:
        """The body of a 2xx."""
        return self.good(answer).json()

    def read(self, body: Any, read: Callable[[Any], Value]) -> Value:
        """What `read` makes of a body; a body of another shape is errors.Transient: a proxy, or another server."""
        try:
            return read(body)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            message = f"{self._client.base_url}: an answer about {self.place} is not what Gitea sends: {error!r}"
            raise errors.Transient(message) from error

    def refusal(self, answer: Answer) -> errors.Permanent:
        """What a person must mend after an answer that is no 2xx."""
        said = f"{answer.what}: it answered {answer.code}" + (f": {answer.message}" if answer.message else "")
        place, secret = self.place, self.place.secret
        if answer.code == 401:
            hint = f"The token in {secret} is not valid (any more): put another one there"
            return errors.Permanent("Unauthorized", f"{said}. {hint}")
        if answer.code == 403:
            hint = (
                f"The token in {secret} needs the scope write:repository, and its user the right to write to {place}"
                " (for webhooks: to administer it)"
            )
            return errors.Permanent("Forbidden", f"{said}. {hint}")
        if answer.code == 404:
            hint = (
                f"Is there a repository {place} (spec.forge.gitea owner and name), and may the user of the token in"
                f" {secret} see it?"
            )
            return errors.Permanent("NotFound", f"{said}. {hint}")
        if answer.code == 423:
            return errors.Permanent("Archived", f"{said}. Unarchive {place}, then continue")
        if 300 <= answer.code < 400:
            hint = "It moved: write its present address into spec.forge.gitea url, owner and name"
            return errors.Permanent("Moved", f"{said}. {hint}")
        return errors.Permanent("Refused", said)


def total(answer: Answer, otherwise: int) -> int:
    """How many entries all pages have together, where the server says so."""
    text = answer.headers.get("X-Total-Count", "")
    return int(text) if text.isdecimal() else otherwise
