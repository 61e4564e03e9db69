"""What people say in a tracker, as a table: who, when, about which request, and what becomes of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from workitems.api import Effect, Repository, WorkItem
from workitems.core import inbox, intake
from workitems.core.inbox import Conversation, Heard, Later, Moved, Refuse, Say
from workitems.core.tracker import Comment, Issue, Member, StateChange
from workitems.integrations.html_text import markdown, spoken

START = datetime(2026, 11, 22, 14, tzinfo=UTC)
LEAD, DEVELOPER = Member("u-lead", "Lead@example.com", "lead"), Member("u-dev", "dev@example.com", "dev")
OLD, NEW = "a" * 40, "b" * 40


def at(minutes: float) -> datetime:
    return START + timedelta(minutes=minutes)


def request(number: int, commit: str, event: str = "ApprovalWanted", state: str = "Done") -> Effect:
    params = {"event": event, "gate": "approved", "commit": commit}
    return Effect.model_validate(
        {"id": f"comment-{number}", "kind": "TrackerComment", "state": state, "ref": f"r{number}", "params": params}
    )


def item(*effects: Effect, phase: str = "InReview", decisions: tuple[str, ...] = ()) -> WorkItem:
    record = {"action": "Approve", "by": "x", "result": "Accepted", "at": START}
    return WorkItem.parse(
        {
            "metadata": {"name": "et-12", "namespace": "team-a", "uid": "u-1", "creationTimestamp": START},
            "spec": {"repository": "shop", "title": "T", "externalRef": {"id": "issue-12"}},
            "status": {
                "phase": phase,
                "stage": "plan",
                "effects": [effect.model_dump(by_alias=True) for effect in effects],
                "decisions": [{"name": name, "uid": name, **record} for name in decisions],
            },
        }
    )


def own(number: int, minutes: float, **more: Any) -> Comment:
    return Comment(f"r{number}", "u-bot", at(minutes), "<p>:approved:</p>", **more)


def say(words: str, minutes: float, by: Member = LEAD, **more: Any) -> Heard:
    html = words if words.startswith("<") else f"<p>{words}</p>"
    comment = Comment(f"c-{words}-{minutes}", by.id, at(minutes), html, **more)
    return Heard(comment, by, spoken(html), markdown(html))


TWICE = (request(1, OLD), request(2, NEW))
ASKED = (own(1, 10), own(2, 20))


def talk(*heard: Heard, **more: Any) -> Conversation:
    chosen: dict[str, Any] = {
        "item": item(*TWICE),
        "own": ASKED,
        "approvers": ("lead@EXAMPLE.com",),
        "now": at(60),
        **more,
    }
    return Conversation(heard=heard, **chosen)


@pytest.mark.parametrize(
    ("sentence", "heard", "expected"),
    [
        ("an approver under the newest request", say(":approved: fine", 21), ("approve", NEW, "fine")),
        ("under the older one, read late: bound to that", say(":approved:", 15), ("approve", OLD, "")),
        ("before anything was asked", say(":approved:", 5), "OlderRequest"),
        ("in capitals and in the middle", say("All good, :Approved:!", 21), ("approve", NEW, "All good, !")),
        ("a rejection with a reason", say(":rejected: refunds", 21), ("reject", NEW, "refunds")),
        ("a rejection without one", say(":rejected:", 21), "ReasonMissing"),
        ("a rejection of the older request", say(":rejected: refunds", 15), "OlderRequest"),
        ("both at once", say(":approved: or :rejected:", 21), "Ambiguous"),
        ("a stranger", say(":approved:", 21, DEVELOPER), "Stranger"),
        ("a stranger's rejection", say(":rejected: no", 21, DEVELOPER), "Stranger"),
        ("a stranger before anything was asked", say(":approved:", 5, DEVELOPER), None),
        ("changed by another", say(":approved:", 21, updated_by="u-dev"), "Edited"),
        ("changed by its author", say(":approved:", 21, updated_by="u-lead", edited_at=at(22)), "Edited"),
        ("written and saved by its author alone", say(":approved:", 21, updated_by="u-lead"), ("approve", NEW, "")),
        ("dated back by its author", say(":approved:", 21, updated_at=at(31)), "Edited"),
        ("dated forward, to be about what nobody has read", say(":approved:", 21, updated_at=at(15)), "Edited"),
        ("stored a moment later", say(":approved:", 21, updated_at=at(21.1)), ("approve", NEW, "")),
        ("a quotation", say("<blockquote>:approved:</blockquote><p>soon</p>", 21), None),
        ("code", say("<p><code>:approved:</code></p>", 21), None),
        ("another word", say("disapproved: no", 21), None),
        ("a part of something", say("x:approved:y", 21), None),
        ("just talk", say("I am reading it.", 21), None),
        ("before the item was made", say(":approved:", -5), None),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
def test_what_is_said_while_an_approval_is_awaited(sentence: str, heard: Heard, expected: Any) -> None:
    found = inbox.replies(talk(heard))
    if expected is None:
        assert found == ()
    elif isinstance(expected, str):
        assert [(type(r), r.event) for r in found if isinstance(r, Refuse)] == [(Refuse, expected)]
    else:
        action, commit, words = expected
        (said,) = found
        assert isinstance(said, Say)
        spec = said.manifest["spec"]
        body = {"gate": "approved", "commit": commit}
        assert spec == {"workItem": "et-12", "by": "plane:Lead@example.com", action: body, "comment": words}


def test_a_tracker_whose_clock_is_behind_is_heard() -> None:
    asked = tuple(replace(comment, created_at=comment.created_at - timedelta(hours=1)) for comment in ASKED)
    found = inbox.replies(talk(say(":approved:", 21 - 60), own=asked))
    assert [type(reply) for reply in found] == [Say]


def test_the_same_comment_makes_one_decision_however_often_it_is_read() -> None:
    heard = say(":approved:", 21)
    first, second = (inbox.replies(talk(heard)) for _ in range(2))
    assert first == second
    (said,) = first
    assert isinstance(said, Say)
    known = talk(heard, item=item(*TWICE, decisions=(said.manifest["metadata"]["name"],)))
    assert inbox.replies(known) == ()


def test_a_refusal_is_said_once() -> None:
    heard = say(":approved:", 21, DEVELOPER)
    external = inbox.refusal_id(item(*TWICE), heard.comment.id)
    answered = (*ASKED, Comment("r3", "u-bot", at(22), "<p>no</p>", external_id=external))
    assert inbox.replies(talk(heard, own=answered)) == ()


def test_nobody_forges_a_refusal_or_a_request() -> None:
    heard = say(":approved:", 21)
    external = inbox.refusal_id(item(*TWICE), heard.comment.id)
    forged = say("x", 22, DEVELOPER, external_id=external, external_source="workitem-operator")
    assert len(inbox.replies(talk(heard, forged))) == 1


def test_a_request_that_may_be_there_and_is_not_recorded_is_waited_for() -> None:
    late = item(request(1, OLD), request(2, NEW, state="Intended"))
    assert inbox.replies(talk(say(":approved:", 15), item=late)) == ()


@pytest.mark.parametrize("phase", ["InProgress", "Blocked", "Suspended", "Done", "Pending"])
def test_nothing_is_decided_where_nothing_is_asked(phase: str) -> None:
    assert inbox.replies(talk(say(":approved:", 21), item=item(*TWICE, phase=phase))) == ()


@pytest.mark.parametrize(
    ("minutes", "by", "expected"),
    [(21, LEAD, NEW), (15, LEAD, "OlderRequest"), (21, DEVELOPER, "Stranger")],
)
def test_a_move_into_the_approved_state(minutes: float, by: Member, expected: str) -> None:
    moved = Moved(StateChange("m-1", by.id, at(minutes), "s-approved"), by)
    (found,) = inbox.replies(talk(moved=moved))
    if isinstance(found, Refuse):
        assert (found.event, found.move_back) == (expected, True)
    else:
        assert isinstance(found, Say)
        assert found.manifest["spec"]["approve"] == {"gate": "approved", "commit": expected}


@pytest.mark.parametrize("approvers", [(), ("",), ("@example.com",), ("lead",)])
def test_who_is_not_named_may_not_approve(approvers: tuple[str, ...]) -> None:
    assert not inbox.may_approve(LEAD, approvers)
    assert not inbox.may_approve(Member("u-x"), approvers)


def test_ids_work_as_well_as_addresses() -> None:
    assert inbox.may_approve(LEAD, ("U-LEAD",))
    assert inbox.may_approve(LEAD, ("lead@example.com",))


def questions(*heard: Heard, **more: Any) -> Conversation:
    asks = item(request(1, OLD, "QuestionsAsked"), phase="NeedsInput")
    return Conversation(item=asks, heard=heard, own=(own(1, 10),), **{"now": at(60), **more})


def test_everything_said_since_the_questions_is_one_answer() -> None:
    early, late = say("before", 5, DEVELOPER), say("<p>One <b>code</b>.</p>", 11, DEVELOPER)
    (found,) = inbox.replies(questions(early, late))
    assert isinstance(found, Say)
    assert found.manifest["spec"] == {
        "workItem": "et-12",
        "by": "plane:dev@example.com",
        "answer": {},
        "comment": "One **code**.",
    }
    (both,) = inbox.replies(questions(late, say("And refunds.", 12)))
    assert isinstance(both, Say)
    assert both.manifest["spec"]["comment"] == "dev@example.com: One **code**.\n\nLead@example.com: And refunds."
    assert both.manifest["metadata"] == found.manifest["metadata"]


def test_an_answer_that_somebody_else_rewrote_is_none() -> None:
    (found,) = inbox.replies(questions(say("One.", 11, DEVELOPER, updated_by="u-lead")))
    assert isinstance(found, Refuse)
    assert found.event == "Edited"
    (own_edit,) = inbox.replies(questions(say("One.", 11, DEVELOPER, updated_by="u-dev", edited_at=at(12))))
    assert isinstance(own_edit, Say)


def test_an_answer_is_whole_once_nobody_has_written_for_a_minute() -> None:
    first, second = say("One.", 11, DEVELOPER, updated_at=at(11)), say("And two.", 11.8, DEVELOPER)
    assert inbox.replies(questions(first, now=at(11.5))) == (Later(at(12)),)
    assert inbox.replies(questions(first, second, now=at(12))) == (Later(at(12.8)),)
    (found,) = inbox.replies(questions(first, second, now=at(12.8)))
    assert isinstance(found, Say)
    assert found.manifest["spec"]["comment"] == "One.\n\nAnd two."


def test_nobody_keeps_an_answer_back_by_writing_on_or_by_a_date_to_come() -> None:
    talkative = [say(f"{number}", 11 + number * 0.9, DEVELOPER) for number in range(12)]
    (found,) = inbox.replies(questions(*talkative, now=at(21)))
    assert isinstance(found, Say)
    dated = say("One.", 60 * 24 * 365, DEVELOPER, updated_at=at(11))
    (taken,) = inbox.replies(questions(dated, now=at(12)))
    assert isinstance(taken, Say)


def test_a_comment_that_nobody_can_read_is_answered_and_the_others_count() -> None:
    odd = Heard(Comment("c-odd", DEVELOPER.id, at(11), "&#9;"), DEVELOPER, "", unreadable=True)
    refused, answer = inbox.replies(questions(odd, say("One.", 12, DEVELOPER)))
    assert isinstance(refused, Refuse)
    assert (refused.what, refused.event) == ("c-odd", "Unreadable")
    assert isinstance(answer, Say)
    assert answer.manifest["spec"]["comment"] == "One."
    # While an approval is awaited, only an approver may have meant one.
    assert inbox.replies(talk(odd)) == ()
    assert [r.event for r in inbox.replies(talk(replace(odd, by=LEAD))) if isinstance(r, Refuse)] == ["Unreadable"]


def test_a_refused_move_that_is_not_taken_back_yet_is_taken_back_without_another_word() -> None:
    moved = Moved(StateChange("m-1", DEVELOPER.id, at(21), "s-approved"), DEVELOPER)
    external = inbox.refusal_id(item(*TWICE), "m-1")
    said = (*ASKED, Comment("r3", "u-bot", at(22), "<p>no</p>", external_id=f"{external}#another"))
    (found,) = inbox.replies(talk(moved=moved, own=said))
    assert isinstance(found, Refuse)
    assert (found.said, found.move_back) == (True, True)


# --- issues


def issue(title: str = "Discount codes", sequence: int = 12) -> Issue:
    return Issue("issue-12", sequence, title, "s-ready")


def repository(**work_items: Any) -> Repository:
    token = {"secretName": "x", "key": "token"}
    plane = {"url": "https://plane.example.com/", "workspace": "shop", "project": "p", "token": token}
    tracker = {"plane": {**plane, "workItems": {"state": "Ready", **work_items}}}
    return Repository.parse(
        {
            "metadata": {"name": "shop", "namespace": "team-a"},
            "spec": {"url": "https://git.example.com/x.git", "tracker": tracker},
        }
    )


@pytest.mark.parametrize(
    ("identifier", "name"), [("ET", "et-12"), ("My Project", "my-project-12"), ("Ёж", "ezh-12"), ("漢", "12")]
)
def test_a_workitem_is_called_like_its_issue(identifier: str, name: str) -> None:
    assert intake.name_of(identifier, 12) == name


@pytest.mark.parametrize(
    ("template", "title", "branch"),
    [
        ("feature/{item}-{slug}", "Discount codes & more!", "feature/et-12-discount-codes-more"),
        ("feature/{item}-{slug}", "Скидки: ещё щи", "feature/et-12-skidki-eshche-shchi"),
        ("feature/{item}-{slug}", "漢字", "feature/et-12-task"),
        ("ai/{sequence}", "x", "ai/12"),
        ("{slug}", "a" * 300, "a" * 40),
        ("feature/{nothing}", "x", "feature/{nothing}"),
    ],
)
def test_a_branch_is_made_by_its_template(template: str, title: str, branch: str) -> None:
    chosen = repository(branch=template).spec.tracker
    assert chosen is not None
    assert chosen.plane is not None
    assert chosen.plane.work_items is not None
    assert intake.branch_of(chosen.plane.work_items, "et-12", issue(title)) == branch


def test_a_manifest_is_one_that_admission_takes() -> None:
    chosen = repository()
    assert chosen.spec.tracker is not None
    assert chosen.spec.tracker.plane is not None
    words = intake.words_of(issue("A\ttitle\n" + "x" * 400), "é" * 40_000, "et-12")
    body = intake.manifest(chosen, chosen.spec.tracker.plane, issue(), "et-12", words)
    made = WorkItem.parse(body)
    assert len(made.spec.title) == 250
    assert len(made.spec.description.encode()) <= 65536
    assert made.spec.description.endswith("this is what a WorkItem has room for.)\n")
    assert made.spec.external_ref is not None
    assert made.spec.external_ref.url == "https://plane.example.com/shop/browse/ET-12/"


def test_only_what_has_not_started_and_came_from_an_issue_follows_it() -> None:
    words = {"title": "New", "description": "new\n"}
    labelled = {"labels": {intake.TRACKER_LABEL: "plane"}}

    def made(stage: str, **metadata: Any) -> WorkItem:
        body = {
            "metadata": {"name": "et-12", "namespace": "team-a", **metadata},
            "spec": {"repository": "shop", "title": "Old", "description": "new\n"},
            "status": {"stage": stage},
        }
        return WorkItem.parse(body)

    assert intake.edit(made("created", **labelled), words) == {"title": "New"}
    assert intake.edit(made("analysis", **labelled), words) == {}
    assert intake.edit(made("created"), words) == {}


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p></p>", ""),
        ("<p>a<br>b</p>", "a  \nb\n"),
        ("<h1>T</h1><p>x</p>", "# T\n\nx\n"),
        ("<ul><li>a</li><li>b</li></ul>", "- a\n- b\n"),
        ("<p>1 * 2 _x_ &lt;b&gt;</p>", "1 \\* 2 \\_x\\_ <b>\n"),
        ("<script>alert(1)</script><p>x</p>", "x\n"),
        ("<pre><code>a\n  b</code></pre>", "```\na\n  b\n```\n"),
    ],
)
def test_a_description_becomes_markdown(html: str, text: str) -> None:
    assert "\n".join(line.rstrip() for line in markdown(html).splitlines()) == "\n".join(
        line.rstrip() for line in text.splitlines()
    )


# --- requests that are gone


def test_a_request_that_somebody_deleted_is_known_to_be_lost() -> None:
    assert inbox.lost(talk()) is None
    gone = talk(say(":approved:", 25), own=ASKED[:1])
    assert inbox.lost(gone) == TWICE[1]
    again = Comment("r9", "u-bot", at(30), "<p>again</p>", external_id=inbox.again_id(gone.item, TWICE[1]))
    back = talk(say(":approved:", 31), own=(ASKED[0], again))
    assert inbox.lost(back) is None
    (reply,) = inbox.replies(back)
    assert isinstance(reply, Say)
    assert reply.manifest["spec"]["approve"] == {"gate": "approved", "commit": NEW}


def test_one_that_was_refused_for_good_is_lost_and_one_that_is_on_its_way_is_not() -> None:
    failed, waiting = request(1, NEW, state="Failed"), request(1, NEW, state="Intended")
    assert inbox.lost(talk(item=item(failed), own=())) == failed
    assert inbox.lost(talk(item=item(waiting), own=())) is None
    asked = request(1, NEW, "QuestionsAsked")
    assert inbox.lost(talk(item=item(asked, phase="NeedsInput"), own=())) == asked
    assert inbox.lost(talk(item=item(asked, phase="InProgress"), own=())) is None
