"""What a Repository names outside the cluster: its forge, its tracker, the channels that its team is told by.

One key for every product: another one is a model here and a module in `workitems.integrations`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from workitems.api.common import BRANCH_PATTERN, Model, SecretRef, Subdomain, cel, exactly_one, validated, wording

WebAddress = Annotated[
    str,
    Field(
        pattern=r"^https?://[^\s@?#]+$",
        max_length=2048,
        json_schema_extra=wording("write an http(s):// address without user, password, '?' or '#'"),
    ),
]
Name = Annotated[str, Field(min_length=1, max_length=100)]
State = Annotated[str, Field(max_length=255)]


class GiteaForge(Model):
    """A repository on a Gitea or Forgejo server."""

    url: WebAddress
    owner: Name
    name: Name
    token: SecretRef
    """Needs the scope write:repository."""
    reviewers: Annotated[
        dict[str, Annotated[str, Field(min_length=1, max_length=200)]],
        Field(max_length=100),
    ] = {}
    """Whose reviews of the pull request are Decisions: login there -> the name that they decide by; none: nobody's."""

    @property
    def web_url(self) -> str:
        """Where people look at it."""
        return f"{self.url.rstrip('/')}/{self.owner}/{self.name}"


class Forge(Model):
    """The server of pull requests and checks: exactly one kind."""

    model_config = validated(cel("has(self.gitea)", "forge takes exactly one of: gitea"))

    gitea: GiteaForge | None = None

    @property
    def kind(self) -> str:
        """The key that is set, which also names its webhooks' path and secret, and its people; "": none is."""
        return next((name for name in type(self).model_fields if getattr(self, name) is not None), "")

    @property
    def chosen(self) -> GiteaForge | None:
        """What stands under that key."""
        return getattr(self, self.kind) if self.kind else None


class PlaneStates(Model):
    """Names or ids of the tracker's states; what is not named is not told."""

    in_progress: State | None = None
    in_review: State | None = None
    needs_input: State | None = None
    blocked: State | None = None
    done: State | None = None
    aborted: State | None = None
    approved: State | None = None
    """An approver who moves the issue there approves what waits for approval."""
    stages: Annotated[dict[str, State], Field(max_length=20)] = {}
    """Instead of inProgress while a stage is worked on, by the stage's name."""


class PlaneIntake(Model):
    """Which issues become WorkItems, and what these look like."""

    model_config = validated(
        cel(
            "has(self.state) || has(self.label)", "workItems takes state, label or both: an issue must have all of them"
        )
    )

    state: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    """Name or id of the state that the issue must be in."""
    label: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    """Name or id of the label that the issue must have."""
    branch: Annotated[
        str,
        Field(
            min_length=1,
            max_length=200,
            pattern=BRANCH_PATTERN,
            json_schema_extra=wording("write a branch name, with the placeholders {item}, {slug} and {sequence}"),
        ),
    ] = "feature/{item}-{slug}"
    """Of the new WorkItem. {item}: its name, as in et-12; {slug}: its title in plain letters; {sequence}: 12."""
    pipeline: Subdomain = "default"
    """Of the new WorkItem."""


class PlaneTracker(Model):
    """A project on a Plane server."""

    url: WebAddress
    workspace: Name
    project: Name
    token: SecretRef
    states: PlaneStates = PlaneStates()
    approvers: Annotated[tuple[Annotated[str, Field(max_length=254)], ...], Field(max_length=100)] = ()
    """Who may approve and reject by a comment or a move, by e-mail address or user id; none: nobody."""
    work_items: PlaneIntake | None = None
    """Which issues become WorkItems; none: no issue does."""


class Tracker(Model):
    """Where the team's issues are: exactly one kind."""

    model_config = validated(cel("has(self.plane)", "tracker takes exactly one of: plane"))

    plane: PlaneTracker | None = None


class TelegramNotifier(Model):
    """A chat of the Telegram Bot API."""

    chat_id: Annotated[
        str,
        Field(
            pattern=r"^(-?[0-9]{1,20}|@[A-Za-z0-9_]{1,64})$",
            max_length=65,
            json_schema_extra=wording('write the chat\'s number in quotes, as in "-100200300", or @channel'),
        ),
    ]
    message_thread_id: Annotated[int, Field(ge=1, le=2**53)] | None = None
    """The topic of a forum."""
    token: SecretRef
    url: WebAddress = "https://api.telegram.org"
    """Address of the Bot API."""


class AppriseNotifier(Model):
    """Any other channel, by https://github.com/caronc/apprise; the operator's image needs the extra `apprise`."""

    address: SecretRef
    """The Secret's key that holds the apprise address, which is a credential."""


NotifyEvent = Literal[
    "StageChanged", "GateFailed", "RunStarted", "RunFinished", "ApprovalWanted", "InputWanted", "Blocked", "Done"
]
QUIET: tuple[NotifyEvent, ...] = ("StageChanged", "GateFailed", "ApprovalWanted", "InputWanted", "Blocked", "Done")


class Notifier(Model):
    """One channel to tell the team: exactly one kind."""

    model_config = validated(
        cel(exactly_one("telegram", "apprise"), "a notifier takes exactly one of: telegram, apprise")
    )

    telegram: TelegramNotifier | None = None
    apprise: AppriseNotifier | None = None
    events: Annotated[tuple[NotifyEvent, ...], Field(min_length=1, max_length=8)] = QUIET
    """What is told; by default all but RunStarted and RunFinished. Done: over, aborted ones too."""


class ConfigMapName(Model):
    """A ConfigMap of the same namespace; its keys are fixed by where it is used."""

    config_map_name: Subdomain


class Messages(Model):
    """How comments and messages read."""

    language: Literal["en", "ru"] = "en"
    templates: ConfigMapName | None = None
    """Templates of your own: keys as in `comment.ApprovalWanted` and `message.Merged`, see docs/notifications.md."""
