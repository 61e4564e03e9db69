"""What people are told, row by row, as they read it; and that nothing is told twice or not at all."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tests.unit.core.people import CHAT, EVERYTHING, PLANE, People, team
from tests.unit.core.world import DOCUMENTS, FORGE, End, World, good, one_stage, review, small_pipeline
from workitems import errors
from workitems.api import EFFECTS_KEPT, EFFECTS_WAITING, Effect, Phase
from workitems.core import effects

QUESTIONS = "# Questions\n\n1. One code or many?\n2. Refunds?\n"


TITLE = "et-12 Discount codes at checkout"


def in_the_chat(people: People, said: str, lead: str) -> str:
    """What a chat reads where the tracker reads `said`, whose cause and command come after `lead` and a sentence."""
    cause = said.partition(lead)[2].removesuffix(asked(people)).rpartition(" This ")[0]
    return f"{cause} {asked(people)}"


def asked(people: People) -> str:
    """The Ready condition's command as it ends the comment."""
    command = people.world.message.rpartition("kubectl ")[2]
    return f"kubectl {command}"


def test_a_stage_that_waits_for_approval_lists_its_documents_and_how_to_approve() -> None:
    people = team()
    people.world.go(approve=False)
    head = people.world.status.head or ""
    assert people.world.at == ("analysis", "InReview")
    (said,) = people.told
    assert said == (
        f"Stage analysis is ready and waits for approval (gate analysis-approved, commit {head[:12]}). Please read: "
        f"{DOCUMENTS}/02-brd.md{DOCUMENTS}/03-trz.md{DOCUMENTS}/04-acceptance-criteria.md{DOCUMENTS}/05-test-plan.md "
        "To approve, comment :approved: or move the issue to “Approved”. To send it back, comment :rejected: and the "
        "reason. Approvers: lead@example.com. On the command line, with your name for YOU: " + asked(people)
    )
    assert f'commit: "{head}"' in said
    documents = ("02-brd.md", "03-trz.md", "04-acceptance-criteria.md", "05-test-plan.md")
    assert people.heard[-1] == (
        f"{TITLE} ✋ Stage analysis waits for approval (gate analysis-approved, commit {head[:12]}) "
        f"{' '.join(f'• {DOCUMENTS}/{name}' for name in documents)} {asked(people)}"
    )


def test_every_approval_that_a_stage_asks_for_is_asked_for_by_its_name() -> None:
    gates = ({"name": "product", "approval": {}}, {"name": "security", "approval": {}})
    people = team(one_stage(*gates))
    people.world.go(approve=False)
    assert [text.partition("commit ")[0] for text in people.told] == [
        "Stage build is ready and waits for approval (gate product, "
    ]
    people.world.say("approve", {"gate": "product", "commit": people.world.status.head})
    people.world.rest()
    assert people.world.at == ("build", "InReview")
    assert people.told[1].startswith("Stage build is ready and waits for approval (gate security, commit ")
    assert people.told[1].endswith(asked(people))
    assert 'gate: "security"' in people.told[1]
    assert "waits for approval (gate security, " in people.heard[-1]
    people.world.pass_time(hours=1)
    people.world.rest()
    assert len(people.told) == 2


@pytest.mark.slow
def test_a_request_can_be_answered_however_much_is_told_while_it_waits() -> None:
    people = team()
    people.world.go(approve=False)
    head = people.world.status.head
    for _ in range(EFFECTS_KEPT // 2):
        # Each is answered by a comment, and the issue is moved back.
        name = people.world.say("approve", {"gate": "security", "commit": head})
        people.world.decisions[name]["spec"]["by"] = "plane:lead@example.com"
        people.world.rest()
    assert people.world.at == ("analysis", "InReview")
    kept = people.world.status.effects
    assert len(kept) == EFFECTS_KEPT
    assert [(e.state, e.params["commit"]) for e in kept if e.id.endswith("-ApprovalWanted")] == [("Done", head)]


def test_documents_are_links_at_the_commit_where_there_is_a_forge() -> None:
    people = team(forge=FORGE)
    people.world.go(approve=False)
    (html,) = people.comments.values()
    head = people.world.status.head
    path = f"{DOCUMENTS}/02-brd.md"
    assert f'<a href="https://git.example.com/shop/web/src/commit/{head}/{path}">{path}</a>' in html


def test_questions_come_with_their_full_text_from_the_forge() -> None:
    people = team(forge=FORGE)
    text = QUESTIONS + "More context. " * 500
    people.documents[f"{DOCUMENTS}/01-questions.md"] = text
    people.world.script("analysis", End(writes={"01-questions.md": text}))
    people.world.go()
    assert people.world.at == ("analysis", "NeedsInput")
    (said,) = people.told
    assert said.startswith(
        "There are questions in stage analysis. Please answer with one comment or several: when nobody has "
        "written for a minute, the agent goes on with what was said. "
        "Questions One code or many? Refunds?"
    )
    assert said.count("More context.") == 500
    assert said.endswith(f"The document: {DOCUMENTS}/01-questions.md")


def test_questions_without_a_forge_are_the_beginning_and_say_so() -> None:
    people = team()
    people.world.script("analysis", End(writes={"01-questions.md": QUESTIONS}))
    people.world.go()
    (said,) = people.told
    assert "One code or many? Refunds?" in said
    assert "only the beginning" not in said


def test_a_stage_without_documents_and_without_questions_says_so() -> None:
    people = team()
    people.world.script("analysis", End())
    people.world.go()
    (said,) = people.told
    assert said.startswith(
        "Stage analysis finished without its documents and without questions. finished with gate analysis-complete "
        "failed: 02-brd.md, 03-trz.md, 04-acceptance-criteria.md, 05-test-plan.md are missing or empty"
    )
    assert said.endswith("This continues it: " + asked(people))
    assert people.heard[-1] == (
        f"{TITLE} ⛔ Stage analysis finished without its documents and without questions "
        + in_the_chat(people, said, "without questions. ")
    )


@pytest.mark.parametrize("length", [400, 600])
def test_a_conflict_shows_its_first_500_characters_without_a_forge_too(length: int) -> None:
    people = team()
    text = ("Цена — целое, " * 50)[:length]
    conflict = End(writes={"11-architecture.md": "x", "10-conflict.md": text})
    people.world.script("architecture", conflict)
    people.world.go(until="architecture")
    people.world.end_run(conflict)
    people.world.rest()
    quoted = " ".join(text[:500].split()) + ("…" if length > 500 else "")
    assert f"the item goes on at stage analysis. {quoted} The document: " in people.told[-1]


def test_a_conflict_shows_its_first_500_characters() -> None:
    people = team(forge=FORGE)
    people.documents[f"{DOCUMENTS}/10-conflict.md"] = "The price type is an integer. " * 40
    people.world.script("architecture", End(writes={"11-architecture.md": "x", "10-conflict.md": "y"}))
    people.world.go(until="architecture")
    people.world.end_run(End(writes={"11-architecture.md": "x", "10-conflict.md": "y"}))
    people.world.rest()
    said = people.told[-1]
    quoted = ("The price type is an integer. " * 40)[:500]
    assert said == (
        f"Stage architecture reports a conflict; the item goes on at stage analysis. {' '.join(quoted.split())}… "
        f"The document: {DOCUMENTS}/10-conflict.md"
    )


def test_a_review_that_asks_for_changes_says_what_and_where_it_goes_on() -> None:
    people = team()
    people.world.script("review", review("REQUEST_CHANGES"))
    people.world.go()
    said = [text for text in people.told if "asks for changes" in text]
    assert len(said) == 1
    assert said[0].startswith(
        "The review in stage review asks for changes; the item goes back to development (attempt 2). "
        "12-review.md says REQUEST_CHANGES: "
    )


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["development", "testing"])
def test_failed_tests_give_the_reason(stage: str) -> None:
    people = team()
    if stage == "testing":
        report = "---\nverdict: FAIL\n---\nDiscounts are applied twice.\n"
        people.world.script("testing", End(writes={"13-test-report.md": report}))
        words = "(gate tests-passed); the item goes back to development (attempt 2). 13-test-report.md says FAIL: "
        words += "Discounts are applied twice."
    else:
        people.world.gate_scripts["tests-local"] = [2]
        words = "(gate tests-local); the item goes back to development (attempt 2). "
    people.world.go()
    said = [text for text in people.told if text.startswith(f"Tests failed in stage {stage} {words}")]
    assert len(said) == 1, people.told


def test_a_rejection_comes_back_with_its_reason() -> None:
    people = team()
    people.world.go(approve=False)
    people.world.say("reject", {"gate": "analysis-approved"}, "The refund case is missing.")
    people.world.rest()
    assert people.told[-1] == (
        "Stage analysis was not approved; the item goes back to analysis (attempt 2). "
        "rejected by team-lead: The refund case is missing."
    )


def test_a_failed_deploy_says_that_nothing_is_tried_again() -> None:
    people = team()
    people.world.script("deploy", End(exit_code=3, tail="health check failed: rolled back"))
    people.world.go()
    assert people.world.status.phase is Phase.BLOCKED
    said = people.told[-1]
    assert said.startswith("Deploy failed in stage deploy; nothing is tried again by itself. deployer run ")
    assert "health check failed: rolled back" in said
    assert said.endswith(asked(people))
    heard = f"{TITLE} ⛔ Deploy failed in stage deploy " + in_the_chat(people, said, "tried again by itself. ")
    assert people.heard[-2] == heard


@pytest.mark.slow
def test_used_up_retries_need_a_person() -> None:
    people = team()
    people.world.script("review", *(review("REQUEST_CHANGES") for _ in range(9)))
    people.world.go()
    said = people.told[-1]
    assert said.startswith(
        "All attempts are used up in stage development: a person must look. review-approved failed again and stage "
        "development has used its 3 attempts: "
    )
    assert said.endswith("This continues the item, with fresh attempts: " + asked(people))
    assert sum("asks for changes" in text for text in people.told) == 2
    heard = in_the_chat(people, said, "a person must look. ")
    assert people.heard[-2] == f"{TITLE} ⛔ All attempts are used up in stage development {heard}"


def merging(*gates: dict[str, Any]) -> People:
    spec = one_stage(*gates, pullRequest={"title": "feat: {branchTail}"})
    spec["stages"].append({"name": "deploy", "agent": "coder", "merge": {"method": "merge"}})
    return team(spec, forge=FORGE)


def test_a_merge_is_told_with_its_pull_request_and_what_it_took() -> None:
    people = merging()
    people.world.go()
    merge = people.world.forge.pulls[7].merge_commit or ""
    assert people.told[-1] == f"Merged into main: pull request 7, commit {merge[:12]}. 2 runs, 1m 20s, 0.02 USD."
    assert people.heard[-1] == (
        "et-12 Discount codes at checkout ✅ Done: pull request 7 is merged into main 2 runs, 1m 20s, 0.02 USD"
    )


def test_a_merge_that_is_refused_needs_a_person() -> None:
    people = merging()
    people.world.forge.protected = "2 approvals are required"
    people.world.go()
    said = people.told[-1]
    assert said.startswith(
        "The merge failed: it needs a person. Pull request 7 must be merged by hand, or made mergeable. "
    )
    assert said.endswith("This tries again: " + asked(people))
    assert "2 approvals are required" in said
    assert people.heard[-1] == (
        f"{TITLE} ⛔ The merge failed: it needs a person (pull request 7) "
        + in_the_chat(people, said, "or made mergeable. ")
    )


def test_what_blocks_an_item_comes_with_the_command_that_continues() -> None:
    people = team()
    people.world.script("analysis", End(exit_code=1, tail="no model key"))
    people.world.go()
    said = people.told[-1]
    assert said.startswith("Blocked in stage analysis (")
    assert "no model key" in said
    assert said.endswith("This continues the item: " + asked(people))


def test_a_command_that_an_agent_wrote_is_never_the_one_that_continues() -> None:
    people = team()
    people.world.script("analysis", End(exit_code=1, tail="run kubectl delete ns prod first. Then: kubectl drain all"))
    people.world.go()
    said = people.told[-1]
    assert "kubectl delete ns prod" in said
    assert said.endswith("This continues the item: " + asked(people))
    assert asked(people).startswith("kubectl -n team-a create -f -")


def test_the_end_without_a_forge_names_the_branch() -> None:
    people = team()
    people.world.go()
    head = people.world.status.head or ""
    assert people.told[-1] == (
        f"Done. branch feature/et-12-discounts is ready at {head[:12]}: every gate has passed. 6 runs, 4m 0s, 0.06 USD."
    )


def test_an_abort_is_told_to_both() -> None:
    people = team()
    people.world.go(approve=False)
    people.world.say("abort")
    people.world.rest()
    assert people.told[-1] == "Aborted. aborted by team-lead; the branch feature/et-12-discounts is kept."
    assert people.heard[-1].endswith("Aborted: aborted by team-lead; the branch feature/et-12-discounts is kept")
    assert people.states[-1] == "Cancelled"


def test_a_decision_from_the_tracker_that_does_not_count_is_answered_there() -> None:
    people = team()
    people.world.go(approve=False)
    name = people.world.approve(commit="a" * 40)
    people.world.decisions[name]["spec"]["by"] = "plane:lead@example.com"
    people.world.go(approve=False)
    assert people.world.answer_to(name) == ("Void", "OtherContent")
    assert people.told[-1].startswith(
        "Approve by lead@example.com does not count: aaaaaaaaaaaa is not what waits for approval: read "
    )


def test_one_from_elsewhere_is_answered_where_it_was_said() -> None:
    people = team()
    people.world.go(approve=False)
    people.world.say("retry")
    people.world.rest()
    assert len(people.told) == 1


# --- states


def test_the_issue_moves_with_stage_and_phase() -> None:
    people = team()
    people.world.go()
    assert people.states == ["In Progress", "In Review", "In Progress", "Code Review", "In Progress", "Done"]


def test_an_answer_moves_it_on_again() -> None:
    people = team()
    people.world.script("analysis", End(writes={"01-questions.md": QUESTIONS}))
    people.world.go()
    people.world.say("answer", comment="One.")
    people.world.go(approve=False)
    assert people.states == ["In Progress", "Needs Input", "In Progress", "In Review"]


def test_an_item_that_ends_while_its_repository_is_away_is_seen_once_that_is_back() -> None:
    """Found by hypothesis."""
    people = team()
    people.world.go(approve=False)
    people.world.repository = None
    people.world.say("abort")
    people.world.rest()
    assert (people.world.status.phase, people.states[-1]) == ("Aborted", "In Review")
    people.world.repository = people.world.home
    people.world.pass_time(minutes=20)
    people.world.rest()
    assert people.states[-1] == "Cancelled"
    assert people.world.status.outbox is None


def test_what_changed_while_the_repository_was_away_is_seen_once_it_is_back() -> None:
    people = team()
    people.world.script("analysis", End(writes={"01-questions.md": QUESTIONS}))
    people.world.go()
    people.world.repository = None
    people.world.say("answer", comment="One.")
    people.world.rest()
    people.world.repository = people.world.home
    people.world.go(approve=False)
    assert people.states == ["In Progress", "Needs Input", "In Progress", "In Review"]


def test_a_blocked_item_is_seen_in_its_column() -> None:
    people = team()
    people.world.script("analysis", End(exit_code=1))
    people.world.go()
    assert people.states == ["In Progress", "Blocked"]


def test_states_that_are_not_named_are_not_told() -> None:
    people = team(tracker={"plane": {**PLANE, "states": {"done": "Done"}}})
    people.world.go()
    assert people.states == ["Done"]


# --- notifications


def test_a_chat_hears_of_stages_approvals_and_the_end_but_not_of_runs() -> None:
    people = team()
    people.world.go()
    firsts = [text.removeprefix("et-12 Discount codes at checkout ") for text in people.heard]
    assert [text[:28] for text in firsts] == [
        "Stage analysis",
        "✋ Stage analysis waits for a",
        "Stage analysis → architectur",
        "Stage architecture → develop",
        "Stage development → review",
        "Stage review → testing",
        "Stage testing → deploy",
        "✅ Done: branch feature/et-12",
    ]
    assert firsts[-1].endswith("every gate has passed 6 runs, 4m 0s, 0.06 USD")


def test_whoever_asks_for_it_hears_of_every_run_with_result_duration_and_cost() -> None:
    people = team(notify=[{**CHAT, "events": ["RunStarted", "RunFinished"]}])
    people.world.go(approve=False)
    assert people.heard == [
        "et-12 Discount codes at checkout ▶ Run 1 started: analyst in stage analysis, attempt 1",
        "et-12 Discount codes at checkout ■ Run 1 (analyst, stage analysis) Succeeded after 40s, 0.01 USD",
    ]


@pytest.mark.slow
def test_every_kind_of_event_is_told_and_filtered_by_its_kind() -> None:
    def story(*kinds: str) -> list[str]:
        people = team(notify=[{**CHAT, "events": list(kinds)}])
        people.world.script("analysis", End(writes={"01-questions.md": QUESTIONS}))
        people.world.script("review", review("REQUEST_CHANGES"))
        people.world.script("testing", End(exit_code=1, tail="no display"))
        people.world.go()
        people.world.say("answer", comment="One.")
        people.world.go()
        people.world.say("retry")
        people.world.go()
        assert people.world.status.phase is Phase.DONE
        return people.heard

    alone = {kind: story(kind) for kind in EVERYTHING}
    counts = {kind: len(texts) for kind, texts in alone.items()}
    assert counts == {
        "StageChanged": 8,
        "GateFailed": 2,
        "RunStarted": 10,
        "RunFinished": 10,
        "ApprovalWanted": 1,
        "InputWanted": 1,
        "Blocked": 1,
        "Done": 1,
    }
    assert alone["GateFailed"][1].startswith(
        "et-12 Discount codes at checkout ✗ Gate review-approved of stage review failed; on at development "
        "12-review.md says REQUEST_CHANGES"
    )
    assert "❓ Questions in stage analysis" in alone["InputWanted"][0]
    assert "One code or many?" in alone["InputWanted"][0]
    assert alone["Blocked"][0].startswith("et-12 Discount codes at checkout ⛔ Blocked in stage testing (")
    assert "no display" in alone["Blocked"][0]
    everything = story(*EVERYTHING)
    # What stops the item says which gate failed.
    assert len(everything) == sum(counts.values()) - 1
    assert set(everything) < {text for texts in alone.values() for text in texts}


def test_channels_are_told_independently() -> None:
    people = team(notify=[{**CHAT, "events": ["Done"]}, {**CHAT, "events": ["ApprovalWanted"]}])
    people.world.go()
    assert [index for index, _ in people.messages] == [1, 0]


def test_a_chat_that_is_gone_does_not_keep_the_trackers_comments_out() -> None:
    def waiting(target: str, count: int) -> tuple[Effect, ...]:
        return tuple(Effect(id=f"{target}-{number}", kind="X", target=target) for number in range(count))

    def queues(kept: tuple[Effect, ...]) -> Counter[str]:
        return Counter(effect.target for effect in effects.waiting(kept))

    kept = waiting("notify-0", EFFECTS_WAITING)
    for number in range(100):
        kept = effects.intended(kept, Effect(id=f"comment-{number}", kind="TrackerComment", target="tracker"))
        kept = effects.intended(kept, Effect(id=f"more-{number}", kind="Notify", target="notify-0"))
    assert queues(kept) == {"notify-0": 75, "tracker": 75}
    # The oldest are kept, in their order.
    assert [effect.id for effect in kept if effect.target == "tracker"] == [f"comment-{n}" for n in range(75)]
    assert [effect.id for effect in kept if effect.target == "notify-0"] == [f"notify-0-{n}" for n in range(75)]
    kept = effects.intended(kept, Effect(id="state-1", kind="TrackerState", target="tracker-state"))
    assert queues(kept)["tracker-state"] == 1
    assert sum(queues(kept).values()) == EFFECTS_WAITING


def test_what_waits_for_a_chat_goes_to_that_chat_or_nowhere() -> None:
    def to(chat: str, *events: str) -> dict[str, Any]:
        return {"telegram": {**CHAT["telegram"], "chatId": chat}, "events": list(events)}

    first, second, third = to("-1", "ApprovalWanted"), to("-2", "ApprovalWanted"), to("-3", "Blocked")
    people = team(notify=[first, second])
    people.away = errors.Transient("no connection")
    people.world.go(approve=False)
    people.away = None
    repository = people.world.repository
    assert repository is not None
    repository["spec"]["notify"] = [third, to("-2", "Done")]
    people.world.pass_time(minutes=10)
    people.world.rest()
    assert [index for index, _ in people.messages] == [1]
    ends = {e.target: (e.state, e.reason) for e in people.world.status.effects if e.kind == "Notify"}
    assert ends == {"notify-0": ("Failed", "NotifierGone"), "notify-1": ("Done", None)}
    gone = next(e for e in people.world.status.effects if e.reason == "NotifierGone")
    assert gone.last_error == "Repository shop names no notifier telegram -1 any more: the message is not sent"


def test_a_message_follows_its_chat_to_another_place_in_the_list() -> None:
    people = team(notify=[CHAT])
    people.away = errors.Transient("no connection")
    people.world.go(approve=False)
    people.away = None
    repository = people.world.repository
    assert repository is not None
    other = {"telegram": {**CHAT["telegram"], "chatId": "-9"}}
    repository["spec"]["notify"] = [other, CHAT]
    people.world.pass_time(minutes=10)
    people.world.rest()
    assert {index for index, _ in people.messages} == {1}


def test_russian() -> None:
    people = team(messages={"language": "ru"})
    people.world.go(approve=False)
    assert people.told[0].startswith("Стадия analysis готова и ждёт согласования (проверка analysis-approved, коммит")
    assert "ждёт согласования" in people.heard[-1]


def test_without_tracker_issue_or_notifier_nothing_is_announced() -> None:
    no_channels: dict[str, Any] = {}
    for repository, spec in ((no_channels, {"externalRef": {"id": "x"}}), ({"tracker": {"plane": PLANE}}, no_channels)):
        world = World(None, repository, **spec)
        world.go()
        assert world.status.phase is Phase.DONE
        assert (world.status.told, [e.id for e in world.status.effects if e.target]) == (0, [])


# --- once, and in order


@pytest.mark.slow
def test_a_tracker_that_is_down_for_the_whole_item_is_right_afterwards_and_in_order() -> None:
    reference, people = team(), team()
    for each in (reference, people):
        each.world.script("review", review("REQUEST_CHANGES"))
    reference.world.go()
    people.away = errors.Transient("POST https://plane.example.com/…: no connection")
    people.world.go()
    assert people.world.at == ("done", "Done")
    assert (people.told, people.states, people.heard) == ([], [], [])
    late = next(c for c in people.world.status.conditions if c.type == "EffectsDelivered")
    assert late.status == "False"
    assert "no connection" in late.message
    ready = next(c for c in people.world.status.conditions if c.type == "Ready")
    assert ready.status == "True"
    people.away = None
    for _ in range(60):
        people.world.pass_time(seconds=400)
        people.world.rest()
    assert [text[:40] for text in people.told] == [text[:40] for text in reference.told]
    # Of the states only the newest is worth telling.
    assert people.states == ["Done"]
    assert people.world.status.outbox is None
    assert [text[:60] for text in people.heard] == [text[:60] for text in reference.heard]


@pytest.mark.slow
def test_no_kill_between_any_two_calls_makes_a_comment_twice_or_loses_one() -> None:
    def story(kill_at: frozenset[int]) -> People:
        people = team(small_pipeline(), notify=[])
        people.world.kill_at = kill_at
        people.world.script("review", review("REQUEST_CHANGES"))
        people.world.go()
        return people

    reference = story(frozenset())
    assert len(reference.told) == 3
    for boundary in range(1, reference.world.boundaries + 1):
        people = story(frozenset({boundary}))
        assert people.world.at == ("done", "Done")
        assert [text[:50] for text in people.told] == [text[:50] for text in reference.told], boundary
        assert set(people.posts.values()) == {1}
        assert people.states[-1] == "Done"


def test_a_message_that_may_have_been_sent_is_not_sent_again() -> None:
    people = team()
    people.answers_lost = 1
    people.world.go(approve=False)
    people.world.pass_time(hours=1)
    people.world.rest()
    assert len(people.messages) == len(set(people.heard))
    lost = next(e for e in people.world.status.effects if e.kind == "Notify")
    assert (lost.state, lost.reason) == ("Failed", "MaybeSent")
    assert "a second message would be worse" in (lost.last_error or "")


def test_a_chat_that_refuses_is_tried_again_until_somebody_mends_it() -> None:
    people = team(tracker=None)
    people.away = errors.Permanent("ChatNotFound", "there is no such chat for this bot: check chatId")
    people.world.go(approve=False)
    condition = next(c for c in people.world.status.conditions if c.type == "EffectsDelivered")
    assert (condition.reason, "check chatId" in condition.message) == ("ChatNotFound", True)
    people.away = None
    people.world.pass_time(minutes=10)
    people.world.rest()
    assert len(people.heard) == 2


def test_ids_are_never_used_again_however_often_the_same_happens() -> None:
    people = team()
    for _ in range(5):
        people.world.script("analysis", End(exit_code=1))
    people.world.go()
    for _ in range(4):
        people.world.say("retry")
        people.world.go()
    assert len(people.told) == 5
    assert set(people.posts.values()) == {1}


def test_good_work_is_no_news_beyond_the_stage() -> None:
    people = team(notify=[])
    people.world.go(until="development")
    told = len(people.comments)
    people.world.end_run(End(writes=good(people.world.tasks[-1])))
    people.world.rest()
    assert len(people.comments) == told


@pytest.mark.slow
def test_what_waits_for_a_tracker_that_is_away_for_days_fits_into_a_status() -> None:
    people = team()
    people.away = errors.Transient("no connection")
    for _ in range(60):
        people.world.script("analysis", End(exit_code=1, tail="x" * 4000))
    people.world.go()
    for _ in range(59):
        people.world.say("retry")
        people.world.go()
    waiting = [effect for effect in people.world.status.effects if effect.state == "Intended"]
    assert len(waiting) > 50
    assert all(len(text) <= 1024 for effect in waiting for text in effect.params.values())
    assert len(people.world.status.model_dump_json()) < 400_000
