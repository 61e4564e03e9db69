"""Claude Code as an agent: what its Job is made of, what its ends lead to, and what it may still cost."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from syrupy.assertion import SnapshotAssertion

from tests.unit.core.test_manifests import TESTS, container, containers_of, gate_job, readable, run_job, validate
from tests.unit.core.world import DEFAULTS, End, World, one_stage
from workitems.agents import claude_code, output
from workitems.api import RUNS_KEPT
from workitems.api.agent import ModelCredentials
from workitems.core import launch
from workitems.core.facts import Defaults
from workitems.protocol import AgentEnding, RunTask

JSON = dict[str, Any]
CREDENTIALS = {"secretName": "model-key", "authToken": "token", "baseURL": "https://gateway.example.com/anthropic"}
CONFIGURED = replace(
    DEFAULTS,
    claude_image="registry.example.com/claude:1",
    model_credentials=ModelCredentials(secret_name="team-model"),
)
RICH: JSON = {
    "tools": ["Read", "Write", "Bash(git log:*)", "WebFetch", "mcp__docs__search"],
    "model": "opus",
    "fallbackModel": "sonnet",
    "effort": "high",
    "maxTurns": 60,
    "maxBudgetUSD": "5",
    "mcpServers": {
        "docs": {"type": "http", "url": "https://mcp.example.com", "headers": {"Authorization": "${TOKEN}"}}
    },
    "credentials": CREDENTIALS,
    "image": "registry.example.com/own-claude:2",
}


def world(
    settings: JSON | None = None, defaults: Defaults = CONFIGURED, limits: JSON | None = None, **agent: Any
) -> World:
    pipeline = {**one_stage(TESTS), "agents": {"coder": {"claudeCode": settings or {}, **agent}}}
    made = World(pipeline | ({"limits": limits} if limits else {}))
    made.defaults = defaults
    return made


def command(job: JSON) -> list[str]:
    """The agent's own command, without the entry before it."""
    words: list[str] = container(job, "agent")["command"]
    return words[6:]


def option(words: list[str], name: str) -> list[str]:
    """The values of an option."""
    rest = words[words.index(name) + 1 :]
    return rest[: next((n for n, word in enumerate(rest) if word.startswith("--")), len(rest))]


def said(reason: str, message: str = "as the CLI said", session: str | None = None) -> End:
    code = 0 if reason in (output.SUCCEEDED, output.TOOLS_DENIED, output.NO_WORK) else 1
    ending = AgentEnding(reason, "" if reason == output.SUCCEEDED else message, model="opus", session=session)
    return End(exit_code=code, ending=ending)


def test_the_job_of_a_claude_agent_with_all_that_it_may_say(snapshot: SnapshotAssertion) -> None:
    job = run_job(world(RICH))
    validate(job)
    assert readable(job) == snapshot


def test_the_job_of_a_claude_agent_that_says_nothing() -> None:
    job = run_job(world())
    words = command(job)
    assert container(job, "agent")["image"] == "registry.example.com/claude:1"
    assert option(words, "--tools") == ["Read,Write,Edit,Bash"]
    assert option(words, "--allowedTools") == ["Read", "Write", "Edit", "Bash"]
    assert option(words, "--setting-sources") == [""]
    assert "--strict-mcp-config" in words
    assert json.loads(option(words, "--settings")[0])["permissions"]["deny"] == ["WebFetch", "WebSearch"]
    assert not {"--model", "--effort", "--max-turns", "--max-budget-usd", "--mcp-config", "--resume"} & set(words)


def test_the_key_is_a_reference_and_in_the_agents_container_alone() -> None:
    job = run_job(world({"credentials": CREDENTIALS}))
    by_name = {c["name"]: json.dumps(c) for c in containers_of(job)}
    assert "model-key" not in by_name["runner"]
    variables = {v["name"]: v for v in container(job, "agent")["env"]}
    assert variables["ANTHROPIC_AUTH_TOKEN"]["valueFrom"] == {"secretKeyRef": {"name": "model-key", "key": "token"}}
    assert variables["ANTHROPIC_BASE_URL"]["value"] == CREDENTIALS["baseURL"]
    assert "ANTHROPIC_API_KEY" not in variables
    gate = gate_job(world({"credentials": CREDENTIALS}))
    assert "model-key" not in json.dumps(gate)
    assert container(gate, "agent")["image"] == "registry.example.com/claude:1"


def test_a_pipeline_may_set_a_preference_and_no_switch() -> None:
    own = [
        {"name": "CLAUDE_CODE_MAX_RETRIES", "value": "9"},
        {"name": "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "value": "0"},
        {"name": "ANTHROPIC_BASE_URL", "value": "http://elsewhere.example.com"},
    ]
    job = run_job(world({"credentials": CREDENTIALS}, env=own))
    # Of two variables of one name the kubelet takes the last.
    last = {v["name"]: v.get("value") for v in container(job, "agent")["env"]}
    assert last["CLAUDE_CODE_MAX_RETRIES"] == "9"
    assert last["CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC"] == "1"
    assert last["ANTHROPIC_BASE_URL"] == CREDENTIALS["baseURL"]


OWN: dict[str, tuple[JSON, bool]] = {
    "a Secret of variables": ({"envFrom": [{"secretRef": {"name": "bedrock"}}]}, True),
    "a ConfigMap of variables": ({"envFrom": [{"configMapRef": {"name": "proxies"}}]}, False),
    "a cloud provider's API": ({"env": [{"name": "CLAUDE_CODE_USE_BEDROCK", "value": "1"}]}, True),
    "something else": ({"env": [{"name": "MAKEFLAGS", "value": "-j2"}]}, False),
}


@pytest.mark.parametrize(("agent", "own"), OWN.values(), ids=OWN)
def test_an_agent_that_brings_its_own_credentials_is_not_given_the_default(agent: JSON, own: bool) -> None:
    job = run_job(world(**agent))
    given = [v["name"] for v in container(job, "agent")["env"] if v["name"].startswith("ANTHROPIC_")]
    assert given == ([] if own else ["ANTHROPIC_API_KEY"])


UNUSABLE = {
    "no image": (replace(CONFIGURED, claude_image=None), "ClaudeImageMissing", "the chart's value claudeImage"),
    "no credentials": (
        replace(CONFIGURED, model_credentials=None),
        "ModelCredentialsMissing",
        "the chart's value modelCredentials.secretName",
    ),
}


@pytest.mark.parametrize(("defaults", "reason", "name"), UNUSABLE.values(), ids=UNUSABLE)
def test_what_no_run_could_do_without_is_said_before_the_first(defaults: Defaults, reason: str, name: str) -> None:
    blocked = world(defaults=defaults)
    blocked.rest()
    assert (blocked.at, blocked.reason) == (("created", "Blocked"), reason)
    assert name in blocked.message
    assert "agent coder" in blocked.message
    blocked.defaults = CONFIGURED
    blocked.go()
    assert blocked.at == ("done", "Done")


def test_the_secrets_that_must_be_there_are_those_of_the_stages() -> None:
    made = world({"credentials": CREDENTIALS})
    run_job(made)
    spec = made.facts().pipeline
    assert spec is not None
    assert launch.secrets(CONFIGURED, spec.spec) == {"model-key": ("token", "coder")}
    plain = world()
    run_job(plain)
    view = plain.facts().pipeline
    assert view is not None
    assert launch.secrets(CONFIGURED, view.spec) == {"team-model": ("apiKey", "coder")}


@pytest.mark.parametrize("reason", sorted(output.RETRYABLE))
def test_a_model_that_fails_is_infrastructure(reason: str) -> None:
    made = world()
    run_job(made)
    made.end_run(said(reason))
    made.rest()
    assert (made.at, made.reason) == (("build", "InProgress"), "Backoff")
    run = made.status.runs[-1]
    assert (str(run.result), run.reason, run.model) == ("Lost", reason, "opus")
    assert made.status.usage.runs == 0
    made.go()
    assert made.at == ("done", "Done")


FINAL = sorted(set(output.WHAT_TO_DO) - output.RETRYABLE - {output.AGENT_ERROR, output.NO_RESULT})


def test_a_refused_key_that_an_agent_brought_itself_is_looked_for_there() -> None:
    made = world(envFrom=[{"secretRef": {"name": "bedrock"}}])
    run_job(made)
    made.end_run(said(output.KEY_REFUSED))
    made.rest()
    assert "agent coder has its key from its own env or envFrom, so it was given no other" in made.message


@pytest.mark.parametrize("reason", FINAL)
def test_an_end_that_waiting_does_not_mend_asks_a_person(reason: str) -> None:
    made = world()
    run_job(made)
    made.end_run(said(reason))
    made.rest()
    assert (made.at, made.reason) == (("build", "Blocked"), reason)
    assert "as the CLI said" in made.message
    assert "retry: {}" in made.message
    assert ("Secret team-model" in made.message) == (reason in (output.KEY_REFUSED, output.OUT_OF_CREDIT))
    assert made.status.infra_retries == 0


def test_a_result_is_believed_only_with_exit_code_0() -> None:
    made = world()
    run_job(made)
    made.end_run(End(exit_code=1, ending=AgentEnding(output.SUCCEEDED), tail="Segmentation fault"))
    made.rest()
    assert (made.at, made.reason) == (("build", "Blocked"), "AgentFailed")
    assert "exit code 1: Segmentation fault" in made.message


def test_exit_code_0_without_a_result_is_no_success() -> None:
    made = world()
    run_job(made)
    made.end_run(End(exit_code=0, ending=AgentEnding(output.NO_RESULT, "no result")))
    made.rest()
    assert (made.at, made.reason) == (("build", "Blocked"), "NoResult")


def test_what_is_left_of_the_items_money_is_the_runs_budget() -> None:
    made = world({"maxBudgetUSD": "5"}, limits={"maxCostUSD": "6"})
    assert option(command(run_job(made)), "--max-budget-usd") == ["5"]
    made.end_run(replace(said(output.MAX_TURNS), cost="4.25"))
    made.rest()
    made.say("retry")
    made.rest()
    assert option(command(made.run_job().manifest), "--max-budget-usd") == ["1.75"]
    made.end_run(replace(said(output.MAX_BUDGET), cost="1.8"))
    made.rest()
    assert made.status.usage.cost_usd == "6.05"
    made.say("retry")
    made.rest()
    assert (made.at, made.reason) == (("build", "Blocked"), "MaxCostReached")


def test_a_further_run_of_a_stage_continues_its_session_only_where_asked() -> None:
    for resume in (False, True):
        made = world({"resume": resume})
        job = run_job(made)
        first = claude_code.session_id(made.facts().uid, 1)
        assert option(command(job), "--session-id") == [first]
        mounts = {m["mountPath"]: m for m in container(job, "agent")["volumeMounts"]}
        assert ("/home/agent/.claude/projects" in mounts) == resume
        if resume:
            kept = mounts["/home/agent/.claude/projects"]
            assert (kept["name"], kept["subPath"]) == ("workitem-worktree", "shop/sessions/et-12/build")
        made.end_run(replace(said(output.MAX_TURNS, session=first), cost="0.5"))
        made.rest()
        made.say("retry")
        made.rest()
        words = command(made.run_job().manifest)
        second = claude_code.session_id(made.facts().uid, 2)
        assert ([first, second] == words[4:6]) == resume
        if not resume:
            assert option(words, "--session-id") == [second]


UID = "0d4b7b1f-6a10-4f0e-9a51-7b0f7c3e6f0e"
FIRST, LATER = claude_code.session_id(UID, 1), claude_code.session_id(UID, 3)
NO_TURN = replace(said(output.NO_RESULT), turns=0)
RESUMED: dict[str, tuple[list[End], str | None]] = {
    "the last run's": ([said(output.MAX_TURNS, session=FIRST)], FIRST),
    "that of a run whose model failed": ([said(output.OVERLOADED, session=FIRST)], FIRST),
    "that of a run before one that lost its report": (
        [said(output.MAX_TURNS, session=FIRST), End(exit_code=None, reported=False)],
        FIRST,
    ),
    "none after a run that could not begin with it": ([said(output.MAX_TURNS, session=FIRST), NO_TURN], None),
    "none either if the run after that was lost": (
        [said(output.MAX_TURNS, session=FIRST), NO_TURN, End(exit_code=None, reported=False)],
        None,
    ),
    "a new one that began after that": (
        [said(output.MAX_TURNS, session=FIRST), said(output.PROMPT_TOO_LONG), said(output.MAX_TURNS, session=LATER)],
        LATER,
    ),
    "none if it has grown too long": ([said(output.PROMPT_TOO_LONG, session=FIRST)], None),
    "none that the operator did not give out": (
        [said(output.MAX_TURNS, session="c0ffee00-3a5c-4b7e-9a53-1a2b3c4d5e6f")],
        None,
    ),
    "no option of the CLI": ([said(output.MAX_TURNS, session="--dangerously-skip-permissions")], None),
}


@pytest.mark.parametrize(("ends", "old"), RESUMED.values(), ids=RESUMED)
def test_which_conversation_a_further_run_goes_on_with(ends: list[End], old: str | None) -> None:
    made = world({"resume": True})
    run_job(made)
    for end in ends:
        made.end_run(end)
        made.rest()
        if made.reason != "Backoff":
            made.say("retry")
        made.go(until="build")
    words = command(made.run_job().manifest)
    new = claude_code.session_id(UID, len(ends) + 1)
    if old is None:
        assert option(words, "--session-id") == [new]
    else:
        assert (words[:2], words[3:6]) == (["/bin/sh", "-c"], ["claude", old, new])
    assert "--dangerously-skip-permissions" not in words


def test_a_conversation_that_goes_on_does_not_cost_twice() -> None:
    made = world({"resume": True})
    run_job(made)
    session = claude_code.session_id(made.facts().uid, 1)
    made.end_run(replace(said(output.MAX_TURNS, session=session), cost="0.5"))
    made.rest()
    made.say("retry")
    made.rest()
    # The CLI adds up what the whole conversation has cost.
    made.end_run(replace(said(output.SUCCEEDED, session=session), cost="0.8"))
    made.rest()
    assert [run.usage.cost_usd for run in made.status.runs if run.usage] == ["0.5", "0.3"]
    assert made.status.usage.cost_usd == "0.8"


@pytest.mark.slow
def test_a_long_conversation_costs_once_although_its_first_runs_are_forgotten() -> None:
    made = world({"resume": True}, limits={"maxRuns": 100})
    run_job(made)
    for number in range(1, RUNS_KEPT + 6):
        # Each run costs half a dollar; one is killed, and tells nothing.
        ended = replace(said(output.MAX_TURNS, session=FIRST), cost="0" if number == 3 else str(Decimal(number) / 2))
        made.end_run(ended)
        made.rest()
        made.say("retry")
        made.go(until="build")
    assert len(made.status.runs) == RUNS_KEPT
    assert {run.session_cost_usd for run in made.status.runs[-1:]} == {"12.5"}
    assert made.status.usage.cost_usd == "12.5"


def test_the_repositorys_instructions_join_unless_switched_off() -> None:
    for settings, files in (({}, ("CLAUDE.md",)), ({"includeClaudeMD": False}, ())):
        made = world(settings)
        run_job(made)
        task: RunTask = made.tasks[-1]
        assert (task.output, task.instruction_files) == ("claude", files)
        assert "do not try to commit" in task.system_prompt
        assert "change it: docs/. Documents of the work item belong into docs/et-12." in task.system_prompt
