"""Where a run's files are and how long the runner waits: the mount points, in one value that a test can move."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from workitems import protocol

TERMINATION_LOG = "/dev/termination-log"
SAFE_NAME = re.compile(r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")


@dataclasses.dataclass(frozen=True)
class Places:
    """The mount points of the pod. `allow_file` lets tests use a repository of the local disk as the remote."""

    task_file: Path = Path(protocol.TASK_FILE)
    exchange: Path = Path(protocol.EXCHANGE)
    credentials: Path = Path(protocol.CREDENTIALS)
    ca_file: Path = Path(protocol.CA_FILE)
    volume: Path = Path(protocol.VOLUME)
    report: Path = Path(TERMINATION_LOG)
    allow_file: bool = False

    def git_dir(self, task: protocol.RunTask) -> Path:
        """The bare repository: `protocol.git_dir` under this volume."""
        return self.volume / Path(protocol.git_dir(task.repository)).relative_to(protocol.VOLUME)

    def tree(self, task: protocol.RunTask) -> Path:
        """The item's worktree: `protocol.tree_dir` under this volume."""
        return self.volume / Path(protocol.tree_dir(task.repository, task.item)).relative_to(protocol.VOLUME)

    def output(self, task: protocol.RunTask) -> Path:
        """Where this run's raw output is kept: below `protocol.outputs_dir`, beside the tree."""
        folder = Path(protocol.outputs_dir(task.repository, task.item)).relative_to(protocol.VOLUME)
        return self.volume / folder / f"run-{task.run}.jsonl"

    def locks(self, task: protocol.RunTask) -> Path:
        """The folder of the lock files: beside the repository, where no agent's mount reaches."""
        return self.git_dir(task).parent


@dataclasses.dataclass(frozen=True)
class Patience:
    """How long, in seconds, before the runner gives up. The Job's own deadline stands above all of them."""

    hello: float = 900
    """For the agent's container to start: its image may be large."""
    network: float = 900
    """For one git command that talks to the remote."""
    local: float = 600
    """For one git command that does not."""
    lock: float = 900
    """For another run's fetch into the same volume."""
    fetch_retries: float = 60
    push_retries: float = protocol.PUSH_SECONDS
    first_delay: float = 1.0
    """Before the first repetition; doubled each time, up to 16 seconds."""
    output: float = 15
    """For the end of the agent's output, once its container has ended."""
    parting: float = 3
    """For the agent to end by itself, when the pod is being deleted."""
