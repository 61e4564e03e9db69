"""The contract between a Job and the operator: `RunTask` goes in, `RunReport` comes out.

The task travels as one pod annotation, read by the runner as a downward-API file (never by environment or argv,
where `$(X)` would be rewritten). The report travels as the runner's termination message: at most 4,096 bytes, and
hostile input to the operator, because an agent shaped what it describes: `RunReport.strictly` reads it.

Nothing but the standard library is imported here, see `wire.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Literal

from workitems.wire import Limit, Message

REPORT_LIMIT = 4096
"""Bytes of a container's termination message (Kubernetes, terminationMessagePath)."""

ITEM_LABEL = "workitems.dev/item"
STAGE_LABEL = "workitems.dev/stage"
RUN_LABEL = "workitems.dev/run"
AGENT_LABEL = "workitems.dev/agent"
GATE_LABEL = "workitems.dev/gate"
TASK_ANNOTATION = "workitems.dev/task"

RUNNER_CONTAINER = "runner"
AGENT_CONTAINER = "agent"

# Mount points. The worktree volume is at the same path in both containers: git's files name each other absolutely.
TASK_FILE = "/workitem/task/task.json"
EXCHANGE = "/workitem/exchange"
CREDENTIALS = "/workitem/credentials"
CA_FILE = "/workitem/ca/ca.crt"
VOLUME = "/workspace"

PUSH_SECONDS = 5400
"""How long a runner waits, with an agent's work in its hands, for a git server that does not answer: nothing else in
the cluster has that work, and what it cost is more than a waiting pod."""
# What the runner leaves in EXCHANGE for the agent's entry (read-only there).
GO_FILE = "go"
STOP_FILE = "stop"
ALIVE_FIFO = "alive"
OUTPUT_FIFO = "output"
"""The agent's output on its way to the runner, where the runner reads it; absent where it does not."""
LOG_FIFO = "log"
"""The runner's readable version on its way back, to the agent's container log."""
PROMPT_FILE = "prompt.md"
SYSTEM_PROMPT_FILE = "system.md"


def git_dir(repository: str) -> str:
    """Absolute path of the bare repository on the worktree volume."""
    return f"{VOLUME}/{repository}/git"


def tree_dir(repository: str, item: str) -> str:
    """Absolute path of an item's worktree on the worktree volume."""
    return f"{VOLUME}/{repository}/trees/{item}"


def outputs_dir(repository: str, item: str) -> str:
    """Absolute path of what an item's agents printed, run by run, on the worktree volume; no agent's mount has it."""
    return f"{VOLUME}/{repository}/outputs/{item}"


def sessions_dir(repository: str, item: str, stage: str) -> str:
    """Absolute path of a stage's conversations on the worktree volume, for agents that continue them."""
    return f"{VOLUME}/{repository}/sessions/{item}/{stage}"


class RunKind(StrEnum):
    """What the Job is for."""

    AGENT = "Agent"
    GATE = "Gate"
    LOOK = "Look"


@dataclass(frozen=True)
class Author(Message):
    """Who the bot's commits are by."""

    name: str = "workitem-bot"
    email: str = "workitem-bot@example.com"


@dataclass(frozen=True)
class RunTask(Message):
    """All that a runner needs to know. Paths are relative to the repository's root."""

    kind: RunKind
    item: str
    uid: str
    run: int
    stage: str
    attempt: int
    agent: str
    repository: str
    url: str
    branch: str
    base_branch: str
    base_commit: str | None = None
    """Pinned at the item's first run; None: the runner pins it and reports it."""
    expected_head: str | None = None
    """The head that status knows; None: the branch does not exist yet, or is adopted."""
    adopt_branch: bool = False
    merge_base: bool = False
    """The base branch's head is merged in first, and the agent resolves what conflicts."""
    commit: Author = Author()
    commit_paths: tuple[str, ...] = ()
    documents: str = ""
    prompt: str = ""
    """The operator's part of the prompt; the texts of `include` follow it."""
    include: tuple[str, ...] = ()
    """Files whose text at the head is appended to the prompt, where they exist."""
    remove: tuple[str, ...] = ()
    """Outcome files of this stage, removed before the agent starts, so that an old verdict never counts."""
    system_prompt_file: str | None = None
    task_file: str | None = None
    watch: tuple[str, ...] = ()
    """Documents whose blob ids the report must carry, in this order."""
    verdicts: tuple[str, ...] = ()
    """Documents in which verdict lines are looked for."""
    excerpts: tuple[str, ...] = ()
    """Documents whose beginning the report should carry, most wanted first."""
    agent_timeout_seconds: int = 1800
    output: str | None = None
    """Whose output the agent's is: it is read for the report; None: it goes to the container's log as it is."""
    system_prompt: str = ""
    """The operator's part of the system prompt; the files follow it."""
    instruction_files: tuple[str, ...] = ()
    """Files of the base commit that are appended to the system prompt where they exist."""


@dataclass(frozen=True)
class Problem(Message):
    """Why the run could not be prepared or published; `retry` means that waiting may help."""

    reason: Annotated[str, Limit(pattern=r"^[A-Z][A-Za-z]{1,60}$")]
    message: Annotated[str, Limit(longest=1024)]
    retry: bool = False


@dataclass(frozen=True)
class Verdict(Message):
    """The distinct verdict words found in one document, in order."""

    file: Annotated[str, Limit(longest=512)]
    values: Annotated[tuple[Annotated[str, Limit(longest=63)], ...], Limit(longest=4)] = ()


@dataclass(frozen=True)
class Excerpt(Message):
    """The beginning of one document."""

    file: Annotated[str, Limit(longest=512)]
    text: Annotated[str, Limit(longest=4096)]
    cut: bool | None = None
    """Whether the document goes on; None: it does not."""


_HEX = r"^([0-9a-f]{40}|[0-9a-f]{64})$"
Hash = Annotated[str, Limit(pattern=_HEX)]


NotFetched = Literal["submodules", "lfs"]


@dataclass(frozen=True)
class Usage(Message):
    """What the agent says it used."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    cost_usd: Annotated[str, Limit(longest=24)] = "0"
    turns: int = 0


@dataclass(frozen=True)
class AgentEnding(Message):
    """How the agent's run ended, as its own output says; believed only together with its exit code."""

    reason: Annotated[str, Limit(pattern=r"^[A-Z][A-Za-z]{1,60}$")]
    message: Annotated[str, Limit(longest=512)] = ""
    model: Annotated[str, Limit(longest=100)] | None = None
    session: Annotated[str, Limit(longest=100)] | None = None
    denied: Annotated[tuple[Annotated[str, Limit(longest=64)], ...], Limit(longest=8)] = ()


@dataclass(frozen=True)
class RunReport(Message):
    """What the runner saw. `head`, `tree`, `code` and `blobs` are about the branch as the remote now has it."""

    run: int
    uid: str
    base_commit: Hash | None = None
    head: Hash | None = None
    tree: Hash | None = None
    code: Annotated[str, Limit(pattern=r"^sha256:[0-9a-f]{64}$")] | None = None
    """Digest of the tree without `documents`."""
    blobs: Annotated[tuple[Hash | None, ...], Limit(longest=256)] = ()
    """Blob ids of RunTask.watch, in its order; None: absent, or not a regular file."""
    committed: bool = False
    pushed: bool = False
    diverted_to: Annotated[str, Limit(longest=255)] | None = None
    """The branch that took the work when the lease was lost."""
    agent_started: bool = False
    left_out: Annotated[tuple[Annotated[str, Limit(longest=255)], ...], Limit(longest=20)] = ()
    left_out_total: int = 0
    verdicts: Annotated[tuple[Verdict, ...], Limit(longest=32)] = ()
    excerpts: Annotated[tuple[Excerpt, ...], Limit(longest=16)] = ()
    not_fetched: Annotated[tuple[NotFetched, ...], Limit(longest=2)] = ()
    """What the repository has at `head` and no run gets: said in a condition."""
    ending: AgentEnding | None = None
    """None: the task asked for no reading of the output."""
    usage: Usage | None = None
    problem: Problem | None = None
