"""Makes a commit of what the agent may commit, from a tree in which everything may be a trap.

`git add` would follow the agent into traps: a folder with a `.git` becomes a gitlink, a path is a pattern. So git is
only asked what has changed, we choose, and the index is told path by path:

* Chosen: what is below commitPaths, taken literally, and not ignored by .gitignore; deletions included. Outcome files
  that the runner removed are committed as deleted wherever they are.
* A nested repository is never entered. Files that were tracked before `.git` appeared beside them stay ordinary.
* A symlink is committed as a symlink if its target lies inside the tree by its very text; nothing follows it.
* A submodule's entry never changes. Pipes, sockets and files above 100 MiB stay out.
* The task file is never committed. If the branch has a file of that name, the branch keeps its own version.

What stays out is asked from git afterwards: whatever still differs from the index.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from workitems import plain
from workitems.protocol import RunTask
from workitems.runner import merge, problems, tree
from workitems.runner.facts import inside, within
from workitems.runner.git import Git
from workitems.runner.worktree import GITLINK, Worktree

log = logging.getLogger("runner")

LARGEST_FILE_BYTES = 100 * 1024 * 1024
ATTEMPTS = 3


@dataclasses.dataclass(frozen=True)
class Committed:
    """The commit (the parent, if there was nothing to commit) and what was left out of it."""

    commit: str
    left_out: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class _Change:
    path: bytes
    gone: bool = False
    submodule: bool = False


def commit(worktree: Worktree, task: RunTask, parent: str, merged: merge.Merge | None = None) -> Committed:
    """Commit on top of `parent`, and of the base that is `merged` in. Raises RunProblemError, GitError, OSError."""
    if merged is not None and not worktree.cache.has(merged.commit):
        # Another item's run has emptied the cache. The remote gave it both sides again; it never had this commit.
        merged = merge.begin(worktree.cache.bare, parent, merged.base, task.base_branch)
    basis = merged.commit if merged is not None else parent
    surveyed = tree.survey(worktree.path)
    # A lost node leaves an object empty that was not synced, and git takes an empty one for one that is there: the same
    # content could never be pushed again.
    git = dataclasses.replace(worktree.git, where=("-c", "core.fsync=loose-object", *worktree.git.where))
    for stale in worktree.cache.admin.glob("*.lock"):
        stale.unlink()
    if not (worktree.cache.admin / "index").exists():
        git.run("read-tree", basis)
    left_out = {*surveyed.removed, *surveyed.unreadable}
    changes = list(_changes(git))
    if changes:
        stage(git, worktree.path, task, basis, changes)
        left_out |= {change.path for change in _changes(git)}
    # Where git shows the nested repository as a whole, its `.git` need not be named beside it.
    left_out |= {path for path in surveyed.nested if path.removesuffix(b".git") not in left_out}
    left_out.discard(inside(task.task_file or ""))
    written = git.run("write-tree").text
    shown = tuple(plain.readable(os.fsdecode(path), 255) for path in sorted(left_out))
    parents = ["-p", parent]
    if merged is not None:
        problem = merge.unresolved(git, written, merged)
        if problem is not None:
            raise problem
        parents += ["-p", merged.base]
    elif written == worktree.cache.tree_of(parent):
        return Committed(parent, shown)
    person = {"NAME": task.commit.name, "EMAIL": task.commit.email}
    signed = git.with_environment(
        **{f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in person.items()}
    )
    message = f"{task.agent}({task.item}): run {task.run}\n\nWorkItem: {task.uid}\nRun: {task.run}\n"
    made = signed.run("commit-tree", *parents, written, stdin=message.encode()).text
    worktree.cache.made(made, written)
    return Committed(made, shown)


def stage(git: Git, root: Path, task: RunTask, parent: str, changes: Iterable[_Change]) -> None:
    """Put everything chosen into the index."""
    task_file = inside(task.task_file or "")
    everything = any(path.strip("/") in ("", ".") for path in task.commit_paths)
    allowed = tuple(inside(path) for path in task.commit_paths)
    outcomes = {inside(path) for path in task.remove}
    gone, there = [], []
    for change in changes:
        wanted = everything or within(change.path, *allowed)
        if change.path == task_file or change.submodule or change.path.endswith(b"/"):
            continue
        if wanted and not change.gone and _may_be_committed(root, change.path):
            there.append(change.path)
        elif (wanted and change.gone) or change.path in outcomes:
            # An outcome that cannot be committed is still no longer the old one: an old APPROVED must not stay.
            gone.append(change.path)
    # Deletions first: where a folder became a symlink or a file, its place must be free.
    if gone:
        entries = (b"0 " + b"0" * 40 + b"\t" + path for path in gone)
        git.run("update-index", "-z", "--index-info", stdin=b"".join(entry + b"\0" for entry in entries))
    if there:
        _add(git, there)
        _keep_submodules(git, parent)


def _add(git: Git, paths: Sequence[bytes]) -> None:
    """Add files; where git refuses one (it changes while we look, or its name is forbidden), all but that one."""
    output = git.attempt("update-index", "-z", "--add", "--replace", "--stdin", stdin=b"\0".join(paths) + b"\0")
    if output.code == 0:
        return
    if len(paths) == 1:
        log.warning("left out: %s", problems.last_lines(output.stderr))
        if any(sign in output.stderr for sign in ("No space left", "Out of diskspace", "quota exceeded")):
            raise problems.GitError("update-index", output.code, output.stderr)
        return
    half = len(paths) // 2
    _add(git, paths[:half])
    _add(git, paths[half:])


def _keep_submodules(git: Git, parent: str) -> None:
    """Undo what turned a path into a gitlink, or a gitlink into something else, while the agent was still ending."""
    fields = git.run("diff-index", "--cached", "--raw", "-z", "--no-renames", parent).stdout.split(b"\0")
    undone = b""
    for meta, path in zip(fields[::2], fields[1::2], strict=False):
        old, new, old_id, _, _ = meta.removeprefix(b":").split(b" ")
        if GITLINK in (old, new):
            undone += old + b" " + old_id + b"\t" + path + b"\0"
    if undone:
        git.run("update-index", "-z", "--index-info", stdin=undone)


def _may_be_committed(root: Path, path: bytes) -> bool:
    absolute = os.fsencode(root) + b"/" + path
    try:
        found = os.lstat(absolute)
        if stat.S_ISLNK(found.st_mode):
            return stays_inside(os.readlink(absolute), path.count(b"/"))  # noqa: PTH115 - bytes
    except OSError as error:
        log.info("left out: %s", error)
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size <= LARGEST_FILE_BYTES


def stays_inside(target: bytes, depth: int) -> bool:
    """Whether a symlink `depth` folders below the root leads to a path inside it, and not into `.git`.

    `..` counts only at the beginning, where it climbs real folders: behind a name that is itself a symlink it could
    climb anywhere.
    """
    if not target or target.startswith(b"/"):
        return False
    parts = [part for part in target.split(b"/") if part not in (b"", b".")]
    climbs = 0
    while climbs < len(parts) and parts[climbs] == b"..":
        climbs += 1
    below = parts[climbs:]
    return climbs <= depth and b".." not in below and b".git" not in [part.lower() for part in below]


def _changes(git: Git) -> Iterator[_Change]:
    """What differs between index and tree, as git status (porcelain v2) tells it."""
    output = git.run(
        "status", "--porcelain=v2", "-z", "--untracked-files=all", "--no-renames", "--ignore-submodules=all"
    )
    for record in output.stdout.split(b"\0"):
        if record.startswith(b"? "):
            yield _Change(record[2:])
        elif record.startswith(b"1 "):
            _, state, _, *modes, _, _, path = record.split(b" ", 8)
            if state[1:] != b".":
                yield _Change(path, gone=state[1:] == b"D", submodule=GITLINK in modes)
