"""After the agent: commits, pushes under a lease, and never lets a push that lost its lease lose the work.

The push says where the remote must still be (`--force-with-lease`), so two pods of one item, or a person and a pod,
cannot overwrite each other. A connection that broke may have delivered all the same: whatever the answer was, the
remote is asked where the branch is now before anything is concluded.
"""

from __future__ import annotations

import dataclasses
import logging
import time

from workitems.runner import commit, problems, remote
from workitems.runner.checkout import Session, Start, branch_gone

log = logging.getLogger("runner")

LONGEST_DELAY_WHEN_TERMINATED = 4
NOTHING = ""
"""The lease of a branch that must not exist yet."""


@dataclasses.dataclass(frozen=True)
class Published:
    """What became of the agent's work. `head`: where the remote has the branch, None if nowhere."""

    head: str | None
    committed: bool = False
    pushed: bool = False
    diverted_to: str | None = None
    left_out: tuple[str, ...] = ()
    problem: problems.RunProblemError | None = None


class _RejectedError(Exception):
    """The server said no; `stderr` says why. Caught in this module."""

    def __init__(self, stderr: str) -> None:
        super().__init__(stderr)
        self.stderr = stderr


def publish(session: Session, start: Start) -> Published:
    """Commit and push what the agent left. Problems are returned, with what was achieved before them."""
    result = Published(start.remote)
    # While this is held nobody empties the repository, which alone has the commit until it is pushed.
    with session.cache.locked("publishing", shared=True):
        try:
            made = commit.commit(session.worktree, session.task, start.head, start.merge)
        except problems.RunProblemError as error:
            return dataclasses.replace(result, problem=error)
        except problems.GitError as error:
            found = session.cache.fail(error) or problems.RunProblemError("GitFailed", str(error))
            return dataclasses.replace(result, problem=found)
        result = dataclasses.replace(result, committed=made.commit != start.head, left_out=made.left_out)
        if made.commit == start.remote:
            log.info("nothing to push")
            return result
        try:
            return _push(session, start, made.commit, result)
        except problems.RunProblemError as error:
            return dataclasses.replace(result, problem=error)


def _push(session: Session, start: Start, made: str, result: Published) -> Published:
    task = session.task
    try:
        _send(session, made, task.branch, start.remote or NOTHING)
    except _RejectedError as rejected:
        now = remote_head(session)
        if now == made:
            log.info("the remote has the commit: only its answer was lost")
        elif now == start.remote:
            raise _refused(session, rejected.stderr) from rejected
        else:
            return _lease_lost(session, made, now, result)
    return dataclasses.replace(result, head=made, pushed=True)


def _lease_lost(session: Session, made: str, now: str | None, result: Published) -> Published:
    task = session.task
    kept, branch = "", None
    problem: problems.RunProblemError
    if result.committed:
        branch = f"workitems/{task.item}/run-{task.run}"
        try:
            _send(session, made, branch, None)
        except _RejectedError as rejected:
            return dataclasses.replace(result, head=now, problem=_refused(session, rejected.stderr))
        kept = f"; this run's work is in the branch {branch}"
    if now is None:
        problem = problems.RunProblemError("BranchNotFound", branch_gone(task, made) + kept)
    else:
        sentence = f"the branch {task.branch} moved to {now[:12]} while the agent was working{kept}"
        problem = problems.RunProblemError("HeadMoved", sentence)
    return dataclasses.replace(result, head=now, diverted_to=branch, problem=problem)


def remote_head(session: Session) -> str | None:
    """Where the remote has the item's branch now. Raises RunProblemError."""
    ref = f"refs/heads/{session.task.branch}"
    output = _remotely(session, "ls-remote", "--", session.task.url, ref)
    for line in output.splitlines():
        commit_id, _, name = line.partition("\t")
        if name == ref:
            return commit_id
    return None


def _send(session: Session, made: str, branch: str, lease: str | None) -> None:
    """Push one commit to one branch. `lease` None: wherever it is. Raises _RejectedError, RunProblemError."""
    ref = f"refs/heads/{branch}"
    fence = "--force" if lease is None else f"--force-with-lease={ref}:{lease}"
    _remotely(session, "push", "--porcelain", "--no-verify", fence, "--", session.task.url, f"{made}:{ref}")


def _remotely(session: Session, *arguments: str) -> str:
    """Run a command that talks to the remote, with patience. Raises _RejectedError, RunProblemError."""
    patience, termination = session.patience, session.termination

    def once() -> str:
        try:
            output = session.cache.bare.attempt(*arguments, seconds=patience.network)
        except problems.GitTimeoutError as error:
            raise problems.RunProblemError("RemoteUnreachable", str(error), retry=True) from error
        if output.code == 0:
            return output.text
        # In --porcelain each reference that the server did not move is a line that starts with an exclamation mark.
        if any(line.startswith("!") for line in output.text.splitlines()):
            raise _RejectedError(f"{output.stderr}\n{output.text}")
        failed = problems.GitError(arguments[0], output.code, output.stderr)
        raise session.cache.fail(failed) or problems.RunProblemError("GitFailed", str(failed))

    def sleep(seconds: float) -> bool:
        if not termination.requested:
            termination.sleep(seconds)
            return False
        # A deleted pod has its grace period, so the push is worth a few more attempts.
        if seconds > LONGEST_DELAY_WHEN_TERMINATED:
            return True
        time.sleep(seconds)
        return False

    return remote.persist(once, patience.push_retries, patience.first_delay, sleep)


def _refused(session: Session, stderr: str) -> problems.RunProblemError:
    said = problems.remote_lines(stderr) or problems.last_lines(
        "\n".join(line for line in stderr.splitlines() if line.startswith("!"))
    )
    return problems.RunProblemError(
        "PushRefused",
        f"{session.task.url} refused the push to {session.task.branch} (a hook or a protected branch): {said}",
    )
