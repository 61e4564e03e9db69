"""`Pipeline`: agents, stages, gates and limits as data, so that a team's way of working is a manifest, not code."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from workitems.api.common import (
    Duration,
    Label,
    Model,
    Money,
    ObjectMeta,
    RepositoryPath,
    SecretKey,
    Subdomain,
    cel,
    rules,
)


def _config(*entries: dict[str, str]) -> ConfigDict:
    return ConfigDict(
        alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore", json_schema_extra=rules(*entries)
    )


ShortText = Annotated[str, Field(max_length=255)]
EnvName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=253)]
MountPath = Annotated[str, Field(pattern=r"^/[^:\x00-\x1f]*$", max_length=1024)]
Argv = Annotated[tuple[Annotated[str, Field(max_length=4096)], ...], Field(min_length=1, max_length=100)]
JSONObject = dict[str, Any]


class KeySelector(Model):
    """`secretKeyRef` or `configMapKeyRef` of core/v1."""

    name: Subdomain
    key: SecretKey
    optional: bool | None = None


class EnvValueFrom(Model):
    """Where a variable's value comes from."""

    model_config = _config(
        cel(
            "has(self.secretKeyRef) != has(self.configMapKeyRef)",
            "valueFrom takes exactly one of secretKeyRef, configMapKeyRef",
        )
    )

    secret_key_ref: KeySelector | None = None
    config_map_key_ref: KeySelector | None = None


class EnvVar(Model):
    """One environment variable of the agent's container."""

    model_config = _config(
        cel("!(has(self.value) && has(self.valueFrom))", "give value or valueFrom, not both"),
        cel(
            "!self.name.startsWith('WORKITEM_') && !self.name.startsWith('GIT_')",
            "WORKITEM_* and GIT_* are set by the operator",
        ),
    )

    name: EnvName
    value: Annotated[str, Field(max_length=32768)] | None = None
    value_from: EnvValueFrom | None = None


class LocalRef(Model):
    """A Secret or ConfigMap of the same namespace by name."""

    name: Subdomain
    optional: bool | None = None


class EnvFrom(Model):
    """All keys of a Secret or ConfigMap as variables."""

    model_config = _config(
        cel("has(self.secretRef) != has(self.configMapRef)", "envFrom takes exactly one of secretRef, configMapRef")
    )

    prefix: EnvName | None = None
    secret_ref: LocalRef | None = None
    config_map_ref: LocalRef | None = None


class Volume(Model):
    """A volume for the agent: only kinds that the restricted Pod Security level allows; never hostPath."""

    model_config = _config(
        cel(
            "(has(self.configMap) ? 1 : 0) + (has(self.secret) ? 1 : 0) + (has(self.emptyDir) ? 1 : 0) + (has(self.persistentVolumeClaim) ? 1 : 0) == 1",
            "a volume takes exactly one of configMap, secret, emptyDir, persistentVolumeClaim",
        ),
        cel("!self.name.startsWith('workitem-')", "volume names that start with workitem- belong to the operator"),
    )

    name: Label
    config_map: JSONObject | None = None
    secret: JSONObject | None = None
    empty_dir: JSONObject | None = None
    persistent_volume_claim: JSONObject | None = None


class VolumeMount(Model):
    """Where the agent finds a volume."""

    name: Label
    mount_path: MountPath
    sub_path: Annotated[str, Field(max_length=1024)] | None = None
    read_only: bool | None = None


class Resources(Model):
    """Requests and limits by resource name."""

    requests: Annotated[dict[str, Annotated[str, Field(max_length=32)]], Field(max_length=20)] | None = None
    limits: Annotated[dict[str, Annotated[str, Field(max_length=32)]], Field(max_length=20)] | None = None


class Toleration(Model):
    """A toleration of core/v1."""

    key: ShortText | None = None
    operator: Literal["Exists", "Equal"] | None = None
    value: ShortText | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: int | None = None


class ModelCredentials(Model):
    """The Secret with the model's key; its values reach the agent's container alone."""

    secret_name: Subdomain
    api_key: SecretKey | None = None
    auth_token: SecretKey | None = None
    base_url: Annotated[
        Annotated[str, Field(pattern=r"^https?://[^\s@]+$", max_length=2048)] | None, Field(alias="baseURL")
    ] = None


class ClaudeCode(Model):
    """Claude Code, headless."""

    tools: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=200)], ...], Field(max_length=100)] | None = (
        None
    )
    model: ShortText | None = None
    fallback_model: ShortText | None = None
    max_turns: Annotated[int, Field(ge=1, le=10000)] | None = None
    max_budget_usd: Annotated[Money | None, Field(alias="maxBudgetUSD")] = None
    credentials: ModelCredentials | None = None
    image: ShortText | None = None


class Agent(Model):
    """One agent, or what all agents have in common (`agentDefaults`): maps merge, lists replace."""

    model_config = _config(
        cel("!(has(self.command) && has(self.claudeCode))", "an agent takes claudeCode or command, not both")
    )

    claude_code: ClaudeCode | None = None
    command: Argv | None = None
    image: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    system_prompt_file: RepositoryPath | None = None
    task_file: RepositoryPath | None = None
    commit_paths: Annotated[tuple[RepositoryPath, ...], Field(min_length=1, max_length=100)] | None = None
    timeout: Duration | None = None
    env: Annotated[tuple[EnvVar, ...], Field(max_length=100)] | None = None
    env_from: Annotated[tuple[EnvFrom, ...], Field(max_length=20)] | None = None
    resources: Resources | None = None
    node_selector: Annotated[dict[str, ShortText], Field(max_length=50)] | None = None
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=50)] | None = None
    volumes: Annotated[tuple[Volume, ...], Field(max_length=20)] | None = None
    volume_mounts: Annotated[tuple[VolumeMount, ...], Field(max_length=40)] | None = None
    image_pull_secrets: Annotated[tuple[LocalRef, ...], Field(max_length=10)] | None = None
    service_account_name: Subdomain | None = None


Hold = Literal["NeedsInput", "Blocked"]


class Outcome(Model):
    """What a failure leads to. In a list the first entry that applies is taken."""

    model_config = _config(
        cel("has(self.sendBackTo) || has(self.hold)", "an outcome needs sendBackTo, hold, or both"),
        cel("!has(self.maxAttempts) || has(self.sendBackTo)", "maxAttempts belongs to sendBackTo"),
        cel(
            "!(has(self.sendBackTo) && has(self.hold) && self.hold == 'NeedsInput')",
            "sendBackTo goes with hold: Blocked, not NeedsInput",
        ),
    )

    when_file: RepositoryPath | None = None
    send_back_to: Label | None = None
    max_attempts: Annotated[int, Field(ge=1, le=100)] | None = None
    hold: Hold | None = None


class VerdictGate(Model):
    """A word that the agent wrote in a document: front matter `verdict: X` or a line `Verdict: X`."""

    file: RepositoryPath
    pass_: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=63)], ...], Field(alias="pass", min_length=1, max_length=20)
    ]
    fail: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=63)], ...], Field(min_length=1, max_length=20)]


class ApprovalGate(Model):
    """A person's Decision bound to the documents that were read."""


class CIGate(Model):
    """The combined commit status of the head, from the forge."""

    when_absent: Literal["Skip", "Wait", "Fail"] = "Wait"
    timeout: Duration = "60m"
    contexts: Annotated[tuple[ShortText, ...], Field(max_length=100)] = ()


class CommandGate(Model):
    """A program that is run on a fresh checkout of the head commit, without any secret."""

    run: Argv
    timeout: Duration = "15m"
    image: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    resources: Resources | None = None


class Gate(Model):
    """One check at a stage's end: exactly one of files/absent, verdict, approval, ci, command."""

    model_config = _config(
        cel(
            "(has(self.files) || has(self.absent) ? 1 : 0) + (has(self.verdict) ? 1 : 0) + (has(self.approval) ? 1 : 0)"
            " + (has(self.ci) ? 1 : 0) + (has(self.command) ? 1 : 0) == 1",
            "a gate takes exactly one of files/absent, verdict, approval, ci, command",
        )
    )

    name: Label
    files: Annotated[tuple[RepositoryPath, ...], Field(min_length=1, max_length=32)] | None = None
    absent: Annotated[tuple[RepositoryPath, ...], Field(min_length=1, max_length=32)] | None = None
    verdict: VerdictGate | None = None
    approval: ApprovalGate | None = None
    ci: CIGate | None = None
    command: CommandGate | None = None
    on_failure: Annotated[tuple[Outcome, ...], Field(max_length=8)] = ()


class StagePullRequest(Model):
    """The pull request to ensure after the stage's push, where the Repository has a forge."""

    title: Annotated[str, Field(min_length=1, max_length=255)]


class Merge(Model):
    """How the pull request is merged at the stage's end, where the Repository has a forge."""

    method: Literal["merge", "squash", "rebase", "fast-forward-only"] = "merge"


class Stage(Model):
    """One agent's part of the work and the gates that judge it."""

    model_config = _config(
        cel("self.name != 'created' && self.name != 'done'", "stage names created and done are reserved")
    )

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", min_length=1, max_length=40)]
    agent: Label
    gates: Annotated[tuple[Gate, ...], Field(max_length=16)] = ()
    pull_request: StagePullRequest | None = None
    merge: Merge | None = None
    on_run_failure: Annotated[tuple[Outcome, ...], Field(max_length=8)] = ()


class PipelineLimits(Model):
    """Limits of one item, and of all items of this Pipeline at once."""

    max_concurrent_runs: Annotated[int, Field(ge=1, le=1000)] = 10
    max_runs: Annotated[int, Field(ge=1, le=1000)] = 30
    max_infra_retries: Annotated[int, Field(ge=0, le=100)] = 3
    max_cost_usd: Annotated[Money | None, Field(alias="maxCostUSD")] = None
    max_duration: Duration | None = None


class PipelineSpec(Model):
    """The way from created to done."""

    model_config = _config(
        cel(
            "self.stages.all(s, self.stages.exists_one(t, t.name == s.name))",
            "stage names must be unique",
        ),
    )

    documents: Annotated[str, Field(pattern=r"^[^/\\\x00-\x1f][^\\\x00-\x1f]*$", max_length=200)] = (
        "docs/work-items/{item}"
    )
    limits: PipelineLimits = PipelineLimits()
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=31_536_000)] = 604_800
    queue_name: Label | None = None
    agent_defaults: Agent = Agent()
    agents: Annotated[dict[str, Agent], Field(min_length=1, max_length=32)]
    stages: Annotated[tuple[Stage, ...], Field(min_length=1, max_length=20)]


class Pipeline(Model):
    """A Pipeline, as the API server stores it."""

    metadata: ObjectMeta
    spec: PipelineSpec

    @classmethod
    def parse(cls, body: dict[str, Any]) -> Pipeline:
        """Read an object of the API server. Raises pydantic.ValidationError."""
        return cls.model_validate(body)


__all__ = ["Agent", "Gate", "Merge", "Outcome", "Pipeline", "PipelineLimits", "PipelineSpec", "Stage"]
