"""The whole operator listens to a tracker, a stand-in on loopback: issues, approvals, answers, and what counts not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from tests.loop import virtual
from tests.loop.lab import NAMESPACE, Lab
from tests.loop.store import DECISIONS, EVENTS, JSON, WORKITEMS, Refused
from tests.loop.test_telling import secret, tracker
from tests.standins.plane import BOT_KEY, Plane
from tests.unit.core.people import read
from tests.unit.core.world import End

pytestmark = pytest.mark.slow


@asynccontextmanager
async def project(lab: Lab, **plane: Any) -> AsyncIterator[Plane]:
    """A tracker with a lead, who may approve, and a developer, who may not."""
    async with Plane(virtual.now) as standin:
        secret(lab, "shop-plane", token=BOT_KEY)
        standin.lead, standin.developer = standin.person("lead"), standin.person("developer")
        standin.listeners.append(lab._changed.set)
        lab.repository(tracker=tracker(standin, **plane))
        lab.pipeline()
        yield standin


def decisions(lab: Lab) -> list[tuple[str, str, str, str]]:
    """(by, action, comment, result) of every Decision."""
    found = []
    for body in lab.store.list(DECISIONS):
        spec = body["spec"]
        action = next(name for name in ("approve", "reject", "answer", "sendBack") if name in spec)
        result = (body.get("status") or {}).get("result", "")
        found.append((spec["by"], action, spec.get("comment", ""), result))
    return found


def answered(lab: Lab) -> bool:
    """Whether there are Decisions, and all have their answer."""
    return bool(decisions(lab)) and all(result for _, _, _, result in decisions(lab))


def spec_of(lab: Lab, name: str) -> JSON:
    spec: JSON = lab.store.get(WORKITEMS, NAMESPACE, name)["spec"]
    return spec


def there(lab: Lab, name: str) -> bool:
    return lab.store.find(WORKITEMS, NAMESPACE, name) is not None


async def in_review(lab: Lab, plane: Plane) -> str:
    """An item that waits for approval and has said so; its issue."""
    issue = plane.issue("Discount codes")
    lab.start()
    lab.item("et-1", externalRef={"id": issue})
    await lab.until_phase("InReview", "et-1")
    await lab.until(lambda: bool(plane.said(issue)) and lab.status("et-1").outbox is None, "the request")
    return issue


# --- requests


async def test_a_request_that_somebody_deletes_is_made_again_and_can_be_answered(lab: Lab) -> None:
    async with project(lab) as plane:
        issue = await in_review(lab, plane)
        (first,) = plane.said(issue)
        plane.comments[issue].clear()
        plane.say(issue, plane.lead, "<p>:approved:</p>")
        await lab.until(lambda: first in plane.said(issue), "the request again")
        await lab.rest(300)
        assert plane.said(issue).count(first) == 1
        assert decisions(lab) == []
        plane.say(issue, plane.lead, "<p>Read it. :approved:</p>")
        await lab.until(lambda: answered(lab), "the answer")
        assert decisions(lab) == [("plane:lead@example.com", "approve", "Read it.", "Accepted")]
        await lab.stop()


# --- issues


HTML = (
    "<h2>Why</h2><p>A customer has <strong>one</strong> code &amp; 5 &lt; 6.</p><ul><li>first</li><li>second</li></ul>"
    '<p>See <a href="https://example.com">this</a>.</p>'
)
MARKDOWN = "## Why\n\nA customer has **one** code & 5 < 6.\n\n- first\n- second\n\nSee [this](https://example.com).\n"


@pytest.mark.slow
async def test_an_issue_that_enters_the_state_becomes_a_workitem_once(lab: Lab) -> None:
    async with project(lab, workItems={"state": "Ready"}) as plane:
        other = plane.issue("Not yet")
        issue = plane.issue("Скидки: коды & co", html=HTML)
        lab.start()
        await lab.rest(120)
        assert [body["metadata"]["name"] for body in lab.store.list(WORKITEMS)] == []
        plane.move(issue, "Ready", plane.lead)
        moved = virtual.now()
        await lab.until(lambda: there(lab, "et-2"), "the WorkItem")
        assert (virtual.now() - moved).total_seconds() <= 60
        spec = spec_of(lab, "et-2")
        assert (spec["title"], spec["description"]) == ("Скидки: коды & co", MARKDOWN)
        assert spec["branch"] == "feature/et-2-skidki-kody-co"
        assert spec["externalRef"] == {"id": issue, "url": f"{plane.url}/shop/browse/ET-2/"}
        await lab.until_phase("InReview", "et-2")
        await lab.until(lambda: plane.state_of(issue) == "In Review", "the state")
        assert read(plane.said(issue)[0]) == (
            "WorkItem team-a/et-2 carries this out, on branch feature/et-2-skidki-kody-co."
        )
        await lab.restart()
        await lab.rest(600)
        assert [body["metadata"]["name"] for body in lab.store.list(WORKITEMS)] == ["et-2"]
        assert plane.said(other) == []
        assert len(plane.said(issue)) == 2
        await lab.stop()


async def test_a_label_works_too_and_a_deleted_workitem_is_not_made_again(lab: Lab) -> None:
    branch = "ai/{sequence}"
    async with project(lab, workItems={"label": "AI", "branch": branch, "pipeline": "quick"}, states={}) as plane:
        issue = plane.issue("One", labels=("bug",))
        lab.start()
        await lab.rest(100)
        assert not there(lab, "et-1")
        plane.edit(issue, plane.lead, labels=[plane.label_id("ai")])
        await lab.until(lambda: there(lab, "et-1"), "the WorkItem")
        assert (spec_of(lab, "et-1")["branch"], spec_of(lab, "et-1")["pipeline"]) == ("ai/1", "quick")
        await lab.until(lambda: bool(plane.said(issue)), "the comment")
        lab.store.delete(WORKITEMS, NAMESPACE, "et-1")
        await lab.restart()
        plane.edit(issue, plane.lead, name="One, again")
        await lab.rest(600)
        assert not there(lab, "et-1")
        await lab.stop()


@pytest.mark.slow
async def test_edits_before_the_start_follow_and_later_ones_do_not(lab: Lab) -> None:
    async with project(lab, workItems={"state": "Ready", "pipeline": "later"}) as plane:
        issue = plane.issue("One", state="Ready", html="<p>first</p>")
        lab.start()
        await lab.until(lambda: there(lab, "et-1"), "the WorkItem")
        await lab.rest(60)
        assert lab.status("et-1").stage == "created"
        plane.edit(issue, plane.lead, name="Two", description_html="<p>second</p>")
        await lab.until(lambda: spec_of(lab, "et-1")["title"] == "Two", "the edit")
        assert spec_of(lab, "et-1")["description"] == "second\n"
        lab.pipeline(name="later")
        await lab.until_phase("InReview", "et-1")
        plane.edit(issue, plane.lead, name="Three")
        await lab.rest(600)
        assert spec_of(lab, "et-1")["title"] == "Two"
        await lab.stop()


async def test_an_issue_that_cannot_become_a_workitem_says_why(lab: Lab) -> None:
    async with project(lab, workItems={"state": "Ready", "branch": "feature/{slug}..{item}"}) as plane:
        lab.item("et-2", suspend=True)
        # A rule of the CRD that the stand-in for the API server does not know.
        words = "WorkItem is invalid: spec.branch: git refuses '..', '@{' and '//' in a branch name"
        lab.server.fault = lambda call: (
            Refused(422, "Invalid", words) if (call.verb, call.kind) == ("create", WORKITEMS) else None
        )
        first, second = plane.issue("One", state="Ready"), plane.issue("Two", state="Ready")
        lab.start()
        await lab.until(lambda: bool(plane.said(first) and plane.said(second)), "the comments")
        await lab.rest(300)
        (refused,), (taken,) = plane.said(first), plane.said(second)
        assert read(refused).startswith("No WorkItem could be made of this issue: ")
        assert "git refuses '..', '@{' and '//' in a branch name" in read(refused)
        assert read(taken) == (
            "No WorkItem could be made of this issue: there is another WorkItem et-2 in namespace team-a already: "
            "rename or delete it"
        )
        await lab.stop()


async def test_what_cannot_be_listened_to_is_an_event_of_the_repository(lab: Lab) -> None:
    async with project(lab, workItems={"state": "Redy"}) as plane:
        plane.issue("One", state="Ready")
        lab.start()
        await lab.rest(600)
        found = [body for body in lab.store.list(EVENTS) if body["involvedObject"]["kind"] == "Repository"]
        assert [(body["type"], body["reason"], body["involvedObject"]["name"]) for body in found] == [
            ("Warning", "TrackerFailed", "shop")
        ]
        assert found[0]["message"].startswith(
            "StateNotFound: the tracker's project has no state 'Redy'; it has: Backlog, Ready, "
        )
        lab.repository(tracker=tracker(plane, workItems={"state": "Ready"}))
        await lab.until(lambda: there(lab, "et-1"), "the WorkItem")
        await lab.stop()


# --- approvals


async def test_an_approver_approves_by_a_comment_under_the_request(lab: Lab) -> None:
    async with project(lab) as plane:
        issue = await in_review(lab, plane)
        head = lab.status("et-1").head
        plane.say(issue, plane.developer, "<p>I think this is fine.</p>")
        plane.say(issue, plane.lead, "<p>Good to go :approved:</p>")
        said = virtual.now()
        await lab.until(lambda: answered(lab), "the approval")
        assert (virtual.now() - said).total_seconds() <= 60
        assert decisions(lab) == [("plane:lead@example.com", "approve", "Good to go", "Accepted")]
        (body,) = lab.store.list(DECISIONS)
        assert body["spec"]["approve"] == {"gate": "analysis-approved", "commit": head}
        await lab.until_phase("Done", "et-1")
        await lab.until(lambda: lab.status("et-1").outbox is None, "everything told")
        assert [read(html)[:14] for html in plane.said(issue)] == ["Stage analysis", "Done. branch w"]
        await lab.stop()


async def test_a_move_into_the_approved_state_approves(lab: Lab) -> None:
    async with project(lab) as plane:
        issue = await in_review(lab, plane)
        plane.move(issue, "Approved", plane.lead)
        await lab.until(lambda: answered(lab), "the approval")
        assert decisions(lab) == [
            ("plane:lead@example.com", "approve", "moved the issue to the approved state", "Accepted")
        ]
        await lab.until_phase("Done", "et-1")
        await lab.stop()


async def test_a_rejection_needs_its_reason_and_goes_back_with_it(lab: Lab) -> None:
    async with project(lab) as plane:
        issue = await in_review(lab, plane)
        plane.say(issue, plane.lead, "<p>:rejected:</p>")
        await lab.until(lambda: len(plane.said(issue)) == 2, "the refusal")
        assert read(plane.said(issue)[1]).startswith(
            "This rejection by lead@example.com does not count yet: please say why in the same comment"
        )
        plane.say(issue, plane.lead, "<p>:rejected: the refund case is missing</p>")
        await lab.until(lambda: answered(lab) and lab.status("et-1").last_run == 2, "the second attempt")
        assert decisions(lab) == [("plane:lead@example.com", "reject", "the refund case is missing", "Accepted")]
        await lab.stop()


async def refused(lab: Lab, plane: Plane, issue: str, words: str) -> None:
    """A comment says why, once, and nothing has been decided."""
    before = len(plane.said(issue))
    await lab.until(lambda: len(plane.said(issue)) > before, "the refusal")
    await lab.rest(300)
    (said,) = plane.said(issue)[before:]
    assert read(said).startswith(words)
    assert lab.phase("et-1") == "InReview"


async def test_a_stranger_s_approval_counts_for_nothing_and_is_told(lab: Lab) -> None:
    async with project(lab) as plane:
        issue = await in_review(lab, plane)
        plane.say(issue, plane.developer, "<p>:approved:</p>")
        await refused(
            lab,
            plane,
            issue,
            "This approval does not count: developer@example.com may not decide about et-1. "
            "Approvers: lead@example.com.",
        )
        assert decisions(lab) == []
        await lab.stop()


async def test_a_stranger_s_move_counts_for_nothing_and_is_taken_back(lab: Lab) -> None:
    async with project(lab) as plane:
        issue = await in_review(lab, plane)
        plane.move(issue, "Approved", plane.developer)
        await refused(lab, plane, issue, "This approval does not count: developer@example.com may not decide")
        assert plane.state_of(issue) == "In Review"
        plane.move(issue, "Approved", plane.lead)
        await lab.until(lambda: answered(lab), "the approval")
        await lab.stop()


@pytest.mark.parametrize("by", ["developer", "lead"])
async def test_an_edited_comment_counts_for_nothing(lab: Lab, by: str) -> None:
    async with project(lab) as plane:
        issue = await in_review(lab, plane)
        comment = plane.say(issue, plane.lead, "<p>Not yet.</p>")
        plane.rewrite(issue, comment, getattr(plane, by), "<p>:approved:</p>")
        editor = "somebody else" if by == "developer" else "its author"
        words = f"This approval by lead@example.com does not count: the comment was changed by {editor} after it was"
        await refused(lab, plane, issue, words)
        assert decisions(lab) == []
        await lab.stop()


async def test_who_calls_the_api_cannot_speak_for_others(lab: Lab) -> None:
    async with project(lab) as plane:
        issue = await in_review(lab, plane)
        plane.keys["developers-key"] = plane.developer
        body = {"comment_html": "<p>:approved:</p>", "created_by": plane.lead}
        plane._post_comment(issue, body, plane.developer)
        assert plane.comments[issue][-1]["created_by"] == plane.lead
        await refused(lab, plane, issue, "This approval does not count: developer@example.com may not decide")
        await lab.stop()


async def test_the_operator_s_own_words_quotations_and_code_approve_nothing(lab: Lab) -> None:
    async with project(lab, approvers=["lead@example.com", "bot@example.com"]) as plane:
        issue = await in_review(lab, plane)
        assert ":approved:" in plane.said(issue)[0]
        plane.say(issue, plane.lead, "<blockquote>To approve, comment :approved:</blockquote><p>I will.</p>")
        plane.say(issue, plane.lead, "<p>What does <code>:approved:</code> do?</p><p>a:approved:b</p>")
        await lab.rest(600)
        assert (lab.phase("et-1"), decisions(lab), len(plane.said(issue))) == ("InReview", [], 1)
        await lab.stop()


@pytest.mark.slow
async def test_an_approval_of_an_older_head_is_void_and_told(lab: Lab) -> None:
    async with project(lab) as plane:
        lab.kubelet.scripts["et-1", "analysis"] = [
            End(writes=dict.fromkeys(("02-brd.md", "03-trz.md", "04-acceptance-criteria.md", "05-test-plan.md"), text))
            for text in ("first\n", "second\n")
        ]
        issue = await in_review(lab, plane)
        old = lab.status("et-1").head
        # Approved while the operator is away and the documents change.
        await lab.kill()
        plane.say(issue, plane.lead, "<p>:approved:</p>")
        lab.decide("et-1", "sendBack", {"stage": "analysis"}, comment="more")
        plane.away = True
        lab.start()
        await lab.until(lambda: lab.phase("et-1") == "InReview" and lab.status("et-1").head != old, "the second try")
        plane.away = False
        await lab.until(lambda: len(decisions(lab)) == 2 and answered(lab), "the answer")
        await lab.until(lambda: lab.status("et-1").outbox is None, "everything told")
        assert lab.phase("et-1") == "InReview"
        (mine,) = [d for d in decisions(lab) if d[0] == "plane:lead@example.com"]
        assert mine[1:] == ("approve", "", "Void")
        words = f"Approve by lead@example.com does not count: {(old or '')[:12]} is not what waits for approval: read "
        assert sum(read(html).startswith(words) for html in plane.said(issue)) == 1
        plane.say(issue, plane.lead, "<p>:approved:</p>")
        await lab.until_phase("Done", "et-1")
        await lab.stop()


async def test_without_approvers_nobody_approves(lab: Lab) -> None:
    async with project(lab, approvers=[]) as plane:
        issue = await in_review(lab, plane)
        plane.say(issue, plane.lead, "<p>:approved:</p>")
        await refused(
            lab, plane, issue, "This approval does not count: lead@example.com may not decide about et-1. The"
        )
        await lab.stop()


# --- answers


async def test_a_comment_on_an_item_with_questions_is_its_answer(lab: Lab) -> None:
    async with project(lab) as plane:
        lab.kubelet.scripts["et-1", "analysis"] = [End(writes={"01-questions.md": "1. One or many?\n"})]
        issue = plane.issue("Discount codes")
        plane.say(issue, plane.developer, "<p>Looking forward to this!</p>")
        lab.start()
        lab.item("et-1", externalRef={"id": issue})
        await lab.until_phase("NeedsInput", "et-1")
        await lab.until(lambda: bool(plane.said(issue)), "the questions")
        assert "One or many?" in read(plane.said(issue)[0])
        await lab.rest(120)
        assert decisions(lab) == []
        plane.say(issue, plane.developer, "<p>One code per <strong>order</strong>.</p>")
        await lab.until_phase("InReview", "et-1")
        assert decisions(lab) == [("plane:developer@example.com", "answer", "One code per **order**.", "Accepted")]
        assert "One code per **order**." in lab.kubelet.tasks[-1].prompt
        await lab.stop()


# --- webhooks


SECRET = "plane_wh_secret"
NEVER_SECONDS = 80_000


@asynccontextmanager
async def hooked(lab: Lab, **plane: Any) -> AsyncIterator[Plane]:
    """A tracker that sends webhooks to an operator that does not poll."""
    async with project(lab, **plane) as standin:
        secret(lab, "shop-webhooks", plane=SECRET)
        lab.repository(tracker=tracker(standin, **plane), webhooks={"secretName": "shop-webhooks"})
        port = lab.free_port()
        standin.webhook = f"http://127.0.0.1:{port}/hooks/{NAMESPACE}/shop/plane"
        lab.start(webhook_port=port, tracker_poll_seconds=NEVER_SECONDS)
        await lab.rest(1)
        yield standin


async def post(plane: Plane, headers: dict[str, str], body: bytes) -> int:
    """Deliver something by hand; the answer's code."""
    assert plane.webhook is not None
    async with aiohttp.ClientSession() as session, session.post(plane.webhook, headers=headers, data=body) as answer:
        return answer.status


async def test_webhooks_make_a_workitem_and_an_approval_at_once(lab: Lab) -> None:
    async with hooked(lab, workItems={"state": "Ready"}) as plane:
        issue = plane.issue("One")
        plane.move(issue, "Ready", plane.lead)
        moved = virtual.now()
        await lab.until(lambda: there(lab, "et-1"), "the WorkItem")
        assert (virtual.now() - moved).total_seconds() <= 5
        await lab.until_phase("InReview", "et-1")
        await lab.until(lambda: len(plane.said(issue)) == 2 and lab.status("et-1").outbox is None, "the request")
        plane.say(issue, plane.lead, "<p>:approved:</p>")
        said = virtual.now()
        await lab.until(lambda: answered(lab), "the approval")
        assert (virtual.now() - said).total_seconds() <= 5
        await lab.until_phase("Done", "et-1")
        await lab.stop()


@pytest.mark.slow
async def test_one_delivery_fifty_times_makes_one_workitem_and_one_decision(lab: Lab) -> None:
    async with hooked(lab, workItems={"state": "Ready"}) as plane:
        hook, plane.webhook = plane.webhook, None
        issue = plane.issue("One", state="Ready")
        plane.webhook = hook
        created = plane.deliveries[-1]
        assert await asyncio.gather(*(post(plane, *created) for _ in range(50))) == [202] * 50
        await lab.until(lambda: there(lab, "et-1"), "the WorkItem")
        await lab.until_phase("InReview", "et-1")
        await lab.until(lambda: len(plane.said(issue)) == 2 and lab.status("et-1").outbox is None, "the request")
        plane.say(issue, plane.lead, "<p>:approved:</p>")
        approved = plane.deliveries[-1]
        await plane.delivered()
        assert await asyncio.gather(*(post(plane, *approved) for _ in range(50))) == [202] * 50
        await lab.until_phase("Done", "et-1")
        await lab.rest(600)
        assert len(list(lab.store.list(WORKITEMS))) == 1
        assert decisions(lab) == [("plane:lead@example.com", "approve", "", "Accepted")]
        assert [read(html)[:8] for html in plane.said(issue)] == ["WorkItem", "Stage an", "Done. br"]
        await lab.stop()


async def test_a_delivery_that_nobody_signed_is_refused_and_makes_nobody_look(lab: Lab) -> None:
    async with hooked(lab, workItems={"state": "Ready"}) as plane:
        hook, plane.webhook = plane.webhook, None
        plane.issue("One", state="Ready")
        plane.webhook = hook
        headers, body = plane.deliveries[-1]
        await lab.rest(5)
        asked = len(plane.asked)
        assert await post(plane, {**headers, "X-Plane-Signature": "0" * 64}, body) == 401
        assert await post(plane, headers, body + b" ") == 401
        await lab.rest(60)
        assert len(plane.asked) == asked
        assert not there(lab, "et-1")
        await lab.stop()


async def test_with_the_webhook_switched_off_by_plane_polling_finds_the_same(lab: Lab) -> None:
    async with project(lab, workItems={"state": "Ready"}) as plane:
        # Nobody listens while the operator is away: after five tries Plane sends no more.
        plane.webhook = "http://127.0.0.1:9/hooks"
        issue = plane.issue("One", state="Ready")
        await plane.delivered()
        assert plane.__dict__["webhook"] is None
        lab.start()
        await lab.until(lambda: there(lab, "et-1"), "the WorkItem")
        await lab.until_phase("InReview", "et-1")
        await lab.until(lambda: len(plane.said(issue)) == 2 and lab.status("et-1").outbox is None, "the request")
        plane.say(issue, plane.lead, "<p>:approved:</p>")
        await lab.until_phase("Done", "et-1")
        assert decisions(lab) == [("plane:lead@example.com", "approve", "", "Accepted")]
        await lab.stop()


# --- often, and within the limit


@pytest.mark.slow
async def test_forty_waiting_items_are_all_heard_within_the_limit(lab: Lab) -> None:
    async with project(lab) as plane:
        names = [f"et-{number}" for number in range(1, 41)]
        issues = {name: plane.issue(name) for name in names}
        lab.start()
        for name in names:
            lab.item(name, branch=f"feature/{name}", externalRef={"id": issues[name]})
        await lab.until_phase("InReview", *names)
        await lab.until(lambda: all(lab.status(name).outbox is None for name in names), "the requests")
        said = virtual.now()
        for name in names:
            plane.say(issues[name], plane.lead, "<p>:approved:</p>")
        await lab.until(lambda: all(len(lab.status(name).decisions) == 1 for name in names), "the approvals")
        assert (virtual.now() - said).total_seconds() <= 150
        assert [str(asked) for asked in plane.asked if asked.code == 429] == []
        assert plane.most_in_a_minute() <= 60
        await lab.stop()
