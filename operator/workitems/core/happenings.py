"""What a step changed that somebody may want to know, in the words that its templates need.

Only differences: from the status before and after a step to what happened in it, whoever is to hear of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from workitems.api import (
    Condition,
    FinishedRun,
    Gate,
    GateResult,
    GateStatus,
    Phase,
    Stage,
    WorkItemStatus,
)
from workitems.core import gates, pull_requests, runs, stages, transitions
from workitems.core.conditions import FINISHED
from workitems.core.facts import Facts
from workitems.core.stages import CREATED, DONE

WORD_CHARACTERS = 1024
LONGEST_WORD = 2 * WORD_CHARACTERS
"""Many effects wait in one status while a tracker is away for days."""
BRIDGE = "plane:"
"""How `by` of a Decision begins that was said in the tracker."""


TESTS_FAILED_WORDS = ("Fail", "Failed", "Failure")
"""A verdict's word, as a gate's reason, that is about tests and not about a review."""

_MERGE_REASONS = ("MergeRefused", "MergeConflict", "MergedElsewhere", "HeadKeepsMoving", pull_requests.CLOSED)
_HELD_EVENTS = {
    **dict.fromkeys(_MERGE_REASONS, "MergeFailed"),
    "QuestionsAsked": "QuestionsAsked",
    "ReworkExhausted": "RetriesUsedUp",
    "InfraRetriesExhausted": "RetriesUsedUp",
    "FilesMissing": "NothingProduced",
}


@dataclass(frozen=True)
class Happening:
    """One thing that this step changed and that somebody may want to know."""

    event: str
    """Key of its template."""
    words: dict[str, str]
    notify: str | None = None
    """Which kind of event it is for a notifier's filter; None: it is for the tracker alone."""
    comment: bool = False
    """Whether it is worth a comment in the tracker."""


def happenings(facts: Facts, after: WorkItemStatus) -> Iterator[Happening]:
    """In the order in which a person reads them; of what is for the tracker, the most telling first."""
    before = facts.item.status
    yield from _decisions(before, after)
    changed = transitions.between(before, after)
    run = changed.finished[-1] if changed.finished else None
    if run is not None:
        yield Happening("RunFinished", _run_words(run), notify="RunFinished")
    end = _end(before, after)
    hold = _hold(facts, after, run)
    if end is not None:
        yield end
    elif hold is not None:
        yield hold
    elif (wanted := _approval(facts, after)) is not None:
        yield wanted
    yield from _failed_gates(facts, after, changed)
    if after.stage != before.stage and after.stage not in (DONE, CREATED) and after.phase not in FINISHED:
        came = {"from": before.stage if before.stage != CREATED else "", "stage": after.stage}
        yield Happening("StageChanged", came, notify="StageChanged")
    new = changed.started
    if new is not None and new.kind == "Agent":
        begun = {"run": str(new.number), "agent": new.agent, "stage": new.stage, "attempt": str(new.attempt)}
        yield Happening("RunStarted", begun, notify="RunStarted")


def _decisions(before: WorkItemStatus, after: WorkItemStatus) -> Iterator[Happening]:
    known = {record.uid for record in before.decisions}
    for record in after.decisions:
        if record.uid in known or record.result == "Accepted" or not record.by.startswith(BRIDGE):
            continue
        said = {"action": record.action, "by": record.by.removeprefix(BRIDGE), "message": record.message}
        yield Happening("DecisionRefused", said, comment=True)


def _run_words(run: FinishedRun) -> dict[str, str]:
    seconds = max(int((run.finished_at - run.started_at).total_seconds()), 0)
    return {
        "run": str(run.number),
        "agent": run.agent,
        "stage": run.stage,
        "attempt": str(run.attempt),
        "result": str(run.result),
        "seconds": str(seconds),
        "cost": run.usage.cost_usd if run.usage is not None else "",
        "message": run.message or "",
    }


def _end(before: WorkItemStatus, after: WorkItemStatus) -> Happening | None:
    if after.phase not in FINISHED or before.phase in FINISHED:
        return None
    usage, merged = after.usage, after.pull_request
    found = {
        "branch": after.branch or "",
        "commit": after.head or "",
        "message": _ready(after),
        "runs": str(usage.runs),
        "cost": usage.cost_usd,
        "seconds": str(usage.run_seconds),
    }
    if after.phase is Phase.ABORTED:
        return Happening("Aborted", found, notify="Done", comment=True)
    if merged is None or merged.state != "merged":
        return Happening("Done", found, notify="Done", comment=True)
    found |= {"number": str(merged.number), "url": merged.url, "base": merged.base or after.base_branch or ""}
    return Happening("Merged", {**found, "commit": merged.merge_commit or ""}, notify="Done", comment=True)


def _hold(facts: Facts, after: WorkItemStatus, run: FinishedRun | None) -> Happening | None:
    """What makes the item wait for a person other than an approver, if it did not wait for that before."""
    before, hold = facts.item.status, after.hold
    if after.phase in (Phase.BLOCKED, Phase.NEEDS_INPUT) and hold is not None:
        if hold == before.hold:
            return None
        reason, message = hold.reason, hold.message
    elif after.phase is Phase.BLOCKED and hold is None:
        ready = _condition(after)
        old = _condition(before)
        if before.phase is Phase.BLOCKED and old is not None and ready is not None and old.reason == ready.reason:
            return None
        reason, message = (ready.reason, ready.message) if ready is not None else ("Blocked", "")
    else:
        return None
    message, command = _split(message)
    found = {"stage": after.stage, "reason": reason, "message": message, "command": command}
    if after.phase is Phase.NEEDS_INPUT:
        file = after.rerun.files[0] if after.rerun is not None and after.rerun.files else ""
        found |= _document(facts, after, file)
        return Happening("QuestionsAsked", found, notify="InputWanted", comment=True)
    event = _HELD_EVENTS.get(reason, "Blocked")
    stage = _stage(facts, run.stage) if run is not None else None
    if run is not None and stage is not None and str(run.result) != "Succeeded" and _deploys(stage):
        event, found = "DeployFailed", {**found, "stage": run.stage}
    elif event == "MergeFailed" and after.pull_request is not None:
        found |= {"number": str(after.pull_request.number), "url": after.pull_request.url}
    return Happening(event, found, notify="Blocked", comment=True)


def _approval(facts: Facts, after: WorkItemStatus) -> Happening | None:
    if after.phase is not Phase.IN_REVIEW:
        return None
    found = awaited(facts, after)
    if found is None:
        return None
    stage, status = found
    before = facts.item.status
    asked = awaited(facts, before)
    # A look at the branch between two requests for the same is no news.
    waited = before.phase is Phase.IN_REVIEW or (before.run is not None and before.run.kind == "Look")
    if waited and asked is not None and _same_request(asked[1], status):
        return None
    commit = after.head or status.commit or ""
    _, command = _split(_ready(after))
    paths, content = stages.Paths(facts.pipeline.spec, facts.item) if facts.pipeline else None, after.content
    names = paths.named_by(stage) if paths is not None else ()
    there = [name for name in names if content is not None and gates.present(content, name)]
    request = {
        "stage": stage.name,
        "gate": status.name,
        "commit": commit,
        "folder": paths.documents if paths is not None else "",
        "command": command,
        "documents": _fitting(there),
    }
    return Happening("ApprovalWanted", request, notify="ApprovalWanted", comment=True)


def _same_request(one: GateStatus, other: GateStatus) -> bool:
    """A stage may ask for several approvals, one after the other, of the same content."""
    return (one.stage, one.name, one.covers) == (other.stage, other.name, other.covers)


def _fitting(lines: list[str]) -> str:
    """Lines as one word: as many as have room, each whole."""
    text = ""
    for line in lines:
        if len(text) + len(line) + 1 > LONGEST_WORD:
            break
        text = f"{text}\n{line}" if text else line
    return text


def awaited(facts: Facts, status: WorkItemStatus) -> tuple[Stage, GateStatus] | None:
    """The stage and the status of the approval gate that the item waits for."""
    stage = _stage(facts, status.stage)
    for gate in stage.gates if stage is not None else ():
        found = gates.find(status.gates, status.stage, gate.name)
        if gate.approval is not None and found is not None and found.result is GateResult.PENDING:
            return (stage, found) if stage is not None else None
    return None


def _failed_gates(facts: Facts, after: WorkItemStatus, changed: transitions.Transition) -> Iterator[Happening]:
    for status in changed.gates:
        if status.result is not GateResult.FAILED:
            continue
        stage = _stage(facts, status.stage)
        gate = next((g for g in stage.gates if g.name == status.name), None) if stage is not None else None
        if gate is None:
            continue
        found = {
            "stage": status.stage,
            "gate": status.name,
            "reason": status.reason,
            "message": status.message,
            "next": after.stage,
            "attempt": str(_next_attempt(after)),
        }
        event = _kind_of_failure(gate, status)
        if event == "Conflict" and after.rerun is not None and after.rerun.files:
            found |= _document(facts, after, after.rerun.files[0])
        # Once with the template of its kind for the tracker, once for the chats.
        yield Happening(event, found, comment=True)
        yield Happening("GateFailed", found, notify="GateFailed")


def _next_attempt(after: WorkItemStatus) -> int:
    """Number of the attempt that the item goes on with; its run may have been announced in the same step."""
    begun = after.run is not None and after.run.stage == after.stage
    return after.attempts.get(after.stage, 0) + (0 if begun else 1)


def _kind_of_failure(gate: Gate, status: GateStatus) -> str:
    if gate.approval is not None:
        return "Rejected"
    if gate.absent is not None and status.reason == "FilePresent":
        return "Conflict"
    if gate.command is not None or gate.ci is not None:
        return "TestsFailed"
    if gate.verdict is not None:
        return "TestsFailed" if status.reason in TESTS_FAILED_WORDS else "ChangesRequested"
    return "GateFailed"


def _document(facts: Facts, after: WorkItemStatus, file: str) -> dict[str, str]:
    """Where a document can be read, and its beginning as far as the run's report has it."""
    if not file:
        return {}
    run, job = facts.item.status.run, facts.run_job
    found = {"file": file, "commit": after.head or ""}
    if run is not None and job is not None:
        state = runs.state_of(job, facts.uid, run.number, facts.now)
        if isinstance(state, runs.Ended) and state.report is not None:
            excerpt = next((excerpt for excerpt in state.report.excerpts if excerpt.file == file), None)
            if excerpt is not None:
                return {**found, "excerpt": excerpt.text, "cut": "yes" if excerpt.cut else ""}
    return found


def _stage(facts: Facts, name: str) -> Stage | None:
    return stages.stage_named(facts.pipeline.spec, name) if facts.pipeline is not None else None


def _deploys(stage: Stage) -> bool:
    return stage.merge is not None or stage.name in ("deploy", "deployment", "release")


def _condition(status: WorkItemStatus) -> Condition | None:
    return next((condition for condition in status.conditions if condition.type == "Ready"), None)


def _ready(status: WorkItemStatus) -> str:
    ready = _condition(status)
    return ready.message if ready is not None else ""


def _split(message: str) -> tuple[str, str]:
    """A message's words and the operator's own command, which ends it: an agent's words before it may name others."""
    words, at, command = message.rpartition("kubectl ")
    if not at:
        return message, ""
    words = words.rstrip()
    for lead in ("Then:", "then:", "Answer:", "See:", ", then:"):
        words = words.removesuffix(lead).rstrip()
    return words.rstrip(".,;: "), at + command
