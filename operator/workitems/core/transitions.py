"""What a step changed, as the few things that people and machines outside want to hear of.

Metrics, Events and messages all tell the same story. It is read here once, from the status before and after a write,
so that none of them needs a word in the code that decides.
"""

from __future__ import annotations

from dataclasses import dataclass

from workitems.api import CurrentRun, Effect, FinishedRun, GateStatus, Phase, WorkItemStatus


@dataclass(frozen=True)
class Transition:
    """The difference between two statuses of one item; empty fields: that did not change."""

    stage: str | None = None
    """The stage that was entered, forwards or back."""
    phase: Phase | None = None
    """The phase that was entered."""
    started: CurrentRun | None = None
    """The run, or look at the branch, that was announced."""
    finished: tuple[FinishedRun, ...] = ()
    """Runs that ended, in their order."""
    gates: tuple[GateStatus, ...] = ()
    """Gates that have another result, or the same one about something else."""
    effects: tuple[Effect, ...] = ()
    """Outside effects that are in another state."""

    def __bool__(self) -> bool:
        """Whether anything changed."""
        return self != Transition()


def between(before: WorkItemStatus, after: WorkItemStatus) -> Transition:
    """The transition that a write of `after` over `before` makes."""
    known = {run.number for run in before.runs}
    begun = after.run is not None and (before.run is None or before.run.number != after.run.number)
    gates = {(gate.stage, gate.name): (gate.result, gate.covers, gate.attempt) for gate in before.gates}
    effects = {effect.id: effect.state for effect in before.effects}
    return Transition(
        stage=after.stage if after.stage != before.stage else None,
        phase=after.phase if after.phase is not before.phase else None,
        started=after.run if begun else None,
        finished=tuple(run for run in after.runs if run.number not in known),
        gates=tuple(
            gate
            for gate in after.gates
            if gates.get((gate.stage, gate.name)) != (gate.result, gate.covers, gate.attempt)
        ),
        effects=tuple(effect for effect in after.effects if effects.get(effect.id) != effect.state),
    )
