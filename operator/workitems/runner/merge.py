"""A run that begins with the base branch merged in, because the branch no longer merges into it.

An agent cannot merge: git's own directory is read-only for it. So the two sides are merged before it starts, in a
commit that is never pushed, and what conflicts carries git's markers in the tree. What the agent leaves is committed
with both sides as parents, unless markers are still there: a conflict that nobody resolved must not look like a merge.
"""

from __future__ import annotations

import dataclasses
import logging
import os

from workitems import plain
from workitems.runner import facts, problems
from workitems.runner.git import Git

log = logging.getLogger("runner")

MARKED = (b"<<<<<<< ", b">>>>>>> ")
SEARCHED_BYTES = 16 * 1024 * 1024
NAMED = 20


@dataclasses.dataclass(frozen=True)
class Merge:
    """Both sides, merged as far as git can."""

    commit: str
    """What the run's tree is: never pushed."""
    base: str
    """The base branch's head that was merged in."""
    conflicts: tuple[bytes, ...]
    """Paths that git could not merge by itself."""


def begin(bare: Git, head: str, base: str, name: str) -> Merge | None:
    """Merge the base branch's head into `head`; None: it is in there already. Raises GitError."""
    if bare.attempt("merge-base", "--is-ancestor", base, head).code == 0:
        return None
    arguments = ("merge-tree", "--write-tree", "--no-messages", "--name-only", "-z", head, base)
    output = bare.attempt(*arguments)
    if output.code not in (0, 1):
        raise problems.GitError("merge-tree", output.code, output.stderr)
    tree, *paths = [part for part in output.stdout.split(b"\0") if part]
    who = {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in _NOBODY.items()}
    message = f"{name} merged in, before the agent\n".encode()
    made = bare.with_environment(**who).run("commit-tree", "-p", head, "-p", base, tree.decode("ascii"), stdin=message)
    log.info("%s (%s) is merged in: %d conflicts", name, base, len(paths))
    return Merge(made.text, base, tuple(dict.fromkeys(paths)))


_NOBODY = {"NAME": "workitem-runner", "EMAIL": "workitem-runner@example.com"}


def words(merge: Merge, name: str) -> bytes:
    """What the prompt says of it."""
    text = f"\n\n## {name} is merged in\n\nThe newest {name} ({merge.base}) has been merged into your working tree. "
    if not merge.conflicts:
        return f"{text}Nothing conflicts by its text: see whether it still works together.\n".encode()
    named = "".join(f"- {_shown(path)}\n" for path in merge.conflicts[:200])
    return (
        f"{text}These files conflict and carry git's markers (<<<<<<<, =======, >>>>>>>), yours above, {name}'s below. "
        f"Resolve every one and leave no marker; the merge is committed for you:\n\n{named}"
    ).encode()


def unresolved(git: Git, tree: str, merge: Merge) -> problems.RunProblemError | None:
    """Why what the agent left is no merge; None: every conflict is resolved. Raises GitError."""
    left = [path for path in merge.conflicts if _is_marked(git, tree, path)]
    if not left:
        return None
    named = ", ".join(_shown(path) for path in left[:NAMED])
    return problems.RunProblemError(
        "MergeUnresolved",
        f"conflict markers are left in {named}: resolve them (a file outside the agent's commitPaths cannot be "
        f"resolved by it), or merge by hand and push",
    )


def _is_marked(git: Git, tree: str, path: bytes) -> bool:
    blob = facts.blob_at(git, tree, os.fsdecode(path))
    if blob is None:
        return False
    lines = facts.blob_bytes(git, blob, SEARCHED_BYTES).splitlines()
    return any(line.startswith(MARKED) for line in lines)


def _shown(path: bytes) -> str:
    return plain.readable(os.fsdecode(path), 255)
