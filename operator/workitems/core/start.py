"""The start of an item: references that must be there, the Pipeline's snapshot, the branch.

A missing reference is no failure: manifests may be applied in any order, so the item waits and goes on by itself.
"""

from __future__ import annotations

from datetime import timedelta

from workitems.api import Phase, PipelineSnapshot
from workitems.core import launch, manifests, stages
from workitems.core.draft import Draft
from workitems.core.facts import Problem
from workitems.core.plan import EnsureSnapshot

LOOK_AGAIN = timedelta(seconds=15)
"""How soon a missing reference is looked for again, should its own event be lost."""


def start(draft: Draft) -> bool:
    """Start the item; False: something is missing, and the draft says what."""
    facts = draft.facts
    if facts.item.spec.suspend:
        draft.wait(Phase.SUSPENDED, "Suspended", "spec.suspend is true: set it to false to start")
        return False
    problem = facts.problem or _unusable(draft)
    if problem is not None:
        wait_for(draft, problem)
        return False
    pipeline, repository = facts.pipeline, facts.repository
    if pipeline is None or repository is None:
        raise AssertionError("observe reports a problem where a reference is missing")
    draft.before.append(EnsureSnapshot(manifests.snapshot(facts.item, pipeline)))
    draft.set(
        stage=pipeline.spec.stages[0].name,
        started_at=draft.now,
        pipeline=PipelineSnapshot(
            name=pipeline.name,
            namespace=pipeline.namespace,
            generation=pipeline.generation,
            digest=pipeline.digest,
            revision=pipeline.revision,
        ),
        branch=stages.branch_of(facts.item),
        base_branch=facts.item.spec.base_branch or repository.spec.default_branch,
    )
    draft.note("start")
    return True


def wait_for(draft: Draft, problem: Problem) -> None:
    """Wait until a person has mended `problem`; the item goes on by itself then."""
    draft.wait(Phase.BLOCKED if problem.blocked else Phase.PENDING, problem.reason, problem.message)
    draft.again_in(LOOK_AGAIN)


def _unusable(draft: Draft) -> Problem | None:
    """What can only be found by reading the manifests together."""
    item, pipeline, repository = draft.facts.item, draft.facts.pipeline, draft.facts.repository
    if pipeline is None or repository is None:
        raise AssertionError("observe reports a problem where a reference is missing")
    base = item.spec.base_branch or repository.spec.default_branch
    if stages.branch_of(item) == base:
        message = f"branch {base} is also the base branch: create the WorkItem with another spec.branch"
        return Problem("BranchIsBase", message, blocked=True)
    mistakes = (*stages.mistakes(pipeline.spec), *draft.paths.mistakes())
    if mistakes:
        where = f"Pipeline {pipeline.namespace}/{pipeline.name}"
        return Problem("PipelineInvalid", f"{where} cannot be used: {'; '.join(mistakes)}", blocked=True)
    return launch.problem(draft.facts.defaults, pipeline.spec, f"Pipeline {pipeline.namespace}/{pipeline.name}")
