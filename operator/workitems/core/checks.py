"""`ci` gates: the forge's checks of the very commit that the branch ends with.

The step asks, the loop reads, the next step judges: a decision never waits for a forge. One that is away makes the
gate an Error, tried again for as long as it takes; only checks that were read can fail a gate. Its clock runs while a
CI may be at work: not while the forge is away, nor before the pull request, which many wait for, is open.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import Any

from workitems.api import MESSAGE_LIMIT, Gate, GateResult, GateStatus, Phase, duration
from workitems.api.pipeline import CIGate
from workitems.core import gates, pull_requests
from workitems.core.draft import Draft
from workitems.core.forge import Check, Checks

ABSENT_AFTER = timedelta(minutes=2)
"""Without any check after that time, nobody reports any."""
NO_CHECKS = "NoChecks"
OPENING = "PullRequestOpening"
"""Reason of a gate whose clock has not started."""

Verdict = tuple[GateResult, str, str]
"""Result, reason, message."""


def judge(ci: CIGate, checks: Checks, since: datetime, now: datetime) -> Verdict:
    """What a commit's checks mean for a gate that has waited for them `since`."""
    if not checks.contexts:
        return _absent(ci, since, now)
    counted, missing = _required(ci, checks)
    failed = [check for check in counted if check.state == "failure"]
    if failed:
        return GateResult.FAILED, "ChecksFailed", _cut(f"{_said(failed)} failed{_others(counted, failed)}")
    pending = [check for check in counted if check.state == "pending"]
    if not pending and not missing:
        return GateResult.PASSED, "ChecksPassed", _cut(f"{len(counted)} of {len(counted)} passed: {_said(counted)}")
    waits = ", ".join([*(check.context for check in pending), *(f"{name} (not reported yet)" for name in missing)])
    message = f"{len(counted) - len(pending)} of {len(counted) + len(missing)} checks passed, waits for {waits}"
    if now - since >= duration(ci.timeout):
        return GateResult.FAILED, "ChecksTimedOut", _cut(f"not done within {ci.timeout}: {message}")
    return GateResult.PENDING, "ChecksPending", _cut(message)


def _required(ci: CIGate, checks: Checks) -> tuple[list[Check], list[str]]:
    """The checks that count, and the names of those that are wanted and not there."""
    if not ci.contexts:
        return list(checks.contexts), []
    there = {check.context: check for check in checks.contexts}
    return [there[n] for n in ci.contexts if n in there], [n for n in ci.contexts if n not in there]


def _absent(ci: CIGate, since: datetime, now: datetime) -> Verdict:
    waited = now - since
    if waited >= ABSENT_AFTER and ci.when_absent == "Skip":
        return GateResult.SKIPPED, NO_CHECKS, "nobody reported a check of this commit within 2m (whenAbsent: Skip)"
    if waited >= ABSENT_AFTER and ci.when_absent == "Fail":
        return GateResult.FAILED, NO_CHECKS, "nobody reported a check of this commit within 2m (whenAbsent: Fail)"
    if waited >= duration(ci.timeout):
        return GateResult.FAILED, "ChecksTimedOut", f"nobody reported a check of this commit within {ci.timeout}"
    return GateResult.PENDING, "ChecksPending", "no check of this commit has been reported yet"


def _said(checks: list[Check]) -> str:
    return ", ".join(
        f"{check.context}{f' ({check.description})' if check.description else ''}{f' {check.url}' if check.url else ''}"
        for check in checks
    )


def _others(counted: list[Check], failed: list[Check]) -> str:
    return f" ({len(counted) - len(failed)} of {len(counted)} did not)" if len(counted) > len(failed) else ""


def _cut(text: str) -> str:
    return text if len(text) <= MESSAGE_LIMIT else f"{text[: MESSAGE_LIMIT - 1]}…"


def settle(draft: Draft, pending: list[tuple[Gate, GateStatus]]) -> bool:
    """Look at the ci gates of a stage that are not final. True: the status has changed, walk again."""
    if not pending:
        return False
    if (unasked := _unasked(draft)) is not None:
        for _, status in pending:
            _change(draft, status, unasked)
        return True
    reading = draft.facts.reading
    if reading is None or reading.question != pull_requests.question(draft):
        draft.question = pull_requests.question(draft)
        draft.again_in(pull_requests.POLL)
        return False
    if reading.error:
        for _, status in pending:
            _change(draft, status, (GateResult.ERROR, reading.reason or "ForgeUnreachable", _cut(reading.error)))
        draft.again_in(timedelta(seconds=reading.again_seconds))
        return False
    found = reading.pull_request
    if found is not None and pull_requests.noticed(draft, found):
        return True
    opening = pull_requests.opening(draft) is not None
    if opening and found is not None:
        # It is closed, as far as is known: whether there is another one comes first.
        draft.again_in(pull_requests.POLL)
        return False
    changed = False
    for gate, status in pending:
        starts = opening or status.result is GateResult.ERROR or status.reason == OPENING
        since = draft.now if starts else status.since
        verdict = judge(_ci(gate), reading.checks, since, draft.now)
        if opening and verdict[0] is GateResult.PENDING:
            verdict = (GateResult.PENDING, OPENING, f"{verdict[2]}; the pull request is not open yet")
        changed = _change(draft, status, verdict, since) or changed
    draft.again_in(pull_requests.POLL)
    return changed


def _unasked(draft: Draft) -> Verdict | None:
    """What a gate says without any question to a forge."""
    if not draft.has_forge:
        return gates.NO_FORGE
    nothing = pull_requests.nothing_to_merge(draft)
    return None if nothing is None else (GateResult.FAILED, pull_requests.NO_COMMITS, nothing)


def wait(draft: Draft, gate: Gate, status: GateStatus) -> None:
    """Say that the item waits for a ci gate."""
    found = draft.facts.reading.pull_request if draft.facts.reading is not None else None
    if found is not None and found.state == "open" and pull_requests.look_if_moved(draft, found.head):
        return
    current = gates.find(draft.status.gates, status.stage, status.name) or status
    about = f"gate {gate.name} waits for the checks of commit {(current.commit or '')[:12]}"
    if current.result is GateResult.ERROR:
        # A forge that is away comes back by itself; what it refuses wants a person.
        phase = Phase.IN_PROGRESS if current.reason == "ForgeUnreachable" else Phase.BLOCKED
        draft.wait(phase, current.reason, f"{about}: {current.message}; asked again until it answers")
        return
    opening = pull_requests.opening(draft)
    if opening is not None and (opening.last_error is not None or draft.status.pull_request is not None):
        pull_requests.wait_for_effect(draft, OPENING, opening)
        return
    draft.wait(Phase.IN_PROGRESS, "WaitingForChecks", f"{about}: {current.message}")


def counted(draft: Draft) -> bool:
    """Whether a gate of the Pipeline asks for checks."""
    return any(gate.ci is not None for stage in draft.spec.stages for gate in stage.gates)


def digest(checks: Checks) -> str:
    """Of what the checks of a commit say, without the words: a merge is for what was judged and nothing newer."""
    lines = sorted(f"{check.context}\0{check.state}\n" for check in checks.contexts)
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:40]


def read_again(draft: Draft, checks: Checks) -> bool:
    """Before the merge: every ci gate by what the forge says now. True: one does not hold any more."""
    changed = False
    for stage in draft.spec.stages:
        for gate in stage.gates:
            status = gates.find(draft.status.gates, stage.name, gate.name)
            if gate.ci is None or status is None or (not checks.contexts and status.reason == NO_CHECKS):
                continue
            # A check that was started again is waited for from now on.
            verdict = judge(gate.ci, checks, draft.now, draft.now)
            if verdict[0] not in gates.HOLDS:
                _change(draft, status.model_copy(update={"since": draft.now}), verdict)
                changed = True
    return changed


def _change(draft: Draft, status: GateStatus, verdict: Verdict, since: datetime | None = None) -> bool:
    """Record what a gate says now; True: it is final now. `since` is when its clock started, where that is new."""
    result, reason, message = verdict
    if (status.result, status.reason, status.message) == verdict:
        return False
    update: dict[str, Any] = {"result": result, "reason": reason, "message": message, "checked_at": draft.now}
    update["since"] = since or status.since
    if result in gates.FINAL and status.result not in gates.FINAL:
        update["since"] = draft.now
        draft.note(f"gate {status.name} {result}")
    draft.set(gates=gates.replaced(draft.status.gates, status.model_copy(update=update)))
    return result in gates.FINAL


def _ci(gate: Gate) -> CIGate:
    if gate.ci is None:
        raise AssertionError("only ci gates come here")
    return gate.ci
