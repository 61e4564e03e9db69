"""A tracker and a chat beside a real cluster: an issue becomes a WorkItem, is approved by a comment, and all is told.

Both are stand-ins on loopback, where the operator's process runs too. What it may do to the API server for this is
exercised here, with its own ServiceAccount.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from tests.e2e.lab import Lab, only, until
from tests.standins.plane import BOT_KEY, Plane
from tests.standins.telegram import TOKEN, Telegram
from tests.unit.core.people import read

pytestmark = pytest.mark.e2e

GATE = "analysis-approved"


@contextlib.contextmanager
def servers() -> Iterator[tuple[Plane, Telegram]]:
    """Plane and Telegram in a thread of their own, which is their loop's."""
    plane, telegram = Plane(lambda: datetime.now(UTC)), Telegram()
    ready, stop = threading.Event(), asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def serve() -> None:
        loops.append(asyncio.get_running_loop())
        async with plane, telegram:
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
    thread.start()
    assert ready.wait(30)
    try:
        yield plane, telegram
    finally:
        loops[0].call_soon_threadsafe(stop.set)
        thread.join(30)


def test_an_issue_becomes_a_workitem_is_approved_in_the_tracker_and_told_there_and_in_the_chat(lab: Lab) -> None:
    with servers() as (plane, telegram):
        lead = plane.person("lead")
        token = {"secretName": "outside", "key": "plane"}
        states = {"inProgress": "In Progress", "inReview": "In Review", "done": "Done"}
        where = {"url": plane.url, "workspace": plane.workspace, "project": plane.project, "token": token}
        chat = {"chatId": "-100200300", "token": {"secretName": "outside", "key": "telegram"}, "url": telegram.url}
        lab.apply(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": "outside"},
                "stringData": {"plane": BOT_KEY, "telegram": TOKEN},
            },
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "texts"},
                "data": {"comment.Done": "<p>Shipped: {{ branch }}</p>"},
            },
        )
        git = lab.repository(
            tracker={
                "plane": {
                    **where,
                    "states": states,
                    "approvers": ["lead@example.com"],
                    "workItems": {"state": "Ready", "branch": "feature/{item}-{slug}", "pipeline": "short"},
                }
            },
            notify=[{"telegram": chat}],
            messages={"templates": {"configMapName": "texts"}},
        )
        issue = plane.issue("Discount codes", state="Ready", html="<p>One <strong>code</strong>.</p>")
        # Its Pipeline is not there yet: until it starts, it follows the issue.
        lab.wait_phase("et-1", "Pending")
        plane.edit(issue, lead, name="Discount codes at checkout")
        until(
            lambda: lab.get("workitem", "et-1")["spec"]["title"] == "Discount codes at checkout",
            "the edit",
        )
        lab.pipeline("short", only("analysis", gates=(GATE,)))
        lab.wait_phase("et-1", "InReview")
        until(lambda: any("waits for approval" in html for html in plane.said(issue)), "the request")
        plane.say(issue, plane.person("stranger"), "<p>:approved:</p>")
        until(lambda: any("does not count" in html for html in plane.said(issue)), "the refusal")
        plane.say(issue, lead, "<p>:approved:</p>")
        status = lab.wait_phase("et-1", "Done")
        assert [(d["by"], d["result"]) for d in status["decisions"]] == [("plane:lead@example.com", "Accepted")]
        lab.wait("et-1", lambda s: "outbox" not in s, "everything told")
        spec = lab.get("workitem", "et-1")["spec"]
        assert (spec["description"], spec["branch"]) == ("One **code**.\n", "feature/et-1-discount-codes")
        assert spec["externalRef"]["id"] == issue
        assert git.subjects("feature/et-1-discount-codes") == ["analyst(et-1): run 1"]
        assert read(plane.said(issue)[-1]) == "Shipped: feature/et-1-discount-codes"
        assert plane.state_of(issue) == "Done"
        assert telegram.texts[-1].startswith("et-1 Discount codes at checkout\n✅ Done: ")
        assert telegram.refusals == []
