"""A stand-in for a Plane server, from its source (version 1.3.1): it refuses what that refuses.

Enforced: the key (403, as its framework makes of a 401 without a challenge), roles, the slash at the end of every path,
60 requests a minute a key, pages from the newest, 409 for a second comment with the same external id anywhere in the
project, whoever wrote the first, states of the project, who may be told by what (`created_by` and `created_at` are the
caller's, `actor` and `updated_at` are not; an edit by the API leaves `edited_at` empty), signed webhooks with one
delivery for each changed field, no retry after an answer, five after none, then never again.
"""

from __future__ import annotations

import asyncio
import base64
import collections
import hashlib
import hmac
import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer

JSON = dict[str, Any]
LIMIT = 60
WINDOW_SECONDS = 60.0
BOT_KEY = "plane_api_bot_key"
STATES = ("Backlog", "Ready", "In Progress", "In Review", "Needs Input", "Blocked", "Approved", "Done", "Cancelled")


@dataclass
class Request:
    """One request as it arrived, and the answer's code."""

    method: str
    path: str
    query: dict[str, str]
    body: Any
    code: int = 0

    def __str__(self) -> str:
        return f"{self.method} {self.path}: {self.code}"


@dataclass
class Plane:
    """One workspace, one project. `async with` it."""

    now: Callable[[], datetime]
    workspace: str = "shop"
    identifier: str = "ET"
    secret: str = "plane_wh_secret"
    webhook: str | None = None
    """Where deliveries go; None: switched off."""
    away: bool = False
    """Every connection is cut."""
    hanging: bool = False
    """Nothing is answered."""
    between_pages: Callable[[], None] | None = None
    """Called once, after the first page of a list that has more."""
    hidden: int = 0
    """How many comments to answer with a cut connection after they were stored."""
    changed: Callable[[], None] | None = None
    """Called when the operator has changed something, before it is answered."""
    asked: list[Request] = field(default_factory=list)
    listeners: list[Callable[[], None]] = field(default_factory=list)
    """Called after every answer."""
    deliveries: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    url: str = ""
    lead: str = ""
    developer: str = ""
    """People that a test cares for."""

    def __post_init__(self) -> None:
        self.project = self._id("project")
        self.users: dict[str, JSON] = {}
        self.guests: set[str] = set()
        """Users who are guests of the workspace."""
        self.keys: dict[str, str] = {}
        self.states = {self._id(f"state {name}"): name for name in STATES}
        self.labels = {self._id("label ai"): "ai", self._id("label bug"): "bug"}
        self.issues: dict[str, JSON] = {}
        self.comments: dict[str, list[JSON]] = {}
        self.activities: dict[str, list[JSON]] = {}
        self._hits: dict[str, collections.deque[datetime]] = collections.defaultdict(collections.deque)
        self._count = 0
        self._server: TestServer | None = None
        self._sending: set[asyncio.Task[None]] = set()
        self.bot = self.person("bot")
        self.keys[BOT_KEY] = self.bot

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_route("*", "/{anything:.*}", self._answer)
        self._server = TestServer(app)
        await self._server.start_server()
        self.url = str(self._server.make_url("")).rstrip("/")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.delivered()
        assert self._server is not None
        await self._server.close()

    # --- people, by the web interface

    def person(self, name: str) -> str:
        """A member; their id."""
        user = self._id(f"user {name}")
        self.users[user] = {"id": user, "email": f"{name}@example.com", "display_name": name}
        return user

    def issue(self, title: str, *, state: str = "Backlog", html: str = "<p></p>", labels: tuple[str, ...] = ()) -> str:
        """A new issue; its id."""
        number = len(self.issues) + 1
        issue = self._id(f"issue {number}")
        now = self._time()
        self.issues[issue] = {
            "id": issue,
            "sequence_id": number,
            "name": title,
            "description_html": html,
            "state": self.state_id(state),
            "labels": [self.label_id(label) for label in labels],
            "created_at": now,
            "updated_at": now,
        }
        self.comments[issue], self.activities[issue] = [], []
        self._deliver("issue", "created", self.issues[issue], self.bot, None)
        return issue

    def edit(self, issue: str, by: str, **fields: Any) -> None:
        """Change fields of an issue: one delivery for each."""
        for name, value in fields.items():
            self._change(issue, by, name, value)

    def move(self, issue: str, state: str, by: str) -> None:
        """Drag the issue into another column."""
        self._change(issue, by, "state", self.state_id(state), said="state_id")

    def say(self, issue: str, by: str, html: str) -> str:
        """A comment; its id."""
        return str(self._comment(issue, by, {"comment_html": html})["id"])

    def rewrite(self, issue: str, comment: str, by: str, html: str) -> None:
        """Any member may edit any comment."""
        found = next(c for c in self.comments[issue] if c["id"] == comment)
        found |= {"comment_html": html, "updated_by": by, "edited_at": self._time(), "updated_at": self._time()}
        self._deliver("issue_comment", "updated", {**found, "issue": issue}, by, None)

    # --- what a test sees

    def state_of(self, issue: str) -> str:
        return self.states[self.issues[issue]["state"]]

    def history(self, issue: str) -> list[str]:
        """Names of the states that the issue was moved to, in order."""
        return [self.states[a["new_identifier"]] for a in self.activities[issue] if a["field"] == "state"]

    def said(self, issue: str, by: str | None = None) -> list[str]:
        """The HTML of the comments of one user, by default the operator's."""
        return [c["comment_html"] for c in self.comments[issue] if c["actor"] == (by or self.bot)]

    def state_id(self, name: str) -> str:
        return next(key for key, value in self.states.items() if value == name)

    def label_id(self, name: str) -> str:
        return next(key for key, value in self.labels.items() if value == name)

    async def delivered(self) -> None:
        """Wait until every webhook has got its answer."""
        while self._sending:
            await asyncio.gather(*tuple(self._sending))

    def most_in_a_minute(self) -> int:
        """The most requests of one key that were ever let through within a window."""
        return self._most

    _most = 0

    # --- HTTP

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if self.hanging:
            await asyncio.sleep(86400)
        if self.away:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        text = await request.text()
        kept = Request(request.method, request.path, dict(request.query), json.loads(text) if text else None)
        self.asked.append(kept)
        before = json.dumps([self.issues, self.comments])
        response = self._decide(request, kept)
        kept.code = response.status
        if self.changed is not None and json.dumps([self.issues, self.comments]) != before:
            self.changed()
        for listener in self.listeners:
            listener()
        if self.hidden and kept.method == "POST" and kept.path.endswith("/comments/") and kept.code == 201:
            self.hidden -= 1
            assert request.transport is not None
            request.transport.abort()
        return response

    def _decide(self, request: web.Request, asked: Request) -> web.Response:
        if not asked.path.endswith("/"):
            return web.Response(status=301, headers={"Location": f"{asked.path}/"})
        user = self.keys.get(request.headers.get("X-Api-Key", ""))
        if user is None:
            return web.json_response({"detail": "Given API token is not valid"}, status=403)
        limited = self._limited(request.headers["X-Api-Key"])
        if limited is not None:
            return limited
        try:
            code, body = self._route(asked, user)
        except KeyError:
            code, body = 404, {"error": "The required object does not exist."}
        hits = self._hits[request.headers["X-Api-Key"]]
        reset = int((self.now() + timedelta(seconds=WINDOW_SECONDS)).timestamp())
        headers = {"X-RateLimit-Remaining": str(max(LIMIT - len(hits), 0)), "X-RateLimit-Reset": str(reset)}
        return web.json_response(body, status=code, headers=headers)

    def _limited(self, key: str) -> web.Response | None:
        hits, now = self._hits[key], self.now()
        while hits and hits[0] <= now - timedelta(seconds=WINDOW_SECONDS):
            hits.popleft()
        if len(hits) >= LIMIT:
            wait = (hits[0] + timedelta(seconds=WINDOW_SECONDS) - now).total_seconds()
            headers = {"Retry-After": str(int(wait) + 1), "X-RateLimit-Remaining": "0"}
            message = {"error_code": 5900, "error_message": "RATE_LIMIT_EXCEEDED"}
            return web.json_response(message, status=429, headers=headers)
        hits.append(now)
        self._most = max(self._most, len(hits))
        return None

    def _route(self, asked: Request, user: str) -> tuple[int, Any]:
        parts = asked.path.strip("/").split("/")
        if parts == ["api", "v1", "users", "me"]:
            return 200, self.users[user]
        if parts[:3] != ["api", "v1", "workspaces"] or parts[3] != self.workspace:
            raise KeyError(asked.path)
        match parts[4:]:
            case ["members"] if user in self.guests:
                return 403, {"detail": "You do not have permission to perform this action."}
            case ["members"]:
                return 200, list(self.users.values())
            case ["projects", project, *rest] if project == self.project:
                return self._in_project(asked, rest, user)
            case _:
                raise KeyError(asked.path)

    def _in_project(self, asked: Request, rest: list[str], user: str) -> tuple[int, Any]:
        match (asked.method, rest):
            case ("GET", []):
                return 200, {"id": self.project, "identifier": self.identifier, "name": "Shop"}
            case ("GET", ["states"]):
                return self._page([{"id": i, "name": n, "group": "started"} for i, n in self.states.items()], asked)
            case ("GET", ["labels"]):
                return self._page([{"id": i, "name": n} for i, n in self.labels.items()], asked)
            case ("GET", ["work-items"]):
                rows = sorted(self.issues.values(), key=lambda row: str(row["updated_at"]), reverse=True)
                if asked.query.get("order_by", "-created_at") != "-updated_at":
                    rows = sorted(self.issues.values(), key=lambda row: str(row["created_at"]), reverse=True)
                return self._page(rows, asked)
            case ("GET", ["work-items", issue]):
                return 200, self.issues[issue]
            case ("PATCH", ["work-items", issue]):
                return self._patch(issue, asked.body, user)
            case ("GET", ["work-items", issue, "comments"]):
                return self._page(_newest_first(self.comments[issue]), asked)
            case ("POST", ["work-items", issue, "comments"]):
                return self._post_comment(issue, asked.body, user)
            case ("PATCH", ["work-items", issue, "comments", comment]):
                return self._patch_comment(issue, comment, asked.body, user)
            case ("GET", ["work-items", issue, "activities"]):
                return self._page(self.activities[issue], asked)
            case _:
                return 405, {"detail": f'Method "{asked.method}" not allowed.'}

    def _page(self, rows: list[JSON], asked: Request) -> tuple[int, Any]:
        size = int(asked.query.get("per_page", "1000"))
        if size > 1000:
            return 400, {"detail": "Invalid per_page value. Cannot exceed 1000."}
        _, page, _ = (int(part) for part in asked.query.get("cursor", f"{size}:0:0").split(":"))
        names = asked.query.get("fields")
        chosen = rows[page * size : (page + 1) * size]
        if names:
            chosen = [{name: row[name] for name in names.split(",") if name in row} for row in chosen]
        more = len(rows) > (page + 1) * size
        if more and self.between_pages is not None:
            arrive, self.between_pages = self.between_pages, None
            arrive()
        return 200, {"results": chosen, "next_cursor": f"{size}:{page + 1}:0", "next_page_results": more}

    def _patch(self, issue: str, body: JSON, user: str) -> tuple[int, Any]:
        found = self.issues[issue]
        if "state" in body and body["state"] not in self.states:
            return 400, {"state": [f'Invalid pk "{body["state"]}" - object does not exist.']}
        for name, value in body.items():
            self._change(issue, user, name, value)
        return 200, found

    def _post_comment(self, issue: str, body: JSON, user: str) -> tuple[int, Any]:
        if not body.get("comment_html"):
            return 400, {"comment_html": ["This field may not be blank."]}
        if len(body.get("external_id") or "") > 255:
            return 400, {"external_id": ["Ensure this field has no more than 255 characters."]}
        same = ("external_id", "external_source")
        for other in (comment for comments in self.comments.values() for comment in comments):
            if all(body.get(name) and other[name] == body.get(name) for name in same):
                error = "Work item comment with the same external id and external source already exists"
                return 409, {"error": error, "id": other["id"]}
        return 201, self._comment(issue, user, body)

    def _patch_comment(self, issue: str, comment: str, body: JSON, user: str) -> tuple[int, Any]:
        """Any member may change any comment; its date stays, and nothing is said about an edit but by whom."""
        found = next((c for c in self.comments[issue] if c["id"] == comment), None)
        if found is None:
            raise KeyError(comment)
        found |= {str(name): body[name] for name in ("comment_html", "external_id", "external_source") if name in body}
        found |= {"updated_by": user, "updated_at": self._time()}
        return 200, found

    # --- the database

    def _comment(self, issue: str, actor: str, body: JSON) -> JSON:
        comment = {
            "id": self._id("comment"),
            "comment_html": body["comment_html"],
            "actor": actor,
            "created_by": body.get("created_by", actor),
            "updated_by": None,
            "created_at": body.get("created_at", self._time()),
            "updated_at": self._time(),
            "edited_at": None,
            "external_id": body.get("external_id"),
            "external_source": body.get("external_source"),
        }
        self.issues[issue]
        self.comments[issue].append(comment)
        self._deliver("issue_comment", "created", {**comment, "issue": issue}, actor, None)
        return comment

    def _change(self, issue: str, by: str, name: str, value: Any, said: str | None = None) -> None:
        found = self.issues[issue]
        old = found[name]
        if old == value:
            return
        found |= {name: value, "updated_at": self._time()}
        if name == "state":
            activity = {"field": "state", "verb": "updated", "old_identifier": old, "new_identifier": value}
            activity |= {"old_value": self.states[old], "new_value": self.states[value]}
            self.activities[issue].append(
                {**activity, "id": self._id("activity"), "actor": by, "created_at": self._time()}
            )
        self._deliver("issue", "updated", found, by, said or name)

    def _id(self, what: str) -> str:
        self._count = getattr(self, "_count", 0) + 1
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{what} {self._count}"))

    def _time(self) -> str:
        return self.now().astimezone(UTC).isoformat().replace("+00:00", "Z")

    # --- webhooks

    def signed(self, event: str, action: str, data: JSON, by: str, changed: str | None) -> tuple[dict[str, str], bytes]:
        """Headers and body of a delivery."""
        actor = self.users[by]
        activity = {"field": changed, "actor": {"id": by, **{k: actor[k] for k in ("display_name", "email")}}}
        body = json.dumps(
            {
                "event": event,
                "action": action,
                "workspace_id": self.workspace,
                "data": {**data, "project": self.project},
                "activity": activity,
            }
        ).encode()
        signature = hmac.new(self.secret.encode(), body, hashlib.sha256).hexdigest()
        nonce = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode()
        headers = {"X-Plane-Event": event, "X-Plane-Delivery": nonce, "X-Plane-Signature": signature}
        return {**headers, "Content-Type": "application/json"}, body

    def _deliver(self, event: str, action: str, data: JSON, by: str, changed: str | None) -> None:
        delivery = self.signed(event, action, data, by, changed)
        self.deliveries.append(delivery)
        if self.webhook is not None:
            task = asyncio.get_running_loop().create_task(self._send(*delivery))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def _send(self, headers: dict[str, str], body: bytes) -> None:
        for _ in range(5):
            if self.webhook is None:
                return
            try:
                async with (
                    aiohttp.ClientSession() as session,
                    session.post(self.webhook, headers=headers, data=body) as answer,
                ):
                    await answer.read()
            except aiohttp.ClientError:
                await asyncio.sleep(10)
            else:
                # Whatever the code, 5xx included, it was delivered.
                return
        self.webhook = None


def _newest_first(rows: list[JSON]) -> list[JSON]:
    return sorted(rows, key=lambda row: datetime.fromisoformat(row["created_at"]), reverse=True)
