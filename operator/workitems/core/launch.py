"""How an agent's program is started in its container: a Pipeline's own command, or Claude Code with all it needs.

What is decided here goes into the Job's manifest, so it is a function of what status announced: the same run always
gets the same session and the same budget. The model's key is only ever a reference to a Secret of the item's namespace.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from workitems.agents import claude_code, output
from workitems.api import Agent, CurrentRun, PipelineSpec, RunResult, WorkItemStatus
from workitems.api.agent import ClaudeCode, ModelCredentials, Output
from workitems.core import stages
from workitems.core.facts import Defaults, Facts, Problem

# What an agent's own variables are called where they say which model's API to use and with which key.
_MODEL_VARIABLES = ("ANTHROPIC_", "CLAUDE_CODE_USE_", "CLAUDE_CODE_OAUTH_")
LEAST_BUDGET = Decimal("0.01")
"""The CLI takes no budget of nothing; an item without any money left starts no run at all."""


@dataclass(frozen=True)
class Launch:
    """The agent's program. `before`: variables that the Pipeline's own may replace; `after`: those that it may not."""

    command: tuple[str, ...]
    before: tuple[dict[str, Any], ...] = ()
    after: tuple[dict[str, Any], ...] = ()
    output: Output | None = None
    sessions: bool = False
    """Whether the conversations are kept on the worktree volume."""
    instruction_files: tuple[str, ...] = ()


def of(facts: Facts, status: WorkItemStatus, run: CurrentRun, agent: Agent) -> Launch:
    """How the agent of an announced run is started."""
    settings = agent.claude_code
    if settings is None:
        return Launch(tuple(agent.command or ()), output=agent.output)
    session = claude_code.Session(
        new=claude_code.session_id(facts.uid, run.number),
        old=_earlier_session(facts.uid, status, run) if settings.resume else None,
    )
    command = claude_code.argv(settings, session, _budget(facts, status, settings))
    return Launch(
        tuple(command),
        before=_variables(claude_code.PREFERENCES),
        after=(
            *_variables(claude_code.SWITCHES),
            *claude_code.credentials_environment(credentials_of(facts.defaults, agent)),
        ),
        output="claude",
        sessions=settings.resume is True,
        instruction_files=() if settings.include_claude_md is False else (claude_code.INSTRUCTIONS_FILE,),
    )


def image_of(defaults: Defaults, agent: Agent) -> str:
    """The image of an agent's container, and of the command gates of its stages."""
    if agent.claude_code is None:
        return agent.image or defaults.agent_image
    return agent.claude_code.image or agent.image or defaults.claude_image or defaults.agent_image


def credentials_of(defaults: Defaults, agent: Agent) -> ModelCredentials | None:
    """The model's credentials of a claudeCode agent; None: it has none, or has them in its own variables."""
    if agent.claude_code is None:
        return None
    return agent.claude_code.credentials or (None if _brings_its_own(agent) else defaults.model_credentials)


def secrets(defaults: Defaults, spec: PipelineSpec) -> dict[str, tuple[str, str]]:
    """The Secrets with a model's key that a Pipeline's stages need: name -> (key in it, an agent that needs it)."""
    found: dict[str, tuple[str, str]] = {}
    # A Pipeline with mistakes is refused as a whole, by whoever starts the item.
    for stage in spec.stages if not stages.mistakes(spec) else ():
        credentials = credentials_of(defaults, stages.agent_of(spec, stage.agent))
        if credentials is not None:
            key = credentials.auth_token or credentials.api_key or claude_code.DEFAULT_KEY
            found.setdefault(credentials.secret_name, (key, stage.agent))
    return found


def problem(defaults: Defaults, spec: PipelineSpec, where: str) -> Problem | None:
    """What keeps a Pipeline's claudeCode agents from starting at all. `where`: the Pipeline, for the sentence."""
    for stage in spec.stages:
        agent = stages.agent_of(spec, stage.agent)
        if agent.claude_code is None:
            continue
        if not (agent.claude_code.image or agent.image or defaults.claude_image):
            message = (
                f"agent {stage.agent} of {where} is a claudeCode agent and has no image: set claudeCode.image, or give "
                "the operator a default (the chart's value claudeImage)"
            )
            return Problem("ClaudeImageMissing", message, blocked=True)
        if credentials_of(defaults, agent) is None and not _brings_its_own(agent):
            message = (
                f"agent {stage.agent} of {where} has no model credentials: name a Secret in "
                "claudeCode.credentials.secretName, or give the operator a default (the chart's value "
                "modelCredentials.secretName)"
            )
            return Problem("ModelCredentialsMissing", message, blocked=True)
    return None


def _brings_its_own(agent: Agent) -> bool:
    """Whether the key may come with the agent's own variables, as for a cloud provider's API; a ConfigMap has none."""
    named = any(variable.name.startswith(_MODEL_VARIABLES) for variable in agent.env or ())
    return named or any(source.secret_ref is not None for source in agent.env_from or ())


def _variables(values: dict[str, str]) -> tuple[dict[str, Any], ...]:
    return tuple({"name": name, "value": value} for name, value in values.items())


def _earlier_session(uid: str, status: WorkItemStatus, run: CurrentRun) -> str | None:
    """The conversation to go on with; None: a new one, as after a run that could not go on with the last one.

    Which one a run had is an agent's claim, and becomes an argument: only an id that was given out here counts.
    """
    given = {claude_code.session_id(uid, number) for number in range(1, run.number)}
    for entry in reversed(status.runs):
        if (entry.stage, entry.agent) != (run.stage, run.agent):
            continue
        stuck = entry.result is RunResult.FAILED and (entry.usage is None or entry.usage.turns == 0)
        if stuck or entry.reason == output.PROMPT_TOO_LONG:
            return None
        if entry.session in given:
            return entry.session
    return None


def _budget(facts: Facts, status: WorkItemStatus, settings: ClaudeCode) -> Decimal | None:
    """What the run may cost: its own limit, or what is left of the item's, whichever is less."""
    limits = [] if settings.max_budget_usd is None else [Decimal(settings.max_budget_usd)]
    whole = cost_limit(facts)
    if whole is not None:
        limits.append(max(whole - Decimal(status.usage.cost_usd), LEAST_BUDGET))
    return min(limits) if limits else None


def cost_limit(facts: Facts) -> Decimal | None:
    """The item's maxCostUSD, or the Pipeline's."""
    shared = facts.pipeline.spec.limits.max_cost_usd if facts.pipeline is not None else None
    cost = facts.item.spec.limits.max_cost_usd or shared
    return None if cost is None else Decimal(cost)
