"""What a Pipeline may say about an agent: Claude Code or any other CLI, and the container that it works in."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from workitems.api.common import (
    CommitPath,
    Duration,
    Model,
    Money,
    RootFile,
    SecretKey,
    Subdomain,
    cel,
    exactly_one,
    keyed,
    rules,
    validated,
    wording,
)
from workitems.api.container import (
    EnvFrom,
    EnvVar,
    Image,
    LocalRef,
    Resources,
    ShortText,
    Toleration,
    Volume,
    VolumeMount,
)

Argv = Annotated[tuple[Annotated[str, Field(max_length=4096)], ...], Field(min_length=1, max_length=100)]
BaseURL = Annotated[
    str,
    Field(
        pattern=r"^https?://[^\s@]+$",
        max_length=2048,
        json_schema_extra=wording("write an http(s):// address without user or password"),
    ),
]


class ModelCredentials(Model):
    """The Secret with the model's key; its values reach the agent's container alone."""

    model_config = validated(
        cel("!(has(self.apiKey) && has(self.authToken))", "credentials take apiKey or authToken, not both")
    )

    secret_name: Subdomain
    api_key: SecretKey | None = None
    """Key of the Secret that holds an API key; default, without authToken: apiKey."""
    auth_token: SecretKey | None = None
    """Key of the Secret that holds a bearer token."""
    base_url: Annotated[BaseURL | None, Field(alias="baseURL")] = None
    """Address of the model's API, where it is not the vendor's own."""


Effort = Literal["low", "medium", "high", "xhigh", "max"]
Output = Literal["claude", "codex", "gemini", "opencode", "aider"]
Headers = Annotated[dict[str, Annotated[str, Field(max_length=4096)]], Field(max_length=20)]
ToolRule = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z][^\x00-\x1f\x7f]*$",
        max_length=200,
        json_schema_extra=wording("write a tool's name, with a scope where wanted, as in Read or Bash(git log:*)"),
    ),
]


class MCPServer(Model):
    """One MCP server: a program in the agent's container, or an address. `${NAME}` is a variable of the agent's."""

    model_config = validated(
        cel(exactly_one("command", "url"), "an MCP server takes exactly one of command, url"),
        cel("!has(self.url) || has(self.type)", "an MCP server with url needs type: http or sse", ".type"),
    )

    type: Literal["stdio", "http", "sse"] | None = None
    command: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    """A program of the agent's image or volumes, started in the agent's container."""
    args: Annotated[tuple[Annotated[str, Field(max_length=4096)], ...], Field(max_length=100)] | None = None
    env: Headers | None = None
    url: Annotated[str, Field(pattern=r"^https?://\S+$", max_length=2048)] | None = None
    headers: Headers | None = None


class ClaudeCode(Model):
    """Claude Code, headless. Nothing of the repository's own settings, hooks and MCP servers is obeyed."""

    tools: Annotated[tuple[ToolRule, ...], Field(min_length=1, max_length=100)] | None = None
    """All the tools that it has, each usable without asking; default: Read, Write, Edit, Bash."""
    model: ShortText | None = None
    """A name or an alias such as opus or sonnet; default: the CLI's own."""
    fallback_model: ShortText | None = None
    """Taken while the model is overloaded."""
    effort: Effort | None = None
    max_turns: Annotated[int, Field(ge=1, le=10000)] | None = None
    """A run that needs more has failed; default: no limit but timeout."""
    max_budget_usd: Annotated[Money | None, Field(alias="maxBudgetUSD")] = None
    """What one run may cost, in US dollars; what is left of the item's maxCostUSD, where that is less."""
    mcp_servers: Annotated[
        dict[str, MCPServer] | None,
        Field(
            max_length=20,
            json_schema_extra=rules(
                cel(
                    "self.all(name, name.matches('^[A-Za-z0-9_-]{1,63}$'))",
                    "an MCP server's name has at most 63 letters, digits, '_' and '-'",
                )
            ),
        ),
    ] = None
    """By name; all of a server's tools may be used without asking."""
    resume: bool | None = None
    """A further run of the same stage continues the conversation of the one before, kept on the worktree volume."""
    include_claude_md: Annotated[bool | None, Field(alias="includeClaudeMD")] = None
    """Whether the repository's CLAUDE.md, as of the base commit, is appended to the system prompt; default true."""
    credentials: ModelCredentials | None = None
    """Default: the operator's own (the chart's value modelCredentials)."""
    image: ShortText | None = None
    """Default: the agent's image, else the operator's configured Claude Code image."""


class Agent(Model):
    """One agent, or what all agents have in common (`agentDefaults`): maps merge, lists replace."""

    model_config = validated(
        cel("!(has(self.command) && has(self.claudeCode))", "an agent takes claudeCode or command, not both"),
        cel(
            "!(has(self.output) && has(self.claudeCode))",
            "output belongs to command: claudeCode has its own",
            ".output",
        ),
    )

    claude_code: ClaudeCode | None = None
    command: Argv | None = None
    """Any other CLI: program and arguments; the prompt is its stdin, exit code 0 means done."""
    output: Output | None = None
    """Whose output `command` has: it is read for what the run cost and how it ended; default: exit code alone."""
    image: Image | None = None
    """Container image; default: the operator's configured agent image."""
    system_prompt_file: RootFile | None = None
    """In the repository, read at the base commit; missing there means Blocked, never an empty prompt."""
    task_file: RootFile | None = None
    """Where the task is written in the worktree; never committed."""
    commit_paths: Annotated[tuple[CommitPath, ...], Field(min_length=1, max_length=100)] | None = None
    """What a run may commit; anything else it changed is listed in status.runs[].leftOut."""
    timeout: Duration | None = None
    """The agent is stopped after it, as in 30m; what it wrote is kept."""
    env: Annotated[tuple[EnvVar, ...], Field(max_length=100, json_schema_extra=keyed("name"))] | None = None
    """WORKITEM_* and GIT_* are the operator's own."""
    env_from: Annotated[tuple[EnvFrom, ...], Field(max_length=20)] | None = None
    resources: Resources | None = None
    """Default: requests of 100m CPU, 256Mi memory and ephemeral storage, limits of 4Gi and 20Gi."""
    node_selector: Annotated[dict[str, ShortText], Field(max_length=50)] | None = None
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=50)] | None = None
    volumes: Annotated[tuple[Volume, ...], Field(max_length=20, json_schema_extra=keyed("name"))] | None = None
    """For the agent's container alone."""
    volume_mounts: (
        Annotated[tuple[VolumeMount, ...], Field(max_length=40, json_schema_extra=keyed("mountPath"))] | None
    ) = None
    """Where the agent's container finds those volumes."""
    image_pull_secrets: Annotated[tuple[LocalRef, ...], Field(max_length=10)] | None = None
    runtime_class_name: Subdomain | None = None
    """A sandboxed runtime of the cluster (gVisor, Kata) for the agent's pods and its stage's command gates."""
    service_account_name: Subdomain | None = None
    """Its token reaches the agent's container alone, as a deployer needs; without it there is none."""
