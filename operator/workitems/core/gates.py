"""Judging gates: what a gate covers, whether its last result still holds, and what it says about a head.

A gate's result is about content: `covers` is the digest of what was judged. When that changes, the result is void
and the gate is looked at again. Results come from git's facts in the runner's report, from Jobs and from Decisions,
never from an agent's prose.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import datetime

from workitems.api import MESSAGE_LIMIT, Content, Gate, GateResult, GateStatus, RunReport, Stage
from workitems.core.stages import Paths

# git's hashes of an empty file: a document without a word in it is not there.
EMPTY_BLOBS = frozenset(
    {
        "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391",
        "473a0f4c3be8a93681a267e3b1e9a7dcda1185436fe141f7749120a303721813",
    }
)

VOID = "Void"
ASKED = "WaitingForApproval"
"""Reason of a gate that waits for a person."""
FINAL = (GateResult.PASSED, GateResult.FAILED, GateResult.SKIPPED)
HOLDS = (GateResult.PASSED, GateResult.SKIPPED)
NO_FORGE = (GateResult.SKIPPED, "NoForge", "the Repository has no forge, so there is no commit status to read")


def present(content: Content, path: str) -> bool:
    """Whether a watched document is there and not empty."""
    blob = _blob(content, path)
    return blob is not None and blob not in EMPTY_BLOBS


def _blob(content: Content, path: str) -> str | None:
    return next((document.blob for document in content.documents if document.path == path), None)


def covers(gate: Gate, stage: Stage, paths: Paths, content: Content) -> str:
    """Digest of what this gate judges at this content."""
    if gate.verdict or gate.command:
        return f"code:{content.code}"
    if gate.ci:
        return f"commit:{content.commit}"
    named = paths.named_by(stage)
    if not named:
        return f"tree:{content.tree}"
    lines = "".join(f"{path}\0{_blob(content, path) or '-'}\n" for path in named)
    return f"docs:sha256:{hashlib.sha256(lines.encode()).hexdigest()}"


def find(statuses: Iterable[GateStatus], stage: str, name: str) -> GateStatus | None:
    """The recorded status of one gate."""
    return next((gate for gate in statuses if (gate.stage, gate.name) == (stage, name)), None)


def record(statuses: tuple[GateStatus, ...], new: GateStatus) -> tuple[GateStatus, ...]:
    """The statuses with one replaced or appended; `since` moves only when the result does."""
    old = find(statuses, new.stage, new.name)
    if old is None:
        return (*statuses, new)
    if old.result is new.result and old.covers == new.covers:
        new = new.model_copy(update={"since": old.since})
    # Tries only grow: they are part of the name of a command gate's Job.
    return replaced(statuses, new.model_copy(update={"tries": max(new.tries, old.tries)}))


def replaced(statuses: tuple[GateStatus, ...], new: GateStatus) -> tuple[GateStatus, ...]:
    """The statuses with the one of the same gate replaced, `since` as it is given."""
    return tuple(new if (gate.stage, gate.name) == (new.stage, new.name) else gate for gate in statuses)


def void(gate: GateStatus, now: datetime, why: str) -> GateStatus:
    """The gate, to be looked at again."""
    update = {
        "result": GateResult.PENDING,
        "reason": VOID,
        "message": why,
        "since": now,
        "checked_at": now,
        "job": None,
        "job_uid": None,
    }
    return gate.model_copy(update=update)


class Judge:
    """Judges the gates of one stage at one content."""

    def __init__(self, stage: Stage, paths: Paths, content: Content, now: datetime, *, forge: bool = False) -> None:
        """Take the stage, the item's paths, what the head contains, the time, and whether there is a forge to ask."""
        self._forge = forge
        self._stage = stage
        self._paths = paths
        self._content = content
        self._now = now

    def after_run(self, gate: Gate, attempt: int, report: RunReport) -> GateStatus:
        """The gate right after a run of its stage that Succeeded."""
        if gate.verdict:
            return self._verdict(gate, attempt, report)
        return self.at_head(gate, attempt)

    def at_head(self, gate: Gate, attempt: int) -> GateStatus:
        """The gate as the head alone shows it; a verdict needs a run and is never judged here."""
        if gate.approval:
            message = "waits for an Approve or Reject"
            return self._status(gate, attempt, (GateResult.PENDING, ASKED, message))
        if gate.command:
            return self._status(gate, attempt, (GateResult.PENDING, "Waiting", "the command has not run yet"))
        if gate.ci:
            unasked = (GateResult.PENDING, "ChecksPending", "the forge has not been asked yet")
            return self._status(gate, attempt, unasked if self._forge else NO_FORGE)
        return self._files(gate, attempt)

    def holds(self, gate: Gate, status: GateStatus) -> bool:
        """Whether a recorded result is about what the head contains now."""
        return status.covers == covers(gate, self._stage, self._paths, self._content)

    def _files(self, gate: Gate, attempt: int) -> GateStatus:
        missing = [n for n in gate.files or () if not present(self._content, self._document(n))]
        unwanted = [n for n in gate.absent or () if present(self._content, self._document(n))]
        if unwanted:
            return self._status(gate, attempt, (GateResult.FAILED, "FilePresent", f"{', '.join(unwanted)} is there"))
        if missing:
            verb = "is" if len(missing) == 1 else "are"
            message = f"{', '.join(missing)} {verb} missing or empty in {self._paths.documents}"
            return self._status(gate, attempt, (GateResult.FAILED, "FilesMissing", message))
        names = ", ".join(gate.files or ()) or "none of the unwanted files"
        return self._status(gate, attempt, (GateResult.PASSED, "FilesPresent", f"{names} found"))

    def _verdict(self, gate: Gate, attempt: int, report: RunReport) -> GateStatus:
        verdict = gate.verdict
        if verdict is None:
            raise AssertionError("only verdict gates come here")
        path = self._document(verdict.file)
        values = next((found.values for found in report.verdicts if found.file == path), ())
        text = next((excerpt.text for excerpt in report.excerpts if excerpt.file == path), "")
        allowed = ", ".join((*verdict.pass_, *verdict.fail))
        if not values:
            where = "has no line 'Verdict: …'" if present(self._content, path) else "is missing"
            message = f"{verdict.file} {where}; expected one of {allowed}"
            return self._status(gate, attempt, (GateResult.FAILED, "VerdictMissing", message))
        if len(values) > 1:
            message = f"{verdict.file} says {' and '.join(values)}; expected exactly one of {allowed}"
            return self._status(gate, attempt, (GateResult.FAILED, "VerdictAmbiguous", message))
        word = values[0]
        if word in verdict.pass_:
            return self._status(gate, attempt, (GateResult.PASSED, camel(word), f"{verdict.file} says {word}"))
        if word in verdict.fail:
            message = f"{verdict.file} says {word}" + (f": {_findings(text)}" if _findings(text) else "")
            return self._status(gate, attempt, (GateResult.FAILED, camel(word), message))
        message = f"{verdict.file} says {word}; expected one of {allowed}"
        return self._status(gate, attempt, (GateResult.FAILED, "VerdictUnknown", message))

    def _document(self, name: str) -> str:
        return self._paths.document(name, self._stage.name)

    def _status(self, gate: Gate, attempt: int, outcome: tuple[GateResult, str, str]) -> GateStatus:
        result, reason, message = outcome
        return GateStatus(
            name=gate.name,
            stage=self._stage.name,
            result=result,
            reason=reason,
            message=message[:MESSAGE_LIMIT],
            commit=self._content.commit,
            covers=covers(gate, self._stage, self._paths, self._content),
            attempt=attempt,
            since=self._now,
            checked_at=self._now,
        )


def _findings(text: str) -> str:
    """A document's beginning without its front matter and its verdict line: what a person wants to read."""
    lines = text.strip().splitlines()
    if lines and lines[0].strip() == "---":
        end = next((n for n, line in enumerate(lines[1:], 1) if line.strip() == "---"), 0)
        lines = lines[end + 1 :]
    return " ".join(" ".join(line for line in lines if "verdict:" not in line.lower()).split())


def camel(word: str) -> str:
    """`REQUEST_CHANGES` as a condition reason: `RequestChanges`."""
    parts = "".join(c if c.isalnum() else " " for c in word).split()
    return "".join(part[:1].upper() + part[1:].lower() for part in parts) or "Verdict"
