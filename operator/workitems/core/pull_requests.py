"""The item's pull request: opened once there is something to merge, its text kept up to date, closed by an Abort.

Nothing here talks to a forge. Effects say what is to be done there; what came of them, and what was read, is learned
into `status.pullRequest`. A pull request that a person closed is not opened again: that is for a person to do.
"""

from __future__ import annotations

import hashlib
from datetime import timedelta

from workitems.api import Effect, GateResult, GateStatus, Phase, PullRequestStatus, Stage, WorkItem, WorkItemStatus
from workitems.core import begin, effects, gates, outcomes, reviews, stages
from workitems.core.draft import Draft
from workitems.core.forge import PullRequest, Question

ENSURE = "PullRequest"
DESCRIBE = "PullRequestText"
CLOSE = "ClosePullRequest"
MERGE = "Merge"
UPDATE_BRANCH = "UpdateBranch"

NO_COMMITS = "NoCommits"
CLOSED = "PullRequestClosed"
TITLE_CHARACTERS = 255
DESCRIPTION_CHARACTERS = 20_000
POLL = timedelta(seconds=20)
"""How often the forge is asked about what an item waits for there, should its webhooks be lost."""
LAG = timedelta(minutes=2)
"""How long a forge may name a commit of the item's own that is not its last one, before git is asked."""
LOOK_AT_MOST_EVERY = timedelta(seconds=60)
"""A forge that names a head which git does not have is no reason for one Job after the other."""


def ensure(draft: Draft, stage: Stage) -> bool:
    """See to it that there is an open pull request of the head. True: it cannot be had, and the item is held."""
    content, known = draft.status.content, draft.status.pull_request
    if content is None or not draft.has_forge:
        return False
    if known is not None and (known.state == "open" or merged(draft)):
        return False
    effect_id = f"pr-{content.commit[:12]}"
    effect = effects.find(draft.status.effects, effect_id)
    if effect is None or effect.state == "Done":
        params = {
            "title": title(draft),
            "branch": draft.status.branch or "",
            "base": draft.status.base_branch or "",
            "commit": content.commit,
        }
        draft.intend(effect_id, ENSURE, target=effects.FORGE, params=params)
        draft.note("ensure the pull request")
        return False
    if effect.state != "Failed":
        return False
    if effect.reason == NO_COMMITS and known is None and any(gate.ci is not None for gate in stage.gates):
        # The gate says it, and its onFailure decides.
        return False
    draft.drop_effect(effect_id)
    reason, words = effect.reason or "PullRequestRefused", effect.last_error or "the forge refused the pull request"
    if effect.reason == NO_COMMITS and known is not None:
        reason = "MergedElsewhere"
        words = (
            f"pull request {known.number} ({known.url}) is {known.state} at {(known.head or '')[:12]}, and the gates "
            f"hold for {content.commit[:12]}: {words}. Look at what was merged, and abort the item or push what is "
            "missing"
        )
    # A stage without a commit runs again; for everything else its work is done.
    stands = effect.reason != NO_COMMITS or known is not None
    draft.hold(Phase.BLOCKED, reason, f"{words}. Then: {outcomes.retry_command(draft)}", stands=stands)
    return True


def merged(draft: Draft) -> bool:
    """Whether the head is merged into the item's base: by the operator, or by a person."""
    content, known = draft.status.content, draft.status.pull_request
    if content is None or known is None:
        return False
    # One that an earlier version of the operator wrote down names no base.
    into = known.base in (None, draft.status.base_branch)
    return known.state == "merged" and known.head == content.commit and into


def opening(draft: Draft) -> Effect | None:
    """The effect that is to open the head's pull request, while it is under way."""
    content = draft.status.content
    effect = effects.find(draft.status.effects, f"pr-{content.commit[:12]}") if content is not None else None
    return effect if effect is not None and effect.state == "Intended" else None


def noticed(draft: Draft, found: PullRequest) -> bool:
    """Take what the forge says about the pull request. True: a person closed, reopened or merged it, walk again."""
    before = draft.status.pull_request
    learn(draft, values_of(found))
    now = draft.status.pull_request
    return before is not None and now is not None and now.state != before.state


def nothing_to_merge(draft: Draft) -> str | None:
    """Why there is no pull request of the head and will be none; None: there is, or may be."""
    content = draft.status.content
    if draft.status.pull_request is not None:
        return None
    effect = effects.find(draft.status.effects, f"pr-{content.commit[:12]}") if content is not None else None
    return effect.last_error if effect is not None and effect.reason == NO_COMMITS else None


def title(draft: Draft) -> str:
    """The pull request's title, by the Pipeline; the item's own where it names none."""
    item = draft.facts.item
    template, stage = next(
        ((stage.pull_request.title, stage.name) for stage in draft.spec.stages if stage.pull_request is not None),
        ("{title}", draft.status.stage),
    )
    return stages.expand(template, stages.values(item, stage))[:TITLE_CHARACTERS]


def learn(draft: Draft, values: dict[str, str]) -> None:
    """Take what an effect brought back about the pull request."""
    if "number" not in values:
        return
    old, number = draft.status.pull_request, int(values["number"])
    if old is not None and (old.number, old.state) == (number, "merged") and values["state"] != "merged":
        # What is merged stays merged: this was read before.
        return
    found = PullRequestStatus(
        number=number,
        url=values["url"],
        state=values["state"],
        head=values["head"],
        base=values["base"],
        merge_commit=values.get("mergeCommit") or None,
        described=values.get("described") or (old.described if old is not None and old.number == number else None),
    )
    if found != old:
        draft.set(pull_request=found)
        draft.note(f"pull request {found.number} is {found.state}")


def values_of(found: PullRequest) -> dict[str, str]:
    """A pull request as the values of an effect's outcome."""
    merge_commit = {"mergeCommit": found.merge_commit} if found.merge_commit else {}
    number = {"number": str(found.number), "url": found.url}
    return {**number, "state": found.state, "head": found.head, "base": found.base[:255], **merge_commit}


def question(draft: Draft) -> Question:
    """What there is to ask about the head."""
    known, content = draft.status.pull_request, draft.status.content
    if content is None:
        raise AssertionError("asked about a head before there was one")
    number = known.number if known is not None else None
    return Question(number=number, commit=content.commit, reviews=reviews.wanted(draft))


def describe(draft: Draft) -> None:
    """Bring the text up to date where what it says about the gates has changed; the newest text wins."""
    known = draft.status.pull_request
    if known is None or known.state != "open" or draft.facts.pipeline is None:
        return
    words = title(draft)
    digest = digest_of(draft.status, words)
    if known.described == digest:
        return
    params = {"title": words, "number": str(known.number)}
    draft.intend(f"pr-text-{digest[:12]}", DESCRIBE, target=effects.FORGE, params=params)
    draft.set(pull_request=known.model_copy(update={"described": digest}))


def closed_message(number: int, url: str) -> str:
    """What a person can do about a pull request that was closed."""
    return f"pull request {number} was closed without a merge: reopen it at {url}, or abort the item"


def close(draft: Draft) -> None:
    """The item is aborted: what is under way at the forge is called off, and its pull request closed."""
    known = draft.status.pull_request
    begun = known is not None or any(effect.kind == ENSURE for effect in draft.status.effects)
    draft.withdraw(ENSURE, DESCRIBE, MERGE, UPDATE_BRANCH)
    if begun and (known is None or known.state == "open"):
        params = {"branch": draft.status.branch or "", "base": draft.status.base_branch or ""}
        number = {"number": str(known.number)} if known is not None else {}
        draft.intend("close-pr", CLOSE, target=effects.FORGE, params={**params, **number})


def look_if_moved(draft: Draft, head: str) -> bool:
    """Begin a look at the branch if its head is one that nobody has judged, and a look may start now."""
    content, looked = draft.status.content, draft.status.looked_at
    if content is None or head == content.commit or not begin.may_look(draft):
        return False
    if head in {run.commit for run in draft.status.runs}:
        # The forge has not heard of a later one of the item's own yet. After a while, a person has put the branch back.
        known_since = draft.status.runs[-1].finished_at
        if draft.now - max(known_since, looked or known_since) < LAG:
            return False
    if looked is not None and draft.now - looked < LOOK_AT_MOST_EVERY:
        return False
    draft.note(f"the branch's head is {head[:12]}")
    begin.look(draft)
    return True


def pushed(draft: Draft) -> bool:
    """Whether a person has pushed while the item waits for one: then the branch is looked at.

    Asked at every look at the item: by a webhook at once, by the sweep in any case. A forge that is away is nobody's
    business here: the person's answer is what the item waits for.
    """
    content, reading = draft.status.content, draft.facts.reading
    if content is None or not draft.has_forge or draft.facts.problem is not None:
        return False
    # In one question with what people say about the pull request.
    known = draft.status.pull_request if reviews.wanted(draft) else None
    number = known.number if known is not None else None
    branch = draft.status.branch or ""
    asked = Question(number, content.commit, branch=branch, checks=False, reviews=known is not None)
    if reading is None or reading.question != asked:
        draft.question = asked
        return False
    return reading.head is not None and look_if_moved(draft, reading.head)


def wait_for_effect(draft: Draft, what: str, effect: Effect) -> None:
    """Say what an effect that the item waits for has met so far."""
    if effect.last_error is None:
        draft.wait(Phase.IN_PROGRESS, what, _DOING[effect.kind])
        return
    again = f", tried again at {effect.next_attempt_at:%H:%M:%S} UTC" if effect.next_attempt_at is not None else ""
    phase = Phase.BLOCKED if effect.reason else Phase.IN_PROGRESS
    message = f"{_DOING[effect.kind]}: {effect.last_error} ({effect.attempts} times so far{again})"
    draft.wait(phase, effect.reason or "ForgeUnreachable", message)


_DOING = {
    ENSURE: "opens the pull request",
    MERGE: "merges the pull request",
    UPDATE_BRANCH: "brings the base's new commits into the branch",
}


def body(item: WorkItem, base: str) -> str:
    """The pull request's text: what it is about, where it comes from, and what the gates say."""
    meta, spec, status = item.metadata, item.spec, item.status
    parts = [spec.description.strip()[:DESCRIPTION_CHARACTERS]] if spec.description.strip() else []
    about = f"WorkItem `{meta.namespace}/{meta.name}`, branch `{status.branch}` into `{base}`."
    if spec.external_ref is not None:
        issue = spec.external_ref
        about += f" Issue: [{_cell(issue.id)}]({issue.url})" if issue.url else f" Issue: {_cell(issue.id)}"
    parts.append(about)
    rows = [f"| {gate.stage} | {gate.name} | {_result(gate)} | {_says(gate)} |" for gate in status.gates]
    if rows:
        parts.append("\n".join(["| stage | gate | result | |", "|---|---|---|---|", *rows]))
    parts.append("_Kept up to date by workitem-operator: write comments, not into this text._")
    return "\n\n".join(parts) + "\n"


def digest_of(status: WorkItemStatus, words: str) -> str:
    """Of what the text says and changes: the title and the gates' results."""
    rows = "".join(f"{g.stage}\0{g.name}\0{_result(g)}\0{_says(g)}\n" for g in status.gates)
    return hashlib.sha256(f"{words}\n{rows}".encode()).hexdigest()[:40]


def _result(gate: GateStatus) -> str:
    mark = {GateResult.PASSED: "✅ ", GateResult.FAILED: "❌ "}.get(gate.result, "")
    # An Error is tried again: that it could not be judged yet is nobody's business but the item's.
    return f"{mark}{gate.result if gate.result in gates.FINAL else GateResult.PENDING}"


def _says(gate: GateStatus) -> str:
    if gate.result not in gates.FINAL:
        return ""
    commit = f" ({gate.commit[:10]})" if gate.commit else ""
    return f"{_cell(gate.message[:300])}{commit}"


def _cell(text: str) -> str:
    """Words in a table's cell: neither a new column nor a new row, nor markup of their own."""
    flat = " ".join(text.split())
    return "".join(f"\\{c}" if c in r"\|`*_[]<>#" else c for c in flat)
