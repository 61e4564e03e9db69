"""A WorkItem's `status`: the whole story, written by the operator alone, one guarded write a step.

Whatever an item needs to go on after a kill stands here: what is announced, under way, over, and still to be told.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from workitems.api.common import Condition, GateResult, Model, Phase, RunResult, Time, keyed
from workitems.api.decision import Acknowledgement, Action

RUNS_KEPT = 20
DECISIONS_KEPT = 50
EFFECTS_KEPT = 50
"""How many of those that are over are remembered, at most."""
EFFECTS_WAITING = 150
"""How many may wait for tracker and chats; what a channel that is away for days leaves undone beyond it is not said."""
EFFECTS_IN_ORDER = 50
"""Room for what the item itself waits for, at the forge and in the cluster: a handful, and never left out."""
MESSAGE_LIMIT = 1024

Message = Annotated[str, Field(max_length=4096)]
Commit = Annotated[str, Field(max_length=64)]


class PipelineSnapshot(Model):
    """Which Pipeline the item started with; its copy is the ControllerRevision `revision`, owned by the item."""

    name: str
    namespace: str | None = None
    generation: int = 0
    digest: str
    revision: str = ""


class Stopping(Model):
    """Why a run is being stopped before its end; it is over once its pod is gone."""

    result: RunResult
    reason: Annotated[str, Field(max_length=253)]
    message: Message


class CurrentRun(Model):
    """The run that is under way. Intended: announced, its Job may not exist yet."""

    number: int
    agent: str
    stage: str
    attempt: int
    job: str
    job_uid: Annotated[str | None, Field(alias="jobUID")] = None
    state: Literal["Intended", "Running"] = "Intended"
    started_at: Time
    kind: Literal["Agent", "Look"] = "Agent"
    stopping: Stopping | None = None


class Usage(Model):
    """What one run, or all of them, used."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    """Read from the model's prompt cache or written to it; not in inputTokens."""
    cost_usd: Annotated[str, Field(alias="costUSD", max_length=24)] = "0"
    turns: int = 0


class TotalUsage(Model):
    """Totals over all runs, the forgotten ones included."""

    runs: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    cost_usd: Annotated[str, Field(alias="costUSD", max_length=24)] = "0"
    run_seconds: int = 0


class FinishedRun(Model):
    """One run that is over."""

    number: int
    agent: str
    stage: str
    attempt: int
    job: str
    result: RunResult
    reason: Annotated[str, Field(max_length=253)] | None = None
    message: Message | None = None
    exit_code: int | None = None
    started_at: Time
    finished_at: Time
    commit: Commit | None = None
    pushed: bool = False
    diverted_to: Annotated[str, Field(max_length=255)] | None = None
    left_out: Annotated[tuple[Annotated[str, Field(max_length=255)], ...], Field(max_length=20)] = ()
    usage: Usage | None = None
    model: Annotated[str, Field(max_length=100)] | None = None
    session: Annotated[str, Field(max_length=100)] | None = None
    """The agent's own name for its conversation."""
    session_cost_usd: Annotated[str | None, Field(alias="sessionCostUSD", max_length=24)] = None
    """What that conversation had cost by then, over all the runs that went on with it."""
    denied: Annotated[tuple[Annotated[str, Field(max_length=64)], ...], Field(max_length=8)] = ()
    """Tools that the agent was refused and never got to use."""


class GateStatus(Model):
    """The newest result of one gate and the content it is about."""

    name: str
    stage: str
    result: GateResult
    reason: Annotated[str, Field(max_length=253)]
    message: Message = ""
    commit: Commit | None = None
    covers: Annotated[str, Field(max_length=128)] | None = None
    attempt: int = 0
    tries: int = 0
    since: Time
    checked_at: Time
    job: str | None = None
    job_uid: Annotated[str | None, Field(alias="jobUID")] = None


class Rework(Model):
    """How many times one gate sent the item back, since a person last reset it."""

    gate: str
    attempts: int


class PullRequestStatus(Model):
    """The pull request of the branch."""

    number: int
    url: Annotated[str, Field(max_length=2048)]
    state: Annotated[str, Field(max_length=63)]
    """open, merged or closed."""
    head: Commit | None = None
    """The commit that the forge last had for it."""
    base: Annotated[str, Field(max_length=255)] | None = None
    """The branch that it is, or was, to be merged into."""
    merge_commit: Commit | None = None
    described: Annotated[str | None, Field(max_length=63)] = None
    """Digest of what its text says about the gates."""


class DecisionRecord(Model):
    """A Decision and what became of it."""

    name: str
    # Names are reused: a Decision that was deleted and made again is another one.
    uid: str = ""
    action: Action
    by: str
    result: Acknowledgement
    reason: Annotated[str, Field(max_length=253)] = ""
    message: Message = ""
    at: Time


class Effect(Model):
    """One outside effect: written with the transition that decided it, carried out afterwards."""

    id: Annotated[str, Field(max_length=253)]
    """Unique in the item among those that wait."""
    kind: Annotated[str, Field(max_length=63)]
    state: Literal["Intended", "Done", "Unknown", "Failed"] = "Intended"
    """Unknown: it may have been carried out by a process that was stopped, and cannot be looked up."""
    target: Annotated[str, Field(max_length=63)] = ""
    """The channel: forge, tracker, notify-0, ...; empty: the cluster itself."""
    params: Annotated[dict[str, Annotated[str, Field(max_length=1024)]], Field(max_length=16)] = {}
    """What is needed to carry it out after a restart."""
    ref: Annotated[str | None, Field(max_length=2048)] = None
    """What it made, as the other side names it."""
    attempts: int = 0
    refusals: int = 0
    """How many of the attempts were answered: refused, or put off by a forge that does not know yet."""
    next_attempt_at: Time | None = None
    reason: Annotated[str | None, Field(max_length=253)] = None
    """Why it is not done, in one word; none: it has not been refused, only not been answered."""
    last_error: Message | None = None


class Document(Model):
    """One watched file at the head: its blob id, or None where it is absent."""

    path: Annotated[str, Field(max_length=512)]
    blob: Commit | None = None


class Content(Model):
    """What the newest report said about the head: enough to tell which gates still hold."""

    commit: Commit
    tree: Commit
    code: Annotated[str, Field(max_length=128)]
    documents: Annotated[tuple[Document, ...], Field(max_length=256)] = ()


class Rerun(Model):
    """Why the current stage's agent must run again, in words that reach its prompt."""

    merge_base: bool = False
    """The base branch is merged into the tree first: what conflicts is the agent's to resolve."""

    reason: Annotated[str, Field(max_length=63)]
    findings: Annotated[tuple[Annotated[str, Field(max_length=4096)], ...], Field(max_length=16)] = ()
    answers: Annotated[tuple[Annotated[str, Field(max_length=16384)], ...], Field(max_length=16)] = ()
    files: Annotated[tuple[Annotated[str, Field(max_length=512)], ...], Field(max_length=16)] = ()


class HoldStatus(Model):
    """Why the item waits for a person, and what continues it."""

    phase: Phase
    reason: Annotated[str, Field(max_length=253)]
    message: Message
    stands: bool = False
    """What has been done stands: a Retry goes on from here, without another run of the stage."""


class WorkItemStatus(Model):
    """Written by the operator alone, one guarded write a step."""

    observed_generation: int | None = None
    stage: Annotated[str, Field(max_length=63)] = "created"
    phase: Phase = Phase.PENDING
    phase_since: Time | None = None
    started_at: Time | None = None
    finished_at: Time | None = None
    waited_seconds: int = 0
    next_attempt_at: Time | None = None
    conditions: Annotated[tuple[Condition, ...], Field(max_length=16, json_schema_extra=keyed("type"))] = ()
    pipeline: PipelineSnapshot | None = None
    branch: str | None = None
    base_branch: str | None = None
    base_commit: Commit | None = None
    head: Commit | None = None
    content: Content | None = None
    last_run: int = 0
    looked_at: Time | None = None
    """When the branch was last looked at because an approval named a commit that nobody had reported."""
    run: CurrentRun | None = None
    rerun: Rerun | None = None
    hold: HoldStatus | None = None
    completed: Annotated[tuple[str, ...], Field(max_length=20)] = ()
    attempts: Annotated[dict[str, int], Field(max_length=20)] = {}
    runs: Annotated[tuple[FinishedRun, ...], Field(max_length=RUNS_KEPT, json_schema_extra=keyed("number"))] = ()
    gates: Annotated[tuple[GateStatus, ...], Field(max_length=320, json_schema_extra=keyed("stage", "name"))] = ()
    rework: Annotated[tuple[Rework, ...], Field(max_length=320)] = ()
    infra_retries: int = 0
    remote_away_since: Time | None = None
    """Since when the git server has not answered those who wanted to begin; not counted in infraRetries."""
    pull_request: PullRequestStatus | None = None
    decisions: Annotated[
        tuple[DecisionRecord, ...], Field(max_length=DECISIONS_KEPT, json_schema_extra=keyed("name", "uid"))
    ] = ()
    effects: Annotated[tuple[Effect, ...], Field(max_length=EFFECTS_KEPT + EFFECTS_WAITING + EFFECTS_IN_ORDER)] = ()
    """The outbox: written with the transition, carried out afterwards, looked up before it is repeated."""
    told: int = 0
    """How many steps have been told to the tracker and the notifiers; part of their effects' ids."""
    outbox: Literal["Pending"] | None = None
    """Pending: an effect outside the cluster waits to be carried out, even if the item is over."""
    usage: TotalUsage = TotalUsage()
