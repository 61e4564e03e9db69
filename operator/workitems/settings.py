"""What the deployment decides: one object, read once from the environment, and nowhere else.

Every variable is `WORKITEMS_` + the field's name in capitals (`workers` is WORKITEMS_WORKERS); the field's
description is its documentation. A value that cannot be used is refused at the start, naming the variable, so that
an operator never runs half configured.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from workitems import errors
from workitems.api.agent import BaseURL, ModelCredentials
from workitems.api.common import Label, SecretKey, Subdomain
from workitems.core.resources import RUNNER_MEBIBYTES

PREFIX = "WORKITEMS_"


def _names(value: Any) -> Any:
    """Names from `a, b`: the form that is easy to write in a manifest's env."""
    return tuple(name.strip() for name in value.split(",") if name.strip()) if isinstance(value, str) else value


def _omittable(value: Any) -> Any:
    """None from an empty string: an environment variable cannot say "nothing" in another way."""
    return None if value == "" else value


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _more_than_it_asks_for(limit: str) -> str:
    """A pod whose limit is below its request would be refused, run after run."""
    if limit.endswith("Mi") and int(limit.removesuffix("Mi")) < RUNNER_MEBIBYTES:
        raise ValueError(f"{RUNNER_MEBIBYTES}Mi at least, which the runner requests")
    return limit


Names = Annotated[tuple[Label, ...], NoDecode, BeforeValidator(_names)]
Image = Annotated[str, Field(min_length=1, max_length=500, pattern=r"^\S+$")]
OptionalText = Annotated[str | None, BeforeValidator(_omittable)]
OptionalId = Annotated[Annotated[int, Field(ge=1, le=2**31 - 1)] | None, BeforeValidator(_omittable)]
OptionalPort = Annotated[Annotated[int, Field(ge=1, le=65535)] | None, BeforeValidator(_omittable)]
OptionalAddress = Annotated[
    Annotated[str, Field(pattern=r"^https?://[^\s@?#]+$", max_length=500)] | None, BeforeValidator(_omittable)
]
Memory = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,6}(Mi|Gi)$"), AfterValidator(_more_than_it_asks_for)]
Seconds = Annotated[float, Field(gt=0, le=86400)]


class Settings(BaseSettings):
    """The operator's configuration. Durations are seconds; ids and paths are omitted by an empty string."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    namespace: Label = Field(
        description="WORKITEMS_NAMESPACE: the operator's own namespace; Pipelines that an item's namespace lacks are "
        "looked for here."
    )
    watch_namespaces: Names = Field(
        default=(), description="WORKITEMS_WATCH_NAMESPACES: comma-separated namespaces to serve; empty: all."
    )
    kubeconfig: OptionalText = Field(
        default=None, description="WORKITEMS_KUBECONFIG: path of a kubeconfig; empty: the pod's own service account."
    )
    context: OptionalText = Field(
        default=None, description="WORKITEMS_CONTEXT: the kubeconfig's context; empty: its current-context."
    )

    runner_image: Image = Field(
        description="WORKITEMS_RUNNER_IMAGE: the image of the runner container, in general the operator's own."
    )
    agent_image: Image = Field(
        description="WORKITEMS_AGENT_IMAGE: the image of an agent whose Pipeline and Repository name none."
    )
    claude_image: Annotated[Image | None, BeforeValidator(_omittable)] = Field(
        default=None,
        description="WORKITEMS_CLAUDE_IMAGE: the image, with the CLI, of claudeCode agents whose Pipeline names none.",
    )
    model_secret: Annotated[Subdomain | None, BeforeValidator(_omittable)] = Field(
        default=None,
        description="WORKITEMS_MODEL_SECRET: the Secret with the model's key for claudeCode agents that name none, "
        "looked for in the item's own namespace: the operator copies no Secret.",
    )
    model_api_key: Annotated[SecretKey | None, BeforeValidator(_omittable)] = Field(
        default=None, description="WORKITEMS_MODEL_API_KEY: the key in it that holds an API key; empty: apiKey."
    )
    model_auth_token: Annotated[SecretKey | None, BeforeValidator(_omittable)] = Field(
        default=None,
        description="WORKITEMS_MODEL_AUTH_TOKEN: the key in it that holds a bearer token, in place of an API key.",
    )
    model_base_url: Annotated[BaseURL | None, BeforeValidator(_omittable)] = Field(
        default=None, description="WORKITEMS_MODEL_BASE_URL: the address of the model's API; empty: the vendor's own."
    )
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field(
        default="IfNotPresent", description="WORKITEMS_IMAGE_PULL_POLICY: of both containers of a run."
    )
    run_uid: OptionalId = Field(
        default=1000,
        description="WORKITEMS_RUN_UID: the user of both containers; empty: the platform assigns it (OpenShift).",
    )
    run_gid: OptionalId = Field(
        default=1000, description="WORKITEMS_RUN_GID: their group; empty: see WORKITEMS_RUN_UID."
    )
    fs_group: OptionalId = Field(
        default=1000, description="WORKITEMS_FS_GROUP: the volumes' group; empty: see WORKITEMS_RUN_UID."
    )

    runner_memory: Memory = Field(
        default="1Gi",
        description="WORKITEMS_RUNNER_MEMORY: the memory limit of the runner container, where git works, in Mi or Gi; "
        "64Mi at least.",
    )

    default_pipeline: OptionalText = Field(
        default=None,
        description="WORKITEMS_DEFAULT_PIPELINE: a file with a Pipeline that is applied in the operator's namespace at "
        "the start, unless somebody has edited it there; empty: none.",
    )
    lease: Annotated[Label | None, BeforeValidator(_omittable)] = Field(
        default=None,
        description="WORKITEMS_LEASE: the Lease in the operator's namespace that one of several operators holds while "
        "the others stand by; empty: there is only one.",
    )
    identity: OptionalText = Field(
        default=None,
        description="WORKITEMS_IDENTITY: the pod's name, which holds the Lease; empty: the host's, in no pod.",
    )
    sweep_seconds: Seconds = Field(
        default=180, description="WORKITEMS_SWEEP_SECONDS: how often every item is looked at, even without an event."
    )
    tracker_poll_seconds: Seconds = Field(
        default=45,
        description="WORKITEMS_TRACKER_POLL_SECONDS: how often trackers are looked at, for what webhooks did not tell.",
    )
    workers: int = Field(
        default=8, ge=1, le=64, description="WORKITEMS_WORKERS: how many items are reconciled at the same time."
    )
    infra_backoff_seconds: Seconds = Field(
        default=10,
        description="WORKITEMS_INFRA_BACKOFF_SECONDS: the first wait before a run lost to infrastructure is repeated.",
    )
    connect_timeout_seconds: Seconds = Field(
        default=5, description="WORKITEMS_CONNECT_TIMEOUT_SECONDS: for a connection to the API server."
    )
    request_timeout_seconds: Seconds = Field(
        default=30, description="WORKITEMS_REQUEST_TIMEOUT_SECONDS: for a whole request to the API server."
    )

    log_format: Annotated[Literal["json", "text"], BeforeValidator(_lower)] = Field(
        default="json", description="WORKITEMS_LOG_FORMAT: json, or text for people."
    )
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)] = Field(
        default="info", description="WORKITEMS_LOG_LEVEL: debug, info, warning or error."
    )
    webhook_port: OptionalPort = Field(
        default=None, description="WORKITEMS_WEBHOOK_PORT: where webhooks are received; empty: nowhere."
    )
    webhook_url: OptionalAddress = Field(
        default=None,
        description="WORKITEMS_WEBHOOK_URL: the address by which forges reach that port, as in "
        "https://workitems.example.com; needed by Repositories with webhooks.manage alone.",
    )

    health_port: int = Field(
        default=8080,
        ge=1,
        le=65535,
        description="WORKITEMS_HEALTH_PORT: where /healthz, /readyz and /metrics are served.",
    )

    @property
    def model_credentials(self) -> ModelCredentials | None:
        """The model's credentials for claudeCode agents that name none."""
        if self.model_secret is None:
            return None
        return ModelCredentials(
            secret_name=self.model_secret,
            api_key=self.model_api_key,
            auth_token=self.model_auth_token,
            base_url=self.model_base_url,
        )


def load() -> Settings:
    """Settings from the environment. Raises errors.Invalid that names every unusable variable."""
    try:
        return Settings()
    except ValidationError as error:
        # The values are left out on purpose: what is wrong in an environment may be a misplaced credential.
        problems = "; ".join(
            f"{PREFIX}{str(problem['loc'][0]).upper()}: {problem['msg']}"
            for problem in error.errors(include_input=False)
        )
        raise errors.Invalid("InvalidSettings", f"The environment cannot be used: {problems}") from None
