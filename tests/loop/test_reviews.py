"""People's reviews in the forge, by the whole operator: who counts, what they mean, and that each counts once."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

import pytest

from tests.fake_forge import URL
from tests.loop import virtual
from tests.loop.apiserver import Cut
from tests.loop.lab import NAMESPACE, Lab, cut_at
from tests.loop.lab import URL as REPOSITORY_URL
from tests.loop.store import DECISIONS, JSON
from tests.unit.core.world import FORGE
from workitems.core.forge import Review

pytestmark = pytest.mark.slow

PIPELINE: JSON = {
    "documents": "docs/{item}",
    "agents": {"coder": {"command": ["agent"]}},
    "stages": [
        {
            "name": "build",
            "agent": "coder",
            "pullRequest": {"title": "feat: {branchTail}"},
            "gates": [
                {"name": "good", "approval": {}, "onFailure": [{"sendBackTo": "build", "maxAttempts": 3}]},
            ],
        },
        {"name": "deploy", "agent": "coder", "merge": {"method": "merge"}},
    ],
}
REVIEWERS = {"Ann": "team-lead", "bob": "bob"}


async def waiting(lab: Lab, reviewers: dict[str, str] | None = None) -> str:
    """An item with an open pull request that waits for an approval; its head."""
    lab.repository_with_forge()
    named = REVIEWERS if reviewers is None else reviewers
    lab.repository(forge={"gitea": {**FORGE["gitea"], "reviewers": named}})
    lab.pipeline(PIPELINE)
    lab.item("et-1")
    if not lab.alive:
        lab.start()
    await lab.until(lambda: lab.phase("et-1") == "InReview" and lab.status("et-1").pull_request is not None, "a review")
    head = lab.status("et-1").head
    assert head is not None
    return head


def review(
    number: int, user: str, state: Literal["approved", "changes_requested"], commit: str, body: str = ""
) -> Review:
    return Review(number, user, state, commit, body, virtual.now())


def say(lab: Lab, said: Review) -> None:
    """A person's review, the newest of theirs."""
    others = tuple(r for r in lab.forge.reviewed.get(7, ()) if r.user != said.user)
    lab.forge.reviewed[7] = (*others, said)


def decisions(lab: Lab) -> list[JSON]:
    return [body["spec"] for body in lab.store.list(DECISIONS)]


async def test_an_approval_in_the_forge_is_an_approval(lab: Lab) -> None:
    head = await waiting(lab)
    assert f"then review {URL}/7, or run: kubectl" in lab.ready("et-1")[1]
    say(lab, review(1, "ann", "approved", head, "Good to go."))
    await lab.until_phase("Done", "et-1")
    [body] = list(lab.store.list(DECISIONS))
    assert body["spec"] == {
        "workItem": "et-1",
        "by": "gitea:team-lead",
        "approve": {"gate": "good", "commit": head},
        "comment": "Good to go.",
    }
    assert body["status"]["result"] == "Accepted"
    assert body["metadata"]["ownerReferences"][0]["kind"] == "WorkItem"
    [record] = lab.status("et-1").decisions
    assert (record.by, record.action, record.result) == ("gitea:team-lead", "Approve", "Accepted")
    assert lab.forge.merges == [(7, head)]


async def test_requested_changes_send_the_item_back_with_the_words_and_once(lab: Lab) -> None:
    head = await waiting(lab)
    say(lab, review(1, "bob", "changes_requested", head, "The refund case is missing."))
    await lab.until(lambda: len(lab.kubelet.tasks) == 2, "the second attempt")
    assert "The refund case is missing." in lab.kubelet.tasks[1].prompt
    await lab.until_phase("InReview", "et-1")
    await lab.rest(600)
    # The same review is about a commit that nobody is asked about any more.
    assert lab.phase("et-1") == "InReview"
    assert len(decisions(lab)) == 1
    newer = lab.status("et-1").head or ""
    assert newer != head
    say(lab, review(2, "bob", "approved", newer))
    await lab.until_phase("Done", "et-1")
    assert [spec["by"] for spec in decisions(lab)] == ["gitea:bob", "gitea:bob"]


async def test_a_request_without_words_points_to_the_pull_request(lab: Lab) -> None:
    head = await waiting(lab)
    say(lab, review(1, "bob", "changes_requested", head, " \n"))
    await lab.until(lambda: len(lab.kubelet.tasks) == 2, "the second attempt")
    assert f"changes requested in {URL}/7: read the comments there" in lab.kubelet.tasks[1].prompt


@pytest.mark.parametrize("reviewers", [{}, {"carol": "carol"}])
async def test_nobody_decides_whom_the_repository_does_not_name(lab: Lab, reviewers: dict[str, str]) -> None:
    head = await waiting(lab, reviewers)
    say(lab, review(1, "ann", "approved", head))
    say(lab, review(2, "bob", "changes_requested", head, "No."))
    await lab.rest(200)
    assert lab.phase("et-1") == "InReview"
    assert decisions(lab) == []


async def test_a_review_of_another_commit_or_of_an_earlier_item_decides_nothing(lab: Lab) -> None:
    await waiting(lab)
    say(lab, review(1, "ann", "approved", "f" * 40))
    say(lab, review(2, "bob", "approved", "main"))
    await lab.rest(200)
    # The item's own commits are nobody else's.
    head = lab.kubelet.branch(REPOSITORY_URL, lab.forge.pulls[7].branch).push({"theirs.py": "older\n"})
    await lab.until(lambda: lab.status("et-1").head == head, "a look")
    lab.forge.reviewed[7] = (Review(3, "ann", "approved", head, "", virtual.EPOCH - timedelta(days=1)),)
    await lab.rest(200)
    assert lab.phase("et-1") == "InReview"
    assert decisions(lab) == []


async def test_a_forge_whose_clock_is_behind_is_heard(lab: Lab) -> None:
    head = await waiting(lab)
    lab.forge.reviewed[7] = (Review(1, "ann", "approved", head, "Good.", virtual.EPOCH - timedelta(hours=1)),)
    await lab.until(lambda: lab.status("et-1").stage != "build", "an approval")
    assert [spec["by"] for spec in decisions(lab)] == ["gitea:team-lead"]


async def test_a_rejection_beats_an_approval_of_the_same_commit(lab: Lab) -> None:
    head = await waiting(lab)
    say(lab, review(1, "ann", "approved", head))
    say(lab, review(2, "bob", "changes_requested", head, "No."))
    await lab.until(lambda: len(lab.kubelet.tasks) == 2, "the second attempt")
    assert lab.forge.merges == []


@pytest.mark.parametrize("cut", [Cut.DIE_BEFORE, Cut.DIE_AFTER])
async def test_a_review_is_one_decision_although_the_operator_dies(lab: Lab, cut: Cut) -> None:
    head = await waiting(lab)
    lab.server.fault = cut_at(1, cut, lambda call: (call.verb, call.kind) == ("create", DECISIONS))
    say(lab, review(1, "ann", "approved", head))
    await lab.until_dead()
    lab.start()
    await lab.until_phase("Done", "et-1")
    assert len(decisions(lab)) == 1
    assert len(lab.forge.merges) == 1


async def test_a_forge_that_is_away_costs_the_wait_and_nothing_else(lab: Lab) -> None:
    head = await waiting(lab)
    lab.forge.away = "no connection"
    say(lab, review(1, "ann", "approved", head))
    await lab.rest(200)
    assert lab.phase("et-1") == "InReview"
    assert lab.ready("et-1")[0] == "WaitingForApproval"
    lab.forge.away = ""
    await lab.until_phase("Done", "et-1")


async def test_an_old_wait_asks_the_forge_less_often(lab: Lab) -> None:
    await waiting(lab)
    asked: list[float] = []

    async def counted() -> None:
        asked.append(virtual.now().timestamp())

    lab.forge.hang = counted
    await lab.rest(300)
    early = len(set(asked))
    await lab.rest(600)
    asked.clear()
    await lab.rest(300)
    assert early > 10
    assert 0 < len(set(asked)) <= 6


async def test_a_reject_that_names_a_commit_is_about_that_commit(lab: Lab) -> None:
    await waiting(lab)
    other = lab.decide("et-1", "reject", {"gate": "good", "commit": "f" * 40}, "No.")
    await lab.until(lambda: bool(lab.decision(other)[0]), "an answer")
    assert lab.decision(other) == ("Void", "OtherContent")
    await lab.until_phase("InReview", "et-1")
    # The look at the branch, for the unknown commit, may have found a newer one.
    head = lab.status("et-1").head
    this = lab.decide("et-1", "reject", {"gate": "good", "commit": head}, "No.")
    await lab.until(lambda: bool(lab.decision(this)[0]), "an answer")
    assert lab.decision(this) == ("Accepted", "Rejected")
    assert lab.store.get(DECISIONS, NAMESPACE, this)["spec"]["reject"]["commit"] == head
