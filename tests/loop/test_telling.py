"""The whole operator tells a tracker and a chat, both stand-ins on loopback, what becomes of an item."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import pytest
from aiohttp import web

from tests.loop import virtual
from tests.loop.apiserver import no_right_to
from tests.loop.lab import NAMESPACE, Lab
from tests.loop.store import CONFIG_MAPS, EVENTS, SECRETS
from tests.standins.plane import BOT_KEY, Plane
from tests.standins.telegram import TOKEN, Telegram
from tests.unit.core.people import read
from tests.unit.core.world import FORGE, End, review
from tests.unit.integrations.scripted import serving

pytestmark = pytest.mark.slow

STATES = {
    "inProgress": "In Progress",
    "inReview": "In Review",
    "needsInput": "Needs Input",
    "blocked": "Blocked",
    "done": "Done",
    "approved": "Approved",
}


def secret(lab: Lab, name: str, **values: str) -> None:
    """A Secret, or other values for it."""
    data = {key.replace("_", "-"): base64.b64encode(value.encode()).decode() for key, value in values.items()}
    if lab.store.find(SECRETS, NAMESPACE, name) is not None:
        lab.store.patch(SECRETS, NAMESPACE, name, {"data": data})
        return
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": "Opaque", "data": data}
    lab.store.create(SECRETS, NAMESPACE, body)


def tracker(plane: Plane, **spec: Any) -> dict[str, Any]:
    token = {"secretName": "shop-plane", "key": "token"}
    where = {"url": plane.url, "workspace": plane.workspace, "project": plane.project, "token": token}
    return {"plane": {**where, "states": STATES, "approvers": ["lead@example.com"], **spec}}


def chat(telegram: Telegram, **spec: Any) -> dict[str, Any]:
    token = {"secretName": "shop-telegram", "key": "token"}
    return {"telegram": {"chatId": "-100200300", "token": token, "url": telegram.url}, **spec}


@asynccontextmanager
async def team(lab: Lab, **spec: Any) -> AsyncIterator[tuple[Plane, Telegram]]:
    """A tracker, a chat, and a Repository that names both."""
    async with Plane(virtual.now) as plane, Telegram() as telegram:
        secret(lab, "shop-plane", token=BOT_KEY)
        secret(lab, "shop-telegram", token=TOKEN)
        lab.repository(**{"tracker": tracker(plane), "notify": [chat(telegram)], **spec})
        lab.pipeline()
        yield plane, telegram


def delivered(lab: Lab, item: str) -> tuple[str, str]:
    """Reason and message of the condition EffectsDelivered."""
    found = [c for c in lab.status(item).conditions if c.type == "EffectsDelivered"]
    return (found[0].reason, found[0].message) if found else ("", "")


def settled(lab: Lab, *items: str) -> Any:
    return lambda: all(lab.phase(item) == "Done" and lab.status(item).outbox is None for item in items)


async def test_tracker_and_chat_follow_an_item_to_its_end(lab: Lab) -> None:
    async with team(lab) as (plane, telegram):
        lab.approve_always()
        lab.kubelet.scripts["et-1", "review"] = [review("REQUEST_CHANGES")]
        issue = plane.issue("Discount codes")
        lab.start()
        lab.item("et-1", externalRef={"id": issue, "url": f"{plane.url}/ET-1"})
        await lab.until(settled(lab, "et-1"), "the end")
        said = [read(html) for html in plane.said(issue)]
        assert [text[:42] for text in said] == [
            "Stage analysis is ready and waits for appr",
            "The review in stage review asks for change",
            "Done. branch workitem/et-1 is ready at " + (lab.status("et-1").head or "")[:3],
        ]
        assert plane.history(issue) == ["In Progress", "In Review", "In Progress", "Done"]
        assert len(telegram.texts) == 11
        assert telegram.texts[-1].startswith("et-1 Item et-1\n✅ Done: branch workitem/et-1 is ready at ")
        assert telegram.refusals == []
        assert TOKEN not in str(lab.log)
        assert BOT_KEY not in str(lab.log)
        await lab.stop()


async def test_a_tracker_and_a_chat_that_are_down_hold_nothing_up_and_are_right_afterwards(lab: Lab) -> None:
    async with team(lab) as (plane, telegram):
        lab.approve_always()
        issue = plane.issue("Discount codes")
        plane.away = True
        # Nobody listens there: so it is certain that nothing was sent.
        nowhere = chat(telegram)
        nowhere["telegram"]["url"] = "http://127.0.0.1:9"
        lab.repository(notify=[nowhere], tracker=tracker(plane))
        lab.start()
        lab.item("et-1", externalRef={"id": issue})
        await lab.until_phase("Done", "et-1")
        assert (plane.said(issue), telegram.texts) == ([], [])
        reason, message = delivered(lab, "et-1")
        assert reason == "Late"
        assert "tracker: 2 waiting, the first is comment-2-0-ApprovalWanted" in message
        assert "notify-0: 8 waiting" in message
        assert "is the server up" in message
        assert lab.ready("et-1")[0] == "Done"
        await lab.rest(3600)
        plane.away = False
        lab.repository(notify=[chat(telegram)], tracker=tracker(plane))
        await lab.until(settled(lab, "et-1"), "everything told")
        assert [read(html)[:9] for html in plane.said(issue)] == ["Stage ana", "Done. bra"]
        assert plane.state_of(issue) == "Done"
        assert len(telegram.texts) == 8
        assert telegram.texts[-1].partition("\n")[2].startswith("✅ Done")
        await lab.stop()


async def test_a_missing_state_lists_what_exists_and_keeps_no_comment_back(lab: Lab) -> None:
    async with team(lab) as (plane, _):
        issue = plane.issue("Discount codes")
        states = {**STATES, "inReview": "Reviewing"}
        lab.repository(tracker=tracker(plane, states=states))
        lab.start()
        lab.item("et-1", externalRef={"id": issue})
        await lab.until_phase("InReview", "et-1")
        await lab.until(lambda: len(plane.said(issue)) == 1, "the request")
        await lab.until(lambda: delivered(lab, "et-1")[0] == "StateNotFound", "the condition")
        assert delivered(lab, "et-1")[1].endswith(
            "the tracker's project has no state 'Reviewing'; it has: Backlog, Ready, In Progress, In Review, "
            "Needs Input, Blocked, Approved, Done, Cancelled"
        )
        lab.repository(tracker=tracker(plane))
        await lab.until(lambda: plane.state_of(issue) == "In Review", "the state")
        await lab.until(lambda: lab.status("et-1").outbox is None, "everything told")
        assert delivered(lab, "et-1")[0] == "Delivered"
        await lab.stop()


async def test_twenty_items_share_sixty_requests_a_minute_and_all_is_told(lab: Lab) -> None:
    async with team(lab, notify=[]) as (plane, _):
        lab.approve_always()
        names = [f"et-{number}" for number in range(1, 21)]
        issues = {name: plane.issue(name) for name in names}
        lab.start()
        for name in names:
            lab.item(name, branch=f"feature/{name}", externalRef={"id": issues[name]})
        await lab.until(settled(lab, *names), "everything told")
        assert [str(asked) for asked in plane.asked if asked.code == 429] == []
        assert plane.most_in_a_minute() <= 60
        for name in names:
            assert [read(html)[:9] for html in plane.said(issues[name])] == ["Stage ana", "Done. bra"], name
            assert plane.state_of(issues[name]) == "Done"
        await lab.stop()


async def test_repositories_that_name_one_key_share_its_sixty_requests_however_they_write_the_address(lab: Lab) -> None:
    async with team(lab, notify=[]) as (plane, _):
        other = tracker(plane, url=f"{plane.url}/", token={"secretName": "blog-plane", "key": "token"})
        secret(lab, "blog-plane", token=BOT_KEY)
        lab.repository("blog", tracker=other)
        names = [f"et-{number}" for number in range(1, 25)]
        issues = {name: plane.issue(name) for name in names}
        lab.start()
        for number, name in enumerate(names):
            where = {"repository": ("shop", "blog")[number % 2], "branch": f"feature/{name}"}
            lab.item(name, externalRef={"id": issues[name]}, **where)
        await lab.until_phase("InReview", *names)
        await lab.until(lambda: all(lab.status(name).outbox is None for name in names), "the requests")
        assert len(plane.asked) > 60
        assert [str(asked) for asked in plane.asked if asked.code == 429] == []
        assert plane.most_in_a_minute() <= 60
        assert {len(plane.said(issue)) for issue in issues.values()} == {1}
        await lab.stop()


async def test_a_chat_that_asks_to_be_left_alone_is_and_hears_everything_once_afterwards(lab: Lab) -> None:
    async with team(lab, tracker=None) as (_, telegram):
        lab.repository("blog", notify=[chat(telegram)])
        asks = {"ok": False, "error_code": 429, "description": "Too Many Requests", "parameters": {"retry_after": 90}}
        telegram.answers, heard = [(429, asks)], list[datetime]()
        telegram.changed = lambda: heard.append(virtual.now())
        lab.start()
        began = virtual.now()
        for name, repository in (("et-1", "shop"), ("et-2", "blog")):
            lab.item(name, repository=repository, branch=f"feature/{name}")
        await lab.until_phase("InReview", "et-1", "et-2")
        await lab.until(lambda: all(lab.status(name).outbox is None for name in ("et-1", "et-2")), "everything told")
        assert (heard[0] - began).total_seconds() >= 90
        assert telegram.refusals == ["Too Many Requests"]
        assert sorted(text.split()[0] for text in telegram.texts) == ["et-1", "et-1", "et-2", "et-2"]
        await lab.stop()


async def test_killed_after_every_message_and_before_its_status_write_nothing_is_sent_twice(lab: Lab) -> None:
    async with team(lab, tracker=None) as (_, telegram):
        lab.approve_always()
        telegram.changed = lab._die
        lab.start()
        lab.item("et-1")
        over = settled(lab, "et-1")
        while not over():
            await lab.until(lambda: over() or not lab.server.tokens, "the end")
            if not lab.server.tokens:
                await lab.restart()
        said = [text.partition("\n")[2] for text in telegram.texts]
        assert len(said) == len(set(said)) == 8
        assert said[-1].startswith("✅ Done")
        ends = {(e.state, e.reason) for e in lab.status("et-1").effects if e.kind == "Notify"}
        assert ends == {("Unknown", "MaybeSent")}
        await lab.stop()


async def test_a_chat_that_many_write_to_gets_every_message_once_however_long_it_takes(lab: Lab) -> None:
    async with team(lab, tracker=None) as (_, telegram):
        names = [f"et-{number}-{each}" for number in range(12) for each in range(4)]
        for number in range(12):
            lab.repository(f"shop-{number}", notify=[chat(telegram, events=["ApprovalWanted"])])
        lab.start()
        for name in names:
            lab.item(name, repository=f"shop-{name.split('-')[1]}", branch=f"feature/{name}")
        await lab.until(lambda: all(lab.phase(name) == "InReview" for name in names), "the reviews")
        await lab.until(lambda: all(lab.status(name).outbox is None for name in names), "everything told")
        assert sorted(text.split()[0] for text in telegram.texts) == sorted(names)
        assert {effect.state for name in names for effect in lab.status(name).effects if effect.target} == {"Done"}
        assert telegram.refusals == []
        await lab.stop()


async def test_killed_after_every_single_call_and_before_its_status_write_nothing_is_told_twice(lab: Lab) -> None:
    async with team(lab, notify=[]) as (plane, _):
        lab.approve_always()
        lab.kubelet.scripts["et-1", "review"] = [review("REQUEST_CHANGES")]
        issue, kills = plane.issue("Discount codes"), 0

        def kill() -> None:
            nonlocal kills
            kills += 1
            lab._die()

        plane.changed = kill
        lab.start()
        lab.item("et-1", externalRef={"id": issue})
        over = settled(lab, "et-1")
        while not over():
            await lab.until(lambda: over() or not lab.server.tokens, "the end")
            if not lab.server.tokens:
                await lab.restart()
        assert kills == 7
        assert [read(html)[:9] for html in plane.said(issue)] == ["Stage ana", "The revie", "Done. bra"]
        assert plane.history(issue) == ["In Progress", "In Review", "In Progress", "Done"]
        comments = [e for e in lab.status("et-1").effects if e.kind == "TrackerComment"]
        assert [(e.state, e.ref) for e in comments] == [("Done", c["id"]) for c in plane.comments[issue]]
        await lab.stop()


@pytest.mark.parametrize("wrong", ["TokenRefused", "Forbidden"])
async def test_a_token_that_is_wrong_or_closed_for_hours_loses_nothing(lab: Lab, wrong: str) -> None:
    async with team(lab, notify=[]) as (plane, _):
        lab.approve_always()
        issue = plane.issue("Discount codes")
        if wrong == "Forbidden":
            lab.server.fault = no_right_to("shop-plane")
        else:
            secret(lab, "shop-plane", token="expired")
        lab.start()
        lab.item("et-1", externalRef={"id": issue})
        await lab.until_phase("Done", "et-1")
        await lab.rest(4 * 3600)
        assert delivered(lab, "et-1")[0] == wrong
        lab.server.fault = lambda _call: None
        secret(lab, "shop-plane", token=BOT_KEY)
        await lab.until(settled(lab, "et-1"), "everything told")
        assert [read(html)[:9] for html in plane.said(issue)] == ["Stage ana", "Done. bra"]
        assert plane.state_of(issue) == "Done"
        await lab.stop()


async def test_questions_come_whole_from_the_forge_and_a_chat_gets_their_beginning(lab: Lab) -> None:
    questions = "# Questions\n\n" + "".join(f"{n}. Which price does case {n} have?\n" for n in range(1, 300))
    lab.repository_with_forge()
    lab.forge.branches.add("workitem/et-1")
    async with team(lab, forge=FORGE) as (plane, telegram):
        lab.kubelet.scripts["et-1", "analysis"] = [End(writes={"01-questions.md": questions})]
        issue = plane.issue("Discount codes")
        lab.start()
        lab.item("et-1", externalRef={"id": issue})
        await lab.until_phase("NeedsInput", "et-1")
        await lab.until(lambda: lab.status("et-1").outbox is None, "everything told")
        (said,) = plane.said(issue)
        assert "<li>Which price does case 1 have?</li>" in said
        assert "<li>Which price does case 299 have?</li>" in said
        assert f"/src/commit/{lab.status('et-1').head}/" in said
        assert "only the beginning" not in said
        heard = "".join(telegram.texts)
        assert "1. Which price does case 1 have?" in heard
        assert "case 299" not in heard
        assert telegram.refusals == []
        await lab.stop()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_another_channel_is_told_by_apprise(lab: Lab) -> None:
    """The real library, to a server on loopback; its address is a Secret."""
    async with serving() as server:
        server.answers = [web.Response() for _ in range(2)]
        secret(lab, "shop-other", address=server.url.replace("http://", "json://"))
        address = {"secretName": "shop-other", "key": "address"}
        lab.repository(notify=[{"apprise": {"address": address}}])
        lab.pipeline()
        lab.start()
        lab.item("et-1")
        await lab.until_phase("InReview", "et-1")
        await lab.until(lambda: lab.status("et-1").outbox is None, "everything told")
        texts = [asked.body["message"] for asked in server.asked]
        assert texts[0] == "et-1 Item et-1\nStage analysis"
        assert texts[1].startswith(
            "et-1 Item et-1\n✋ Stage analysis waits for approval (gate analysis-approved, commit"
        )
        assert {effect.state for effect in lab.status("et-1").effects if effect.target} == {"Done"}
        await lab.stop()


async def test_templates_and_tokens_are_those_of_the_moment(lab: Lab) -> None:
    messages = {"language": "ru", "templates": {"configMapName": "texts"}}
    async with team(lab, messages=messages) as (plane, telegram):
        data = {
            "comment.ApprovalWanted": "<p>{{ item.name }}: bitte {{ gate }}</p>",
            "message.StageChanged": "{% if %}",
        }
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "texts"}, "data": data}
        lab.store.create(CONFIG_MAPS, NAMESPACE, body)
        secret(lab, "shop-plane", token="old")
        issue = plane.issue("Discount codes")
        lab.start()
        lab.item("et-1", externalRef={"id": issue})
        await lab.until(lambda: delivered(lab, "et-1")[0] == "TokenRefused", "the refusal")
        assert "check the Secret" in delivered(lab, "et-1")[1]
        assert '"old"' not in str(lab.store.objects)
        secret(lab, "shop-plane", token=BOT_KEY)
        await lab.until(lambda: bool(plane.said(issue)), "the comment")
        assert plane.said(issue) == ["<p>et-1: bitte analysis-approved</p>"]
        assert "Стадия analysis" in telegram.texts[0]
        assert (
            "Шаблон message.StageChanged из ConfigMap texts непригоден: line 1: TemplateSyntaxError"
            in telegram.texts[0]
        )
        await lab.stop()


async def test_templates_that_are_not_there_or_misspelled_are_an_event_and_the_built_in_ones_are_used(lab: Lab) -> None:
    async with team(lab, tracker=None, messages={"templates": {"configMapName": "texts"}}) as (_, telegram):
        lab.start()
        lab.item("et-1")
        await lab.until_phase("InReview", "et-1")
        await lab.until(lambda: len(telegram.texts) == 2, "the request")
        data = {"message.Dnoe": "x", "message.Blocked": "{{ item.name }} steht", "note": "y"}
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "texts"}, "data": data}
        lab.store.create(CONFIG_MAPS, NAMESPACE, body)
        lab.kubelet.scripts["et-1", "architecture"] = [End(exit_code=1)]
        lab.approve_always()
        await lab.until(lambda: telegram.texts[-1] == "et-1 steht", "the block")
        await lab.rest(60)
        about = [event for event in lab.store.list(EVENTS) if event["involvedObject"]["name"] == "shop"]
        assert {(event["involvedObject"]["kind"], event["reason"]) for event in about} == {
            ("Repository", "TemplatesUnusable")
        }
        wrong = "message.Dnoe (did you mean message.Done?), note"
        then = "; until then the built-in texts are used"
        assert [event["message"] for event in about] == [
            f"spec.messages.templates: there is no ConfigMap texts in namespace team-a: create it{then}",
            f"spec.messages.templates: ConfigMap texts has keys that nothing is told by: {wrong}{then}",
        ]
        await lab.stop()
