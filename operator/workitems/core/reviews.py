"""A person's review in the forge as what it means here: an approval or a rejection of an awaited gate.

Only of people whom the Repository names, only of a pull request that is open, and only of the commit that waits: the
review becomes a Decision that names this commit, and is judged as every other one. Its name is made of the review's id,
so that each review is one Decision however often it is read.
"""

from __future__ import annotations

import hashlib
import re
from datetime import timedelta
from typing import Any

from workitems.api import API_VERSION, GateResult, GateStatus
from workitems.api.decision import COMMIT_PATTERN
from workitems.core import manifests
from workitems.core.draft import Draft
from workitems.core.forge import Question, Review
from workitems.core.plan import CreateDecision

AT_FIRST = timedelta(minutes=10)
OFTEN, SELDOM = timedelta(seconds=20), timedelta(seconds=60)
"""How often the forge is asked in the first minutes of a wait, and later, should its webhooks be lost."""


def awaited(draft: Draft) -> list[GateStatus]:
    """The approval gates that wait for a person."""
    run = draft.status.run
    if draft.status.hold is not None or (run is not None and run.kind != "Look") or draft.facts.pipeline is None:
        return []
    gates = {
        (stage.name, gate.name)
        for stage in draft.spec.stages
        for gate in stage.gates
        if gate.approval is not None and stage.name in draft.status.completed
    }
    return [g for g in draft.status.gates if g.result is GateResult.PENDING and (g.stage, g.name) in gates]


def wanted(draft: Draft) -> bool:
    """Whether the item waits for something that a review in the forge may say."""
    known = draft.status.pull_request
    return bool(_reviewers(draft)) and known is not None and known.state == "open" and bool(awaited(draft))


def settle(draft: Draft, question: Question) -> None:
    """Ask the forge for reviews, as somebody's is waited for, and hand on what they say.

    Whatever else was asked of the forge in this state of the item has asked for reviews, too.
    """
    gates = awaited(draft)
    draft.again_in(OFTEN if draft.now - max(gate.since for gate in gates) < AT_FIRST else SELDOM)
    reading = draft.facts.reading
    if reading is None or not reading.question.reviews or reading.question.commit != question.commit:
        draft.question = draft.question or question
        return
    if reading.error or reading.pull_request is None or reading.pull_request.state != "open":
        return
    reviewers = _reviewers(draft)
    for gate in gates:
        current = {gate.commit, draft.status.head, reading.pull_request.head}
        for review in reading.reviews:
            if review.user.lower() in reviewers and review.commit in current and _said_to_this_item(draft, review):
                _decide(draft, gate, review, reviewers[review.user.lower()])


def _reviewers(draft: Draft) -> dict[str, str]:
    """By login, the names that they decide by."""
    repository = draft.facts.repository
    forge = repository.spec.forge if repository is not None else None
    if forge is None or forge.chosen is None:
        return {}
    # Logins are the same in any case there.
    return {login.lower(): f"{forge.kind}:{name}" for login, name in forge.chosen.reviewers.items()}


def _said_to_this_item(draft: Draft, review: Review) -> bool:
    """Names of items and of branches are used again, and a pull request with them."""
    created = draft.facts.item.metadata.creation_timestamp
    if any(run.pushed and run.commit == review.commit for run in draft.status.runs):
        # Nobody can have seen it before, whatever the forge's clock says, which is not the API server's.
        return True
    named = re.fullmatch(COMMIT_PATTERN, review.commit) is not None
    return named and (created is None or review.submitted_at >= created)


def _decide(draft: Draft, gate: GateStatus, review: Review, name: str) -> None:
    item, known = draft.facts.item, draft.status.pull_request
    decision = decision_name(item.metadata.name, item.metadata.uid, gate, review.id)
    there = {record.name for record in draft.status.decisions} | {d.metadata.name for d in draft.facts.decisions}
    if decision in there:
        return
    approved = review.state == "approved"
    url = known.url if known is not None else "the forge"
    comment = review.body.strip() or ("" if approved else f"changes requested in {url}: read the comments there")
    spec: dict[str, Any] = {
        "workItem": item.metadata.name,
        "by": name,
        "approve" if approved else "reject": {"gate": gate.name, "commit": review.commit},
        **({"comment": comment} if comment else {}),
    }
    metadata = {
        "name": decision,
        "namespace": item.metadata.namespace,
        "ownerReferences": [{**manifests.owner(item), "controller": False}],
    }
    manifest = {"apiVersion": API_VERSION, "kind": "Decision", "metadata": metadata, "spec": spec}
    draft.after.append(CreateDecision(manifest))
    draft.note(f"review {review.id} by {review.user}: {review.state}")


def decision_name(item: str, uid: str, gate: GateStatus, review: int) -> str:
    """One name for one review of one gate of one item, whatever else has the same name by then."""
    digest = hashlib.sha256(f"{uid}\0{gate.stage}\0{gate.name}\0{review}".encode()).hexdigest()[:10]
    return f"{item}-review-{review}-{digest}"
