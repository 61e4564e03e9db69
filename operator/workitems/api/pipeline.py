"""`Pipeline`: agents, stages, gates and limits as data, so that a team's way of working is a manifest, not code."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from workitems.api.agent import Agent, Argv, ClaudeCode
from workitems.api.common import (
    DNS_LABEL,
    INSIDE,
    Duration,
    Label,
    Model,
    Money,
    ObjectMeta,
    RepositoryPath,
    cel,
    exactly_one,
    keyed,
    rules,
    validated,
    wording,
)
from workitems.api.container import Image, Resources, ShortText

Hold = Literal["NeedsInput", "Blocked"]
Word = Annotated[str, Field(min_length=1, max_length=63)]


class Outcome(Model):
    """What a failure leads to. In a list the first entry that applies is taken."""

    model_config = validated(
        cel("has(self.sendBackTo) || has(self.hold)", "an outcome needs sendBackTo, hold, or both"),
        cel("!has(self.maxAttempts) || has(self.sendBackTo)", "maxAttempts belongs to sendBackTo: add sendBackTo"),
        cel(
            "!(has(self.sendBackTo) && has(self.hold) && self.hold == 'NeedsInput')",
            "sendBackTo goes with hold: Blocked, not NeedsInput",
            ".hold",
        ),
    )

    when_file: RepositoryPath | None = None
    """The entry applies only if this file exists; relative to documents, a leading / means the repository's root."""
    send_back_to: Label | None = None
    """The item continues at this stage, the failing one or an earlier one."""
    max_attempts: Annotated[int, Field(ge=1, le=100)] | None = None
    """How often that stage runs at most in this gate's loop, the first run included; then hold: Blocked."""
    hold: Hold | None = None
    """The item waits for a person: for an Answer (NeedsInput), or for a Retry or SendBack (Blocked)."""


class VerdictGate(Model):
    """A word that the agent wrote in a document: front matter `verdict: X` or a line `Verdict: X`."""

    model_config = validated(
        cel("!self.pass.exists(word, word in self.fail)", "the same word is in pass and in fail", ".fail")
    )

    file: RepositoryPath
    """Relative to documents; a leading / means the repository's root."""
    pass_: Annotated[tuple[Word, ...], Field(alias="pass", min_length=1, max_length=20)]
    fail: Annotated[tuple[Word, ...], Field(min_length=1, max_length=20)]


class ApprovalGate(Model):
    """A person's Decision bound to the documents that were read."""


class CIGate(Model):
    """The combined commit status of the head, from the forge."""

    when_absent: Literal["Skip", "Wait", "Fail"] = "Wait"
    """What no commit status at all means; Skip: only if none ever shows up within 2m."""
    timeout: Duration = "60m"
    contexts: Annotated[tuple[ShortText, ...], Field(max_length=100)] = ()
    """The checks that count; none named: all of them."""


class CommandGate(Model):
    """A program that is run on a fresh checkout of the head commit, without any secret."""

    run: Argv
    timeout: Duration = "15m"
    image: Image | None = None
    """Default: the image of the stage's agent."""
    resources: Resources | None = None


class Gate(Model):
    """One check at a stage's end: exactly one of files/absent, verdict, approval, ci, command."""

    model_config = validated(
        cel(
            f"(has(self.files) || has(self.absent) ? 1 : 0) + {exactly_one('verdict', 'approval', 'ci', 'command')}",
            "a gate takes exactly one of files/absent, verdict, approval, ci, command",
        )
    )

    name: Label
    files: Annotated[tuple[RepositoryPath, ...], Field(min_length=1, max_length=32)] | None = None
    """Must exist; relative to documents, a leading / means the repository's root."""
    absent: Annotated[tuple[RepositoryPath, ...], Field(min_length=1, max_length=32)] | None = None
    """Must not exist; may go together with files."""
    verdict: VerdictGate | None = None
    approval: ApprovalGate | None = None
    ci: CIGate | None = None
    command: CommandGate | None = None
    on_failure: Annotated[tuple[Outcome, ...], Field(max_length=8)] = ()
    """The first entry that applies decides; none: hold Blocked."""


class StagePullRequest(Model):
    """The pull request to ensure after the stage's push, where the Repository has a forge."""

    title: Annotated[str, Field(min_length=1, max_length=255)]


class Merge(Model):
    """How the pull request is merged at the stage's end, where the Repository has a forge."""

    method: Literal["merge", "squash", "rebase", "fast-forward-only"] = "merge"
    update_branch: Literal["Never", "Rebase", "Merge"] = "Never"
    """How the base's new commits come into the branch where the merge needs them there: fast-forward-only, or a base
    that is protected against branches out of date. The gates are looked at again afterwards."""
    delete_branch: bool = False
    """The branch goes with the merge."""
    on_conflict: Annotated[tuple[Outcome, ...], Field(max_length=8)] = ()
    """What a branch that does not merge into its base leads to, as onFailure of a gate; none: hold Blocked."""


class Stage(Model):
    """One agent's part of the work and the gates that judge it."""

    model_config = validated(
        cel("self.name != 'created' && self.name != 'done'", "stage names created and done are reserved", ".name")
    )

    name: Annotated[str, Field(pattern=DNS_LABEL, min_length=1, max_length=40)]
    agent: Label
    """One of spec.agents."""
    gates: Annotated[tuple[Gate, ...], Field(max_length=16, json_schema_extra=keyed("name"))] = ()
    """All are evaluated and shown; the first failed one decides what happens."""
    pull_request: StagePullRequest | None = None
    merge: Merge | None = None
    """The last stage's alone: what a later one commits would not be merged."""
    on_run_failure: Annotated[tuple[Outcome, ...], Field(max_length=8)] = ()
    """What a run that did not succeed leads to; none: hold Blocked."""


class PipelineLimits(Model):
    """Limits of one item, and of all items of this Pipeline at once."""

    max_concurrent_runs: Annotated[int, Field(ge=1, le=1000)] = 10
    """Of all items of this Pipeline together; the others wait as Queued."""
    max_runs: Annotated[int, Field(ge=1, le=1000)] = 30
    """Of one item, in all stages together."""
    max_infra_retries: Annotated[int, Field(ge=0, le=100)] = 3
    """Consecutive runs lost to evictions, lost nodes and the like before the item is Blocked."""
    max_cost_usd: Annotated[Money | None, Field(alias="maxCostUSD")] = None
    """Of one item, in US dollars."""
    max_duration: Duration | None = None
    """Of one item, the waits for people left out."""


# The list around the list of names binds it: written out at each use it would exceed the API server's budget.
_NAMES = "[self.stages.map(t, t.name)]"
_EARLIER = "!has(o.sendBackTo) || (o.sendBackTo in names && names.indexOf(o.sendBackTo) <= names.indexOf(s.name))"


class PipelineSpec(Model):
    """The way from created to done."""

    model_config = validated(
        cel(
            "self.stages.all(s, s.agent in self.agents)",
            "every stage's agent must be one of spec.agents",
            ".stages",
        ),
        cel(
            f"{_NAMES}.all(names, self.stages.all(s, s.gates.all(g, g.onFailure.all(o, {_EARLIER}))))",
            "sendBackTo in a gate's onFailure must name the gate's own stage or an earlier one",
            ".stages",
        ),
        cel(
            f"{_NAMES}.all(names, self.stages.all(s, s.onRunFailure.all(o, {_EARLIER})))",
            "sendBackTo in a stage's onRunFailure must name the stage itself or an earlier one",
            ".stages",
        ),
        cel(
            f"{_NAMES}.all(names, self.stages.all(s, !has(s.merge) || s.merge.onConflict.all(o, {_EARLIER})))",
            "sendBackTo in a merge's onConflict must name the merge's own stage or an earlier one",
            ".stages",
        ),
        cel(
            f"{_NAMES}.all(names, self.stages.all(s, !has(s.merge) || names.indexOf(s.name) == size(names) - 1))",
            "merge belongs to the last stage: what a later one commits would not be merged",
            ".stages",
        ),
    )

    documents: Annotated[
        str,
        Field(
            pattern=r"^[^/\\\x00-\x1f\x7f]+(/[^/\\\x00-\x1f\x7f]+)*$",
            max_length=200,
            json_schema_extra=wording("write a folder relative to the repository's root, without '/' at either end")
            | rules(
                cel(
                    INSIDE,
                    "documents must lie inside the repository and out of .git: no part may be '.', '..' or '.git'",
                )
            ),
        ),
    ] = "docs/work-items/{item}"
    """Folder of an item's documents; file names in gates are relative to it."""
    limits: PipelineLimits = PipelineLimits()
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=31_536_000)] = 604_800
    """Jobs, pods and their logs go that long after the item's end."""
    queue_name: Label | None = None
    """Kueue's queue-name label on every Job."""
    agent_defaults: Agent = Agent()
    """What every agent has unless it says otherwise: maps merge, lists replace, command displaces claudeCode."""
    agents: Annotated[
        dict[str, Agent],
        Field(
            min_length=1,
            max_length=32,
            json_schema_extra=rules(
                cel(
                    "self.all(name, name.size() <= 63 && name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$'))",
                    "an agent's name is a DNS label: at most 63 lower-case letters, digits and '-'",
                )
            ),
        ),
    ]
    """The agents by name."""
    stages: Annotated[tuple[Stage, ...], Field(min_length=1, max_length=20, json_schema_extra=keyed("name"))]
    """In order: the item starts at the first and is done after the last."""


class Pipeline(Model):
    """A way of working: the agents, the stages they work in, the gates that judge them, the limits."""

    metadata: ObjectMeta
    spec: PipelineSpec

    @classmethod
    def parse(cls, body: dict[str, Any]) -> Pipeline:
        """Read an object of the API server. Raises pydantic.ValidationError."""
        return cls.model_validate(body)


__all__ = ["Agent", "ClaudeCode", "Gate", "Merge", "Outcome", "Pipeline", "PipelineLimits", "PipelineSpec", "Stage"]
