"""A project on a Plane server (https://plane.so), by its public API v1.

Every path ends with a slash, lists come in pages, and a key may make 60 requests a minute, whoever uses it: the client
is paced. A comment is told by its external id: the second POST of the same is refused. Whoever may comment may have
taken an id before us, anywhere in the project, so what is there counts only if it is by the operator's own user.
Nothing is decided from who a body says it is by (`created_by` is the caller's to choose), only by `actor`.
"""

from __future__ import annotations

import copy
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote

from pydantic import TypeAdapter, ValidationError

from workitems import errors
from workitems.core.tracker import ANOTHER, Comment, Issue, Member, Project, StateChange
from workitems.integrations import http

SOURCE = "workitem-operator"
"""external_source of all that the operator writes."""
REQUESTS_A_MINUTE = 60
WINDOW_SECONDS = 61.0
"""A little more than a minute: the server counts when it is reached, not when we send."""
PAGE = 100
NAMES_KEPT_SECONDS = 600.0
"""How long names of states, labels and people are believed; what is not found is asked for again at once."""

_MOMENT = TypeAdapter(datetime)


class PlaneProject:
    """One project. All methods raise errors.Transient and errors.Permanent."""

    def __init__(self, client: http.Client, workspace: str, project: str, monotonic: Callable[[], float]) -> None:
        """Take a paced client, the workspace's slug, the project's id, and a clock in seconds."""
        self._client = client
        self._workspace = f"/api/v1/workspaces/{quote(workspace, safe='')}"
        self._path = f"{self._workspace}/projects/{quote(project, safe='')}"
        self._monotonic = monotonic
        self._names: dict[str, tuple[float, Any]] = {}
        self._before: Callable[[], Awaitable[None]] | None = None

    def after(self, before: Callable[[], Awaitable[None]]) -> PlaneProject:
        """The same project, for who is in no hurry: every request waits for `before`. What is known of it is shared."""
        other = copy.copy(self)
        other._before = before  # noqa: SLF001 - its own class
        return other

    # --- what the operator says

    async def set_state(self, issue: str, state: str) -> None:
        """Move an issue to a state, named or by id. errors.Permanent StateNotFound lists the states that exist."""
        found = await self.state_id(state)
        answer = await self._request("PATCH", self._issue(issue), body={"state": found}, repeat=True)
        self._good(answer, f"issue {issue}")

    async def comment(self, issue: str, external_id: str, html: str) -> str:
        """The id of the one comment with `external_id`, created where there is none."""
        path, unpredictable = f"{self._issue(issue)}comments/", f"{external_id}{ANOTHER}{uuid.uuid4().hex[:12]}"
        for chosen in (external_id, unpredictable):
            body = {"comment_html": html, "external_source": SOURCE, "external_id": chosen}
            answer = await self._request("POST", path, body=body, repeat=True)
            if answer.code != 409:
                return str(self._good(answer, f"issue {issue}")["id"])
            me = (await self.names()).me
            ours = (comment for comment in await self.comments(issue) if comment.says(SOURCE, external_id, me))
            found = next(ours, None)
            if found is not None:
                return found.id
        raise errors.Transient(f"comment {external_id} of issue {issue} is said to be there, and is not")

    # --- what it reads

    async def state_id(self, state: str) -> str:
        """The id of a state given by name (in any case) or id."""
        for fresh in (False, True):
            project = await self.names(fresh=fresh)
            found = _match(project.states, state)
            if found is not None:
                return found
        there = ", ".join(name for _, name in project.states) or "none"
        raise errors.Permanent("StateNotFound", f"the tracker's project has no state {state!r}; it has: {there}")

    async def label_id(self, label: str) -> str | None:
        """The id of a label given by name (in any case) or id."""
        for fresh in (False, True):
            found = _match((await self.names(fresh=fresh)).labels, label)
            if found is not None:
                return found
        return None

    async def names(self, *, fresh: bool = False) -> Project:
        """Identifier, states, labels and the operator's own user."""

        async def ask() -> Project:
            project = self._good(await self._request("GET", f"{self._path}/"), "the project")
            states = [(str(s["id"]), str(s["name"])) async for s in self._all(f"{self._path}/states/")]
            labels = [(str(s["id"]), str(s["name"])) async for s in self._all(f"{self._path}/labels/")]
            me = self._good(await self._request("GET", "/api/v1/users/me/"), "the token's user")
            return Project(str(project["identifier"]), tuple(states), tuple(labels), str(me["id"]))

        known: Project = await self._remembered("names", ask, fresh=fresh)
        return known

    async def member(self, user: str) -> Member:
        """Who a user id belongs to; one that is no member of the workspace has nothing but the id."""

        async def ask() -> dict[str, Member]:
            answer = await self._request("GET", f"{self._workspace}/members/")
            if answer.code == 403 and not _knows_no(answer):
                message = (
                    f"{answer.what}: Plane shows who is in a workspace to its members and admins alone, and without "
                    "that nobody can approve by address: give the token's user the role Member in the workspace"
                )
                raise errors.Permanent("MembersHidden", message)
            body = self._decided(answer, "the workspace's members")
            rows = body.get("results", ()) if isinstance(body, dict) else body
            return {
                str(row["id"]): Member(str(row["id"]), str(row.get("email") or ""), str(row.get("display_name") or ""))
                for row in rows
            }

        for fresh in (False, True):
            members: dict[str, Member] = await self._remembered("members", ask, fresh=fresh)
            if user in members:
                return members[user]
        return Member(user)

    async def issue(self, issue: str) -> Issue | None:
        """One issue; None: there is none."""
        answer = await self._request("GET", self._issue(issue))
        return None if answer.code == 404 else _issue(self._good(answer, f"issue {issue}"))

    async def changed_issues(self) -> AsyncIterator[Issue]:
        """The project's issues without descriptions, the newest change first, as many as one cares to take."""
        params = {"order_by": "-updated_at", "fields": "id,sequence_id,name,state,labels,updated_at"}
        async for row in self._all(f"{self._path}/work-items/", params):
            yield _issue(row)

    async def comments(self, issue: str) -> tuple[Comment, ...]:
        """All comments of an issue, oldest first."""
        # Pages are counted from the newest: one that arrives between two of them makes the next begin with a known one.
        rows = {str(row["id"]): _comment(row) async for row in self._all(f"{self._issue(issue)}comments/")}
        return tuple(sorted(rows.values(), key=lambda comment: (comment.created_at, comment.id)))

    async def state_changes(self, issue: str) -> tuple[StateChange, ...]:
        """The issue's moves from state to state, oldest first."""
        rows = {str(row["id"]): row async for row in self._all(f"{self._issue(issue)}activities/")}
        moves = [
            StateChange(key, str(row.get("actor") or ""), _moment(row["created_at"]), str(new))
            for key, row in rows.items()
            if row.get("field") in ("state", "state_id") and (new := row.get("new_identifier"))
        ]
        # Of the same moment, in the server's order.
        return tuple(sorted(moves, key=lambda move: move.at))

    # --- how

    async def _request(self, method: str, path: str, **arguments: Any) -> http.Answer:
        if self._before is not None:
            await self._before()
        return await self._client.request(method, path, **arguments)

    def _issue(self, issue: str) -> str:
        return f"{self._path}/work-items/{quote(issue, safe='')}/"

    async def _all(self, path: str, params: Mapping[str, str] | None = None) -> AsyncIterator[dict[str, Any]]:
        query: dict[str, str | int] = {**(params or {}), "per_page": PAGE}
        while True:
            body = self._decided(await self._request("GET", path, params=query), path)
            if isinstance(body, list):
                for row in body:
                    yield row
                return
            for row in body.get("results") or ():
                yield row
            if not body.get("next_page_results"):
                return
            query["cursor"] = str(body["next_cursor"])

    async def _remembered(self, what: str, ask: Callable[[], Any], *, fresh: bool) -> Any:
        known = self._names.get(what)
        now = self._monotonic()
        # Asked for again once in a while is enough for what is not there: a stranger must not use up the limit.
        if known is not None and now < known[0] + (NAMES_KEPT_SECONDS if not fresh else 30.0):
            return known[1]
        value = await ask()
        self._names[what] = (now, value)
        return value

    def _decided(self, answer: http.Answer, what: str) -> Any:
        if answer.good:
            return answer.json()
        if answer.code == 401 or (answer.code == 403 and _knows_no(answer)):
            message = f"{answer.what}: Plane refuses the token ({answer.code}): check the Secret that tracker names"
            raise errors.Permanent("TokenRefused", message)
        if answer.code == 403:
            message = (
                f"{answer.what}: Plane does not let the token's user do this (403: {_said(answer)}): make the user a "
                "member of the project"
            )
            raise errors.Permanent("RightsMissing", message)
        if answer.code == 404:
            message = f"{answer.what}: Plane knows no {what}, or the token's user may not see it"
            raise errors.Permanent("NotFoundInTracker", message)
        raise errors.Permanent("TrackerRefused", f"{answer.what}: Plane answered {answer.code}: {_said(answer)}")

    def _good(self, answer: http.Answer, what: str) -> dict[str, Any]:
        body = self._decided(answer, what)
        if not isinstance(body, dict):
            raise errors.Transient(f"{answer.what}: the answer is no JSON object: is this Plane's address?")
        return body


def _knows_no(answer: http.Answer) -> bool:
    """Whether a 403 is about the token: without a challenge to send, Plane's framework makes that of a 401."""
    return "token" in answer.message.lower() or "credentials" in answer.message.lower()


def silence(code: int, headers: Mapping[str, str], _content: bytes) -> float | None:
    """The seconds for which the key must not be used, where an answer says so."""
    if code == 429:
        return http.retry_after_seconds(headers) or WINDOW_SECONDS
    # Nothing left, and not by our count alone: somebody else uses the key too.
    return 2.0 if headers.get("X-RateLimit-Remaining") == "0" else None


def _match(pairs: tuple[tuple[str, str], ...], wanted: str) -> str | None:
    exact = next((key for key, name in pairs if wanted in (key, name)), None)
    return exact or next((key for key, name in pairs if name.casefold() == wanted.casefold()), None)


def _mapping(answer: http.Answer) -> dict[str, Any]:
    body = answer.json()
    return body if isinstance(body, dict) else {}


def _said(answer: http.Answer) -> str:
    return answer.message or answer.quoted(json.dumps(answer.json()))


def _moment(text: Any) -> datetime:
    try:
        return _MOMENT.validate_python(text)
    except ValidationError:
        raise errors.Transient(f"Plane names {text!r} as a moment: is this its API?") from None


def _issue(row: Mapping[str, Any]) -> Issue:
    return Issue(
        id=str(row["id"]),
        sequence=int(row.get("sequence_id") or 0),
        title=str(row.get("name") or ""),
        state=str(row.get("state") or ""),
        labels=tuple(str(label) for label in row.get("labels") or ()),
        description=str(row.get("description_html") or ""),
        updated_at=_moment(row["updated_at"]) if row.get("updated_at") else None,
    )


def _comment(row: Mapping[str, Any]) -> Comment:
    edited = row.get("edited_at")
    return Comment(
        id=str(row["id"]),
        actor=str(row.get("actor") or ""),
        created_at=_moment(row["created_at"]),
        html=str(row.get("comment_html") or ""),
        updated_by=str(row["updated_by"]) if row.get("updated_by") else None,
        edited_at=_moment(edited) if edited else None,
        updated_at=_moment(row["updated_at"]) if row.get("updated_at") else None,
        external_id=row.get("external_id"),
        external_source=row.get("external_source"),
    )
