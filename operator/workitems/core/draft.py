"""The status that a step is working out, before it is written: one place that knows how to change it consistently.

A Draft lives inside one call of `decide`; what leaves it is a Plan. Keeping the changes here, by their meaning
(`send_back`, `hold`, `finish`), means that no branch of the stage machine forgets a counter or a void gate.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from workitems.api import (
    Effect,
    FinishedRun,
    GateResult,
    GateStatus,
    HoldStatus,
    Phase,
    PipelineSpec,
    Rerun,
    Rework,
    WorkItemStatus,
)
from workitems.core import effects, gates, stages
from workitems.core.facts import Facts
from workitems.core.forge import Question
from workitems.core.plan import Action

# They travel in status and, with the description, in one annotation: 256 KiB is all that a pod's annotations may have.
FINDINGS_BYTES = 32 * 1024
ANSWERS_BYTES = 64 * 1024
TEXTS_KEPT = 16

Params = dict[str, str]
"""Of an effect: what is needed to carry it out after a restart."""

RELEASE_JOBS = "ReleaseJobs"
DELETE_JOB = "DeleteJob"


@dataclass(frozen=True)
class Waiting:
    """What the item waits for now, as its phase and its Ready condition say it."""

    phase: Phase
    reason: str
    message: str


class Draft:
    """The next status and what goes with it."""

    def __init__(self, facts: Facts) -> None:
        """Begin with the status as it was read."""
        self.facts = facts
        self.status: WorkItemStatus = facts.item.status
        self.before: list[Action] = []
        self.after: list[Action] = []
        self.requeue_seconds: float | None = None
        self.waiting: Waiting | None = None
        self.why: list[str] = []
        self.look = False
        """Whether a Decision is about a commit that only a look at the branch can tell."""
        self.merging = False
        """Whether the item stands where its pull request may be merged, now."""
        self.question: Question | None = None
        """What the forge is to be asked before the next step."""

    @property
    def now(self) -> datetime:
        """The time of the look, in whole seconds: status is then the same before and after its way through JSON."""
        return self.facts.now.replace(microsecond=0)

    @property
    def spec(self) -> PipelineSpec:
        """The Pipeline that counts; only asked for once it is known."""
        if self.facts.pipeline is None:
            raise AssertionError("asked for the Pipeline before it was found")
        return self.facts.pipeline.spec

    @property
    def has_forge(self) -> bool:
        """Whether there are pull requests and checks; a Repository that is not there may have them."""
        repository = self.facts.repository
        return repository is None or repository.spec.forge is not None

    @property
    def paths(self) -> stages.Paths:
        """The item's documents."""
        return stages.Paths(self.spec, self.facts.item)

    def set(self, **changes: Any) -> None:
        """Change fields of the status."""
        self.status = self.status.model_copy(update=changes)

    def note(self, why: str) -> None:
        """Add to the one line that says what this step is."""
        self.why.append(why)

    def wait(self, phase: Phase, reason: str, message: str) -> None:
        """Say what the item waits for."""
        self.waiting = Waiting(phase, reason, message)

    def again_in(self, delay: timedelta) -> None:
        """Look again after `delay` at the latest."""
        seconds = max(delay.total_seconds(), 0.0)
        self.requeue_seconds = seconds if self.requeue_seconds is None else min(self.requeue_seconds, seconds)

    def infrastructure_failed(self, what: str) -> str | None:
        """Count one more failure in a row and wait a while; past the limit, the sentence that says so."""
        tries = self.status.infra_retries + 1
        self.set(remote_away_since=None)
        if tries > self.spec.limits.max_infra_retries:
            self.set(next_attempt_at=None)
            return f"{what} {tries} times in a row, the last time"
        defaults = self.facts.defaults
        # Doubling is bounded before the multiplication: a hundred retries are more than a timedelta can hold.
        delay = min(defaults.infra_backoff * 2 ** min(tries - 1, 16), defaults.infra_backoff_limit)
        self.set(infra_retries=tries, next_attempt_at=self.now + delay)
        return None

    def remote_is_away(self) -> None:
        """The git server did not answer, and nothing was begun: wait as long again as it has been away.

        Only the server can mend it, and a try costs no agent: there is no number of tries after which to give up.
        """
        since, defaults = self.status.remote_away_since or self.now, self.facts.defaults
        delay = min(max(self.now - since, defaults.infra_backoff), defaults.infra_backoff_limit)
        self.set(remote_away_since=since, next_attempt_at=self.now + delay)

    def infrastructure_works(self) -> None:
        """Whatever failed before this, it does no longer."""
        self.set(infra_retries=0, remote_away_since=None, next_attempt_at=None)

    def record_gate(self, gate: GateStatus) -> None:
        """Put one gate's status in its place."""
        self.set(gates=gates.record(self.status.gates, gate))

    def record_run(self, run: FinishedRun, keep: int) -> None:
        """Append to the history, of which the last ones are kept."""
        self.set(runs=(*self.status.runs, run)[-keep:], run=None)

    def complete(self, stage: str) -> None:
        """The stage's run Succeeded: its gates decide from here on."""
        self.set(completed=(*(name for name in self.status.completed if name != stage), stage))

    def hold(self, phase: Phase, reason: str, message: str, *, stands: bool = False) -> None:
        """Wait for a person; nothing of the item's takes a place among the concurrent runs meanwhile.

        `stands`: the stage's run has done its part, and a Retry is not to repeat it.
        """
        self._stop_gate_jobs(stages.from_stage(self.spec, stages.CREATED))
        self.set(hold=HoldStatus(phase=phase, reason=reason, message=message[:4096], stands=stands))
        self.note(f"hold {reason}")

    def _stop_gate_jobs(self, names: tuple[str, ...]) -> None:
        """Nobody will ask for the results of these stages' command gates any more."""
        for gate in self.status.gates:
            if gate.stage in names:
                self.stop_gate_job(gate)

    def stop_gate_job(self, gate: GateStatus) -> None:
        """Nobody will ask for the result of this gate's Job, if it has one under way."""
        if gate.job is not None and gate.result is GateResult.PENDING:
            self.intend(f"stop-{gate.job}", DELETE_JOB, gate.job)
            self.record_gate(gate.model_copy(update={"job": None, "job_uid": None}))

    def reopen(self, stage: str, why: str, *, keep: tuple[str, str] | None = None) -> None:
        """Make `stage` current again: it and all later stages must run, and their gates are void.

        `keep` is the (stage, name) of the gate that failed: its evidence stays visible.
        """
        reopened = stages.from_stage(self.spec, stage)
        self._stop_gate_jobs(reopened)
        self.set(
            stage=stage,
            completed=tuple(name for name in self.status.completed if name not in reopened),
            gates=tuple(
                gates.void(gate, self.now, why)
                if gate.stage in reopened and (gate.stage, gate.name) != keep and gate.reason != gates.VOID
                else gate
                for gate in self.status.gates
            ),
        )

    def rework(self, gate: str) -> int:
        """Count one more send-back by `gate`; the new count."""
        counts = {entry.gate: entry.attempts for entry in self.status.rework}
        counts[gate] = counts.get(gate, 0) + 1
        self.set(rework=tuple(Rework(gate=name, attempts=count) for name, count in counts.items()))
        return counts[gate]

    def reset_counters(self) -> None:
        """A person has looked: bounded loops start again."""
        self.set(rework=())
        self.infrastructure_works()

    def rerun(self, rerun: Rerun) -> None:
        """What the next run's prompt must say about what happened before; the newest words, where they are too many."""
        self.set(
            rerun=rerun.model_copy(
                update={
                    "findings": _newest(rerun.findings, FINDINGS_BYTES),
                    "answers": _newest(rerun.answers, ANSWERS_BYTES),
                }
            )
        )

    def intend(
        self, effect_id: str, kind: str, ref: str | None = None, *, target: str = "", params: Params | None = None
    ) -> None:
        """Announce an effect, carried out after this status is written: by the loop, or (with a target) outside."""
        new = Effect(id=effect_id, kind=kind, ref=ref, target=target, params=dict(params or {}))
        self.set(effects=effects.intended(self.status.effects, new))

    def effect_done(self, effect_id: str) -> None:
        """The effect has been carried out (or will be, before this status is written)."""
        done = effects.find(self.status.effects, effect_id)
        if done is not None:
            update = {"state": "Done", "attempts": done.attempts + 1}
            self.set(effects=effects.replaced(self.status.effects, done.model_copy(update=update)))

    def drop_effect(self, effect_id: str) -> None:
        """Forget an effect: what came of it has been acted upon, and it may be intended anew."""
        self.set(effects=tuple(effect for effect in self.status.effects if effect.id != effect_id))

    def withdraw(self, *kinds: str) -> None:
        """Effects outside that wait are not to be carried out any more: those of these kinds."""
        for effect in self.status.effects:
            if effect.target and effect.state == "Intended" and effect.kind in kinds:
                update = {"state": "Failed", "reason": effects.WITHDRAWN, "next_attempt_at": None}
                self.set(effects=effects.replaced(self.status.effects, effect.model_copy(update=update)))

    def finish(self, phase: Phase, stage: str) -> None:
        """The item is over."""
        self.set(
            stage=stage,
            phase=phase,
            hold=None,
            rerun=None,
            next_attempt_at=None,
            finished_at=self.now,
        )
        self.intend("release-jobs", RELEASE_JOBS)
        self.note(f"finish {phase}")


def _newest(texts: tuple[str, ...], limit: int) -> tuple[str, ...]:
    """The last texts that fit into `limit` bytes of JSON; the last one in any case."""
    kept: list[str] = []
    for text in reversed(texts[-TEXTS_KEPT:]):
        limit -= len(json.dumps(text, ensure_ascii=False).encode(errors="replace"))
        if kept and limit < 0:
            break
        kept.append(text)
    return tuple(reversed(kept))
