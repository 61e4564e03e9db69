"""Listening where something is wrong: with another tracker, with a name, an issue, a comment, or with the operator."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.loop import virtual
from tests.loop.apiserver import Call, Cut
from tests.loop.lab import NAMESPACE, Lab, cut_at
from tests.loop.store import DECISIONS, EVENTS, REPOSITORIES, WORKITEMS, Refused
from tests.loop.test_listening import answered, decisions, hooked, in_review, project, there
from tests.loop.test_telling import STATES, tracker
from tests.standins.plane import Plane
from tests.unit.core.people import read
from tests.unit.core.world import End

pytestmark = pytest.mark.slow

SOURCE = "workitem-operator"


# --- each apart from the others


async def test_a_tracker_that_hangs_holds_up_its_own_repository_alone(lab: Lab) -> None:
    async with project(lab) as plane, Plane(virtual.now) as other:
        other.hanging = True
        lab.repository("blog", tracker=tracker(other, workItems={"state": "Ready"}))
        issue = await in_review(lab, plane)
        await lab.rest(600)
        plane.say(issue, plane.lead, "<p>:approved:</p>")
        said = virtual.now()
        await lab.until(lambda: answered(lab), "the approval")
        assert (virtual.now() - said).total_seconds() <= 60
        # It comes back, and goes.
        other.hanging = False
        found = other.issue("One", state="Ready")
        await lab.until(lambda: bool(other.said(found)), "the other's issue")
        lab.store.delete(REPOSITORIES, NAMESPACE, "blog")
        await lab.rest(120)
        asked = len(other.asked)
        await lab.rest(600)
        assert len(other.asked) == asked
        await lab.stop()


async def test_a_name_that_the_project_lacks_stops_no_approval(lab: Lab) -> None:
    states = {**STATES, "approved": "Aproved"}
    async with project(lab, workItems={"label": "aj"}, states=states) as plane:
        issue = await in_review(lab, plane)
        await lab.rest(120)
        plane.say(issue, plane.lead, "<p>:approved:</p>")
        await lab.until(lambda: answered(lab), "the approval")
        told = {body["message"] for body in lab.store.list(EVENTS) if body["involvedObject"]["kind"] == "Repository"}
        assert len(told) == 2
        assert any("has no label 'aj'; it has: ai, bug" in message for message in told)
        assert any("has no state 'Aproved'; it has: Backlog, " in message for message in told)
        await lab.stop()


@pytest.mark.parametrize("hint", [False, True])
async def test_a_comment_that_nobody_can_read_is_answered_and_stops_no_other(lab: Lab, hint: bool) -> None:
    async with (hooked if hint else project)(lab) as plane:
        lab.kubelet.scripts["et-1", "analysis"] = [End(writes={"01-questions.md": "1. One or many?\n"})]
        issue = plane.issue("Discount codes")
        if not hint:
            lab.start()
        lab.item("et-1", externalRef={"id": issue})
        await lab.until(lambda: bool(plane.said(issue)), "the questions")
        await lab.until(lambda: lab.status("et-1").outbox is None, "everything told")
        plane.say(issue, plane.developer, f"<p>&#{'9' * 5000};</p>")
        await lab.until(lambda: len(plane.said(issue)) == 2, "the answer to it")
        assert read(plane.said(issue)[1]).startswith("This comment by developer@example.com does not count: it cannot")
        plane.say(issue, plane.developer, "<p>One code.</p>")
        await lab.rest(30)
        plane.say(issue, plane.lead, "<p>And refunds.</p>")
        await lab.until(lambda: answered(lab), "the answer")
        words = "developer@example.com: One code.\n\nlead@example.com: And refunds."
        assert [(d[1], d[2]) for d in decisions(lab)] == [("answer", words)]
        assert len(plane.said(issue)) == 2 or "waits for approval" in plane.said(issue)[2]
        await lab.stop()


# --- issues


async def test_a_restart_asks_nothing_about_issues_that_were_taken(lab: Lab) -> None:
    async with project(lab, workItems={"label": "ai"}) as plane:
        issues = [plane.issue(f"Task {number}", labels=("ai",)) for number in range(1, 13)]
        lab.start()
        names = [f"et-{number}" for number in range(1, 13)]
        await lab.until(lambda: all(there(lab, name) for name in names), "the WorkItems")
        await lab.until_phase("InReview", *names)
        await lab.until(lambda: all(len(plane.said(issue)) == 2 for issue in issues), "the comments")
        await lab.until(lambda: all(lab.status(name).outbox is None for name in names), "everything told")
        await lab.rest(120)
        await lab.kill()
        before = len(plane.asked)
        lab.start()
        await lab.rest(600)
        asked = plane.asked[before:]
        single = {f"/work-items/{issue}/" for issue in issues}
        assert [str(a) for a in asked if any(a.path.endswith(path) for path in single)] == []
        assert [str(a) for a in asked if a.method != "GET"] == []
        assert plane.most_in_a_minute() <= 60
        await lab.stop()


async def test_an_issue_that_was_refused_is_taken_once_what_is_wrong_is_mended(lab: Lab) -> None:
    async with project(lab, workItems={"state": "Ready"}) as plane:
        lab.item("et-2", suspend=True)
        lab.server.fault = lambda call: (
            Refused(403, "Forbidden", "exceeded quota") if (call.verb, call.kind) == ("create", WORKITEMS) else None
        )
        first, second = plane.issue("One", state="Ready"), plane.issue("Two", state="Ready")
        lab.start()
        await lab.until(lambda: bool(plane.said(first) and plane.said(second)), "the refusals")
        # Looks go back a little from the newest change, and both are far behind it now.
        await lab.rest(3600)
        plane.issue("Three")
        await lab.rest(600)
        assert (len(plane.said(first)), len(plane.said(second))) == (1, 1)
        lab.server.fault = lambda _call: None
        lab.store.delete(WORKITEMS, NAMESPACE, "et-2")
        await lab.until(lambda: there(lab, "et-1") and there(lab, "et-2"), "the WorkItems")
        await lab.until(lambda: len(plane.said(first)) > 1 and len(plane.said(second)) > 1, "the comments")
        assert [read(plane.said(issue)[1])[:22] for issue in (first, second)] == [
            "WorkItem team-a/et-1 c",
            "WorkItem team-a/et-2 c",
        ]
        await lab.stop()


async def test_an_issue_says_which_workitem_it_has_become_although_that_is_over(lab: Lab) -> None:
    """The operator that took it dies before it could say so, and the issue leaves the state that it was taken for."""
    async with project(lab, workItems={"state": "Ready"}) as plane:
        lab.server.fault = cut_at(1, Cut.DIE_AFTER, lambda call: (call.verb, call.kind) == ("create", WORKITEMS))
        issue = plane.issue("One", state="Ready")
        lab.start()
        await lab.until_dead()
        plane.away = True
        lab.approve_always()
        lab.start()
        await lab.until_phase("Done", "et-1")
        await lab.kill()
        plane.move(issue, "Done", plane.lead)
        plane.away = False
        lab.start()
        await lab.until(lambda: any("carries this out" in read(said) for said in plane.said(issue)), "the comment")
        await lab.rest(600)
        assert sum("carries this out" in read(said) for said in plane.said(issue)) == 1
        assert len(list(lab.store.list(WORKITEMS))) == 1
        await lab.stop()


async def test_what_a_repository_wants_later_counts_for_what_is_there(lab: Lab) -> None:
    async with project(lab) as plane:
        plane.issue("One", state="Ready")
        lab.start()
        await lab.rest(3600)
        # Looks go back a little from the newest change, and the first is far behind it now.
        plane.issue("Two")
        await lab.rest(600)
        lab.repository(tracker=tracker(plane, workItems={"state": "Approved"}))
        await lab.rest(600)
        assert not there(lab, "et-1")
        lab.repository(tracker=tracker(plane, workItems={"state": "Ready"}))
        await lab.until(lambda: there(lab, "et-1"), "the WorkItem")
        await lab.stop()


async def test_nobody_else_s_comment_says_that_an_issue_was_taken(lab: Lab) -> None:
    async with project(lab, workItems={"state": "Ready"}) as plane:
        issue = plane.issue("One")
        forged = {"comment_html": "<p>x</p>", "external_source": SOURCE, "external_id": "taken/team-a/et-1"}
        plane._post_comment(issue, forged, plane.developer)
        lab.start()
        await lab.rest(60)
        plane.move(issue, "Ready", plane.lead)
        await lab.until(lambda: bool(plane.said(issue)), "the comment")
        assert read(plane.said(issue)[0]).startswith("WorkItem team-a/et-1 carries this out")
        lab.store.delete(WORKITEMS, NAMESPACE, "et-1")
        await lab.restart()
        await lab.rest(600)
        assert not there(lab, "et-1")
        await lab.stop()


# --- approvals


def wanted(lab: Lab) -> list[str]:
    """What Events say about approvals that are wanted."""
    return [body["message"] for body in lab.store.list(EVENTS) if body["reason"] == "WaitingForApproval"]


async def test_a_move_that_does_not_carry_the_item_on_is_taken_back(lab: Lab) -> None:
    """A second approval is awaited: a person would read Approved, and nothing would happen."""
    gates = [{"name": "lead", "approval": {}}, {"name": "security", "approval": {}}]
    stage = {"name": "plan", "agent": "coder", "gates": gates}
    async with project(lab) as plane:
        lab.pipeline({"agents": {"coder": {"command": ["agent"]}}, "stages": [stage]})
        issue = await in_review(lab, plane)
        plane.move(issue, "Approved", plane.lead)
        await lab.until(lambda: answered(lab), "the approval")
        await lab.until(lambda: lab.status("et-1").outbox is None, "everything told")
        assert (lab.phase("et-1"), plane.state_of(issue)) == ("InReview", "In Review")
        for told in (wanted(lab), [read(html) for html in plane.said(issue)]):
            assert [gate for words in told for gate in ("lead", "security") if f"gate {gate}" in words] == [
                "lead",
                "security",
            ]
        plane.move(issue, "Approved", plane.lead)
        await lab.until_phase("Done", "et-1")
        await lab.stop()


async def test_a_comment_whose_date_was_chosen_counts_for_nothing(lab: Lab) -> None:
    async with project(lab) as plane:
        issue = await in_review(lab, plane)
        tomorrow = "2099-01-01T00:00:00Z"
        plane._post_comment(issue, {"comment_html": "<p>:approved:</p>", "created_at": tomorrow}, plane.lead)
        await lab.until(lambda: len(plane.said(issue)) == 2, "the refusal")
        assert "was changed by its author after it was written" in read(plane.said(issue)[1])
        assert decisions(lab) == []
        await lab.stop()


# --- killed


async def test_killed_after_every_call_to_the_tracker_and_every_creation_nothing_is_said_or_made_twice(
    lab: Lab,
) -> None:
    async with project(lab, workItems={"state": "Ready"}) as plane:
        issue, kills, made = plane.issue("Discount codes", state="Ready"), list[str](), set[str]()

        def kill() -> None:
            kills.append(plane.asked[-1].method)
            lab._die()

        def cut(call: Call) -> Cut | None:
            if call.verb != "create" or call.kind not in (WORKITEMS, DECISIONS) or call.kind.name in made:
                return None
            made.add(call.kind.name)
            return Cut.DIE_AFTER

        async def until(true: Callable[[], bool], what: str) -> None:
            while not true():
                await lab.until(lambda: true() or not lab.server.tokens, what)
                if not lab.server.tokens:
                    await lab.restart()

        plane.changed, lab.server.fault = kill, cut
        lab.start()
        await until(lambda: there(lab, "et-1") and lab.phase("et-1") == "InReview", "the request")
        await until(lambda: len(plane.said(issue)) == 2 and lab.status("et-1").outbox is None, "the request")
        plane.move(issue, "Approved", plane.developer)
        await until(lambda: len(plane.said(issue)) == 3 and plane.state_of(issue) == "In Review", "the refusal")
        plane.say(issue, plane.lead, "<p>:approved:</p>")
        await until(lambda: lab.phase("et-1") == "Done" and lab.status("et-1").outbox is None, "the end")
        assert made == {"WorkItem", "Decision"}
        # Taken, the request, the refusal, the end; In Progress, In Review, back to it, In Progress, Done.
        assert sorted(kills) == ["PATCH"] * 5 + ["POST"] * 4
        assert [read(html)[:9] for html in plane.said(issue)] == ["WorkItem ", "Stage ana", "This appr", "Done. bra"]
        assert [d[:2] for d in decisions(lab)] == [("plane:lead@example.com", "approve")]
        assert len(list(lab.store.list(WORKITEMS))) == 1
        await lab.stop()
