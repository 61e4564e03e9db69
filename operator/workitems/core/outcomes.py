"""What a failure leads to: `onFailure` and `onRunFailure`, bounded, and always with the command that continues."""

from __future__ import annotations

from workitems.api import API_VERSION, Content, Gate, GateResult, GateStatus, Outcome, Phase, Rerun, Stage
from workitems.core import gates, runs
from workitems.core.draft import Draft

DEFAULT_ATTEMPTS = 3
PIPELINE_KEPT = (
    "the item keeps its Pipeline as it was at the start: where that is wrong, mend it and create the WorkItem anew"
)
"""For a failure whose cause may be in the Pipeline: a Retry after mending that would only fail again."""


def retry_command(draft: Draft) -> str:
    """Ready to paste: a Retry of this item."""
    return decision_command(draft, "retry", "{}")


def start_command(draft: Draft, state: runs.Waiting, job: str) -> str:
    """What to add where a Job does not start and the pod does not say why; empty where it says."""
    if state.reason not in runs.STARTING:
        return ""
    events = "job " if state.reason == "PodMissing" else "pods -l batch.kubernetes.io/job-name="
    return f". See: kubectl -n {draft.facts.item.metadata.namespace} describe {events}{job}"


def decision_command(draft: Draft, action: str, body: str, comment: str = "") -> str:
    """Ready to paste: a Decision on this item by `kubectl create`."""
    meta = draft.facts.item.metadata
    said = f", comment: {comment}" if comment else ""
    # Quoted, because an item may be called 12 and a commit may be all digits.
    spec = f'{{workItem: "{meta.name}", by: YOU, {action}: {body}{said}}}'
    name = f"{{generateName: {meta.name}-{action.lower()}-}}"
    manifest = f"{{apiVersion: {API_VERSION}, kind: Decision, metadata: {name}, spec: {spec}}}"
    return f"kubectl -n {meta.namespace} create -f - <<< '{manifest}'"


def gate_failed(draft: Draft, stage: Stage, gate: Gate, status: GateStatus) -> None:
    """Act on a stage's first failed gate."""
    content = draft.status.content
    if content is None:
        raise AssertionError("a gate is judged at a content")
    failed = [g for g in draft.status.gates if g.stage == stage.name and g.result is GateResult.FAILED]
    findings = tuple(f"{g.name}: {g.message}"[:4096] for g in failed)
    files = _evidence(draft, stage, gate, content)
    answers = draft.status.rerun.answers if draft.status.rerun is not None else ()
    absent: list[str] = []
    for outcome in gate.on_failure:
        if outcome.when_file is not None and not gates.present(content, _path(draft, stage, outcome.when_file)):
            absent.append(outcome.when_file)
            continue
        if outcome.when_file is not None:
            files = (_path(draft, stage, outcome.when_file), *files)
        rerun = Rerun(
            reason=status.reason[:63], findings=findings, answers=answers, files=tuple(dict.fromkeys(files))[:16]
        )
        _apply(draft, stage, outcome, (gate.name, status.reason, _why(status, outcome, absent), rerun))
        return
    message = f"gate {gate.name}: {status.message}"
    draft.hold(Phase.BLOCKED, status.reason, f"{message}. Then: {retry_command(draft)}")
    draft.rerun(Rerun(reason=status.reason[:63], findings=findings, answers=answers, files=files[:16]))


def run_failed(draft: Draft, stage: Stage, reason: str, message: str) -> None:
    """Act on a run of the agent that did not succeed."""
    content = draft.status.content
    # The run did not do what it was told: what it was told (findings, an answer) must reach the next one as well.
    before = draft.status.rerun or Rerun(reason=reason[:63])
    rerun = before.model_copy(update={"reason": reason[:63], "findings": (*before.findings, message[:4096])})
    for outcome in stage.on_run_failure:
        if outcome.when_file is not None and (
            content is None or not gates.present(content, _path(draft, stage, outcome.when_file))
        ):
            continue
        _apply(draft, stage, outcome, (f"{stage.name}/run", reason, message, rerun))
        return
    draft.rerun(rerun)
    draft.hold(Phase.BLOCKED, reason, f"{message}. Then: {retry_command(draft)}")


def merge_failed(draft: Draft, stage: Stage, reason: str, message: str) -> bool:
    """Act on a branch that does not merge, by the Pipeline's onConflict. False: it has no entry that applies."""
    content = draft.status.content
    if stage.merge is None or content is None:
        raise AssertionError("only a stage that merges comes here")
    rerun = Rerun(reason=reason[:63], findings=(message[:4096],), merge_base=True)
    for outcome in stage.merge.on_conflict:
        if outcome.when_file is None or gates.present(content, _path(draft, stage, outcome.when_file)):
            _apply(draft, stage, outcome, (f"{stage.name}/merge", reason, message, rerun))
            return True
    return False


def _apply(draft: Draft, stage: Stage, outcome: Outcome, cause: tuple[str, str, str, Rerun]) -> None:
    name, reason, message, rerun = cause
    draft.rerun(rerun)
    if outcome.send_back_to is None:
        phase = Phase.NEEDS_INPUT if outcome.hold == "NeedsInput" else Phase.BLOCKED
        draft.hold(phase, "QuestionsAsked" if phase is Phase.NEEDS_INPUT else reason, _continue(draft, phase, message))
        return
    attempts = draft.rework(name)
    limit = outcome.max_attempts or DEFAULT_ATTEMPTS
    draft.reopen(outcome.send_back_to, f"sent back by {name}", keep=(stage.name, name))
    draft.note(f"{name} sends back to {outcome.send_back_to}")
    if outcome.hold is not None:
        draft.hold(Phase.BLOCKED, reason, f"{message}. Then: {retry_command(draft)}")
    elif attempts + 1 > limit:
        used = f"{name} failed again and stage {outcome.send_back_to} has used its {limit} attempts"
        draft.hold(Phase.BLOCKED, "ReworkExhausted", f"{used}: {message}. Then: {retry_command(draft)}")


def _continue(draft: Draft, phase: Phase, message: str) -> str:
    if phase is Phase.NEEDS_INPUT:
        return f"{message}. Answer: {decision_command(draft, 'answer', '{}', comment='YOUR ANSWER')}"
    return f"{message}. Then: {retry_command(draft)}"


def _why(status: GateStatus, outcome: Outcome, absent: list[str]) -> str:
    if outcome.when_file is not None:
        return f"{outcome.when_file} is there ({status.message})"
    without = f", and without {', '.join(absent)}" if absent else ""
    return f"finished with gate {status.name} failed: {status.message}{without}"


def _evidence(draft: Draft, stage: Stage, gate: Gate, content: Content) -> tuple[str, ...]:
    """Files that the next prompt must carry: the document with the findings."""
    names = [gate.verdict.file] if gate.verdict else [*(gate.absent or ())]
    paths = [_path(draft, stage, name) for name in names]
    return tuple(path for path in paths if gates.present(content, path))


def _path(draft: Draft, stage: Stage, name: str) -> str:
    return draft.paths.document(name, stage.name)
