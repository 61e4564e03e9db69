"""The merge at the end of the last stage: only of the commit that every gate holds for, and the forge is told which.

What the item waits for stands in status at every moment: an announced effect that is not carried out yet, or the
question to the forge. A merge that failed is acted upon in the step that learns of it, and forgotten there, so that
whatever is tried next begins with a fresh look at the forge.
"""

from __future__ import annotations

from datetime import timedelta

from workitems.api import Condition, Effect, Merge, Phase, Stage
from workitems.core import begin, checks, effects, outcomes, pull_requests
from workitems.core.draft import Draft
from workitems.core.forge import MergeResult, PullRequest
from workitems.core.start import wait_for

OUT_OF_DATE = "OutOfDate"
"""Reason of a fast-forward that is none, because the base has commits that the branch lacks."""
OUT_OF_DATE_REFUSED = "OutOfDateRefused"
"""The same, where the forge's own rules may be the cause, or something else may be."""
CONFLICT = str(MergeResult.CONFLICT)
HEAD_MOVED = str(MergeResult.HEAD_MOVED)
MOST_MOVES = 5
"""How often a forge may say that the head moved while it names that very head."""


def settle(draft: Draft, stage: Stage, merge: Merge) -> bool | None:
    """Merge the head, for which every gate holds. None: it is merged, or need not be; True: walk again; False: wait."""
    content = draft.status.content
    if content is None:
        raise AssertionError("a complete stage has a content")
    if pull_requests.merged(draft):
        return None
    if not draft.has_forge:
        return None
    draft.set(stage=stage.name)
    if draft.facts.problem is not None:
        wait_for(draft, draft.facts.problem)
        return False
    if pull_requests.ensure(draft, stage):
        return True
    short = content.commit[:12]
    if (opening := pull_requests.opening(draft)) is not None:
        pull_requests.wait_for_effect(draft, checks.OPENING, opening)
        return False
    if draft.facts.item.spec.suspend:
        draft.wait(Phase.SUSPENDED, "Suspended", "spec.suspend is true: nothing is merged; set it to false to go on")
        return False
    if not begin.may_try(draft):
        return False
    updating = effects.find(draft.status.effects, f"update-{short}")
    if updating is not None:
        draft.merging = True
        return _updated(draft, stage, updating)
    merging = effects.find(draft.status.effects, f"merge-{short}")
    if merging is not None and merging.state == "Intended":
        draft.merging = True
        pull_requests.wait_for_effect(draft, "Merging", merging)
        return False
    if merging is not None and merging.state == "Failed" and merging.reason not in (HEAD_MOVED, effects.WITHDRAWN):
        return _failed(draft, stage, merge, merging)
    return _merge(draft, merge, merging)


def _merge(draft: Draft, merge: Merge, before: Effect | None) -> bool:
    """Announce the merge, if the forge says now what it said when the gates passed."""
    found = _ask(draft, "Merging", "asks the forge once more before the merge")
    reading, commit = draft.facts.reading, pull_requests.question(draft).commit
    if found is None or reading is None:
        return False
    if pull_requests.noticed(draft, found):
        # Merged by a person: of this very commit, and the item is done; of another one, or closed: asked about that.
        return True
    if found.base != draft.status.base_branch:
        message = (
            f"pull request {found.number} ({found.url}) is into {found.base} by now, and the item's base is "
            f"{draft.status.base_branch}: set that in the forge again"
        )
        return _hold(draft, "MergeRefused", message)
    if found.head != commit:
        _await_head(draft, found.head, commit)
        return False
    if checks.read_again(draft, reading.checks):
        return True
    moves = before.attempts if before is not None and before.reason == HEAD_MOVED else 0
    if before is not None and moves >= MOST_MOVES:
        draft.drop_effect(before.id)
        message = f"the forge says that the head moved, and names {found.head[:12]} all the same"
        return _hold(draft, "HeadKeepsMoving", message)
    params = {
        "number": str(found.number),
        "commit": commit,
        "base": draft.status.base_branch or "",
        "method": merge.method,
        "deleteBranch": "true" if merge.delete_branch else "false",
        "checks": checks.digest(reading.checks) if checks.counted(draft) else "",
    }
    effect_id = f"merge-{commit[:12]}"
    # What its text says about the gates is to be right when it is merged.
    pull_requests.describe(draft)
    draft.intend(effect_id, pull_requests.MERGE, target=effects.FORGE, params=params)
    announced = effects.find(draft.status.effects, effect_id)
    if announced is not None and moves:
        # Counted on, so that the limit is reached.
        counted = announced.model_copy(update={"attempts": moves})
        draft.set(effects=effects.replaced(draft.status.effects, counted))
    draft.merging = True
    draft.note(f"merge pull request {found.number} at {commit[:12]}")
    draft.wait(Phase.IN_PROGRESS, "Merging", f"merges pull request {found.number} ({found.url})")
    return False


def settle_unmerged(draft: Draft) -> bool | None:
    """Where the Pipeline leaves the merge to others: the item is done while its pull request is there to be merged.

    None: it is, or none was asked for; True: walk again; False: wait.
    """
    asked = any(stage.pull_request is not None for stage in draft.spec.stages)
    if not asked or not draft.has_forge or pull_requests.merged(draft):
        return None
    opening = pull_requests.opening(draft)
    if opening is None and draft.status.pull_request is None:
        return None
    draft.set(stage=draft.spec.stages[-1].name)
    if draft.facts.problem is not None:
        wait_for(draft, draft.facts.problem)
        return False
    if opening is not None:
        pull_requests.wait_for_effect(draft, checks.OPENING, opening)
        return False
    found = _ask(draft, "AskingForge", "asks the forge whether the pull request is still open")
    if found is None:
        return False
    return True if pull_requests.noticed(draft, found) else None


def _ask(draft: Draft, reason: str, doing: str) -> PullRequest | None:
    """The pull request as the forge has it now; None: not known yet, and the draft says so."""
    reading, question = draft.facts.reading, pull_requests.question(draft)
    until = f"{doing}, until it answers: "
    if reading is None or reading.question != question:
        draft.question = question
        before = draft.facts.item.status
        said = next((c for c in before.conditions if c.type == "Ready"), None)
        if (
            draft.status == before
            and said is not None
            and said.reason in ("ForgeLagsBehind", *_unanswered(said, until))
        ):
            # Asked again: the same words until there is news.
            draft.wait(before.phase, said.reason, said.message)
        else:
            draft.wait(Phase.IN_PROGRESS, reason, doing)
        draft.again_in(pull_requests.POLL)
        return None
    if reading.error:
        phase = Phase.BLOCKED if reading.reason else Phase.IN_PROGRESS
        draft.wait(phase, reading.reason or "ForgeUnreachable", f"{until}{reading.error}")
        draft.again_in(timedelta(seconds=reading.again_seconds))
    return reading.pull_request


def _unanswered(said: Condition, until: str) -> tuple[str, ...]:
    return (said.reason,) if said.message.startswith(until) else ()


def _await_head(draft: Draft, head: str, commit: str) -> None:
    """The pull request's head is not what the gates judged: look at the branch, or wait until the forge knows more."""
    if not pull_requests.look_if_moved(draft, head):
        message = (
            f"the pull request's head is {head[:12]}, and the gates hold for {commit[:12]}: waits until the forge has "
            "seen that commit, or the branch can be looked at"
        )
        draft.wait(Phase.IN_PROGRESS, "ForgeLagsBehind", message)
        draft.again_in(pull_requests.POLL)


def _hold(draft: Draft, reason: str, message: str) -> bool:
    draft.hold(Phase.BLOCKED, reason, f"{message}. Then: {outcomes.retry_command(draft)}", stands=True)
    return True


def _failed(draft: Draft, stage: Stage, merge: Merge, effect: Effect) -> bool:
    """The forge did not merge: bring the branch up to date, send the item back, or ask a person."""
    draft.drop_effect(effect.id)
    said = effect.last_error or "the forge gave no reason"
    if effect.reason in (OUT_OF_DATE, OUT_OF_DATE_REFUSED) and merge.update_branch != "Never":
        params = {**effect.params, "style": merge.update_branch.lower()}
        draft.intend(
            effect.id.replace("merge-", "update-", 1),
            pull_requests.UPDATE_BRANCH,
            target=effects.FORGE,
            params=params,
        )
        draft.note("bring the branch up to date")
        return True
    if effect.reason in (OUT_OF_DATE, CONFLICT):
        return _conflict(draft, stage, said)
    return _hold(draft, "MergeRefused", f"the forge refuses the merge: {said}. Mend that in the forge")


def _conflict(draft: Draft, stage: Stage, said: str) -> bool:
    if outcomes.merge_failed(draft, stage, "MergeConflict", said):
        return True
    name, base = draft.status.branch, draft.status.base_branch
    return _hold(draft, "MergeConflict", f"{said}. Merge {base} into {name} by hand and push it")


def _updated(draft: Draft, stage: Stage, effect: Effect) -> bool:
    """The base's commits are on their way into the branch: once they are there, its new head is looked at."""
    if effect.state == "Intended":
        pull_requests.wait_for_effect(draft, "BranchUpdating", effect)
        return False
    if effect.state == "Failed":
        draft.drop_effect(effect.id)
        if effect.reason == effects.WITHDRAWN:
            return True
        return _conflict(draft, stage, effect.last_error or "the base's new commits conflict with the branch")
    found = _ask(draft, "BranchUpdating", "asks the forge for the branch's new head")
    if found is None:
        return False
    commit = pull_requests.question(draft).commit
    if found.state == "open" and found.head != commit:
        _await_head(draft, found.head, commit)
        return False
    # The forge says done, and the head is where it was: begin again, but not for ever.
    draft.drop_effect(effect.id)
    exhausted = draft.infrastructure_failed("bringing the branch up to date changed nothing")
    return exhausted is None or _hold(draft, "InfraRetriesExhausted", f"{exhausted} by the forge's word it was done")
