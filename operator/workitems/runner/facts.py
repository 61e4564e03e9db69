"""What a commit holds, as the operator's gates need it: read from git's objects, never from the tree.

One pass over `git ls-tree` gives the code's digest, the documents' blob ids, and what is not fetched (submodules, LFS
objects). The code's digest covers each record as git prints it, without `documents`: two commits with the same code
have the same digest, whatever was written about it.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable

from workitems.core import verdicts
from workitems.protocol import Excerpt, Hash, NotFetched, RunTask, Verdict
from workitems.runner.cache import Cache
from workitems.runner.git import Git
from workitems.runner.worktree import GITLINK, REGULAR, records

VERDICT_BYTES = 1024 * 1024
EXCERPT_BYTES = 2048
"""More than 500 characters of any language: a report takes what it has room for."""
ATTRIBUTE_FILES = 20
ATTRIBUTE_BYTES = 64 * 1024


@dataclasses.dataclass(frozen=True)
class Facts:
    """One commit, in the terms of RunReport."""

    head: Hash
    tree: Hash
    code: str
    blobs: tuple[Hash | None, ...]
    verdicts: tuple[Verdict, ...]
    excerpts: tuple[Excerpt, ...]
    not_fetched: tuple[NotFetched, ...]


def read(cache: Cache, task: RunTask, head: Hash) -> Facts:
    """Read a commit. Raises GitError."""
    git = cache.bare
    wanted = {inside(path) for path in (*task.watch, *task.verdicts, *task.excerpts)}
    documents = inside(task.documents)
    digest, found, attributes, submodules = hashlib.sha256(), dict[bytes, str](), list[str](), False
    with git.reading("ls-tree", "-r", "-z", "--full-tree", head) as stream:
        for record in records(stream):
            meta, _, path = record.partition(b"\t")
            mode, _, blob = meta.split(b" ", 2)
            if not within(path, documents):
                digest.update(record + b"\0")
            if path in wanted and mode in REGULAR:
                found[path] = blob.decode("ascii")
            if path.rpartition(b"/")[2] == b".gitattributes" and mode in REGULAR:
                attributes.append(blob.decode("ascii"))
            submodules = submodules or mode == GITLINK
    lfs = _lfs(git, attributes)
    kinds: tuple[tuple[NotFetched, bool], ...] = (("submodules", submodules), ("lfs", lfs))
    return Facts(
        head=head,
        tree=cache.tree_of(head),
        code=f"sha256:{digest.hexdigest()}",
        blobs=tuple(found.get(inside(path)) for path in task.watch),
        verdicts=tuple(
            Verdict(file=path, values=verdicts.find(blob_text(git, found[inside(path)], VERDICT_BYTES)))
            for path in task.verdicts
            if inside(path) in found
        ),
        excerpts=tuple(_excerpt(git, path, found[inside(path)]) for path in task.excerpts if inside(path) in found),
        not_fetched=tuple(kind for kind, has in kinds if has),
    )


def blob_at(git: Git, commit: str, path: str) -> str | None:
    """The id of a regular file's blob in a commit; None: absent, or something else. Raises GitError."""
    output = git.run("ls-tree", "-z", "--full-tree", commit, "--", path.strip("/")).stdout
    for record in output.split(b"\0"):
        meta, _, name = record.partition(b"\t")
        if name == inside(path) and meta.startswith(REGULAR):
            return meta.rsplit(b" ", 1)[1].decode("ascii")
    return None


def blob_bytes(git: Git, blob: str, limit: int) -> bytes:
    """At most `limit` bytes of a blob. Raises GitError."""
    with git.reading("cat-file", "blob", blob) as stream:
        return stream.read(limit)


def blob_text(git: Git, blob: str, limit: int) -> str:
    """The beginning of a blob as text; what is not UTF-8 is replaced."""
    return blob_bytes(git, blob, limit).decode(errors="replace")


def _excerpt(git: Git, path: str, blob: str) -> Excerpt:
    content = blob_bytes(git, blob, EXCERPT_BYTES + 1)
    # Half a character at its end is none.
    text = content[:EXCERPT_BYTES].decode(errors="replace").rstrip("�")
    return Excerpt(file=path, text=text, cut=len(content) > EXCERPT_BYTES or None)


def inside(path: str) -> bytes:
    """A path of a task as git has it: relative to the root, no slash at its end."""
    return path.removeprefix("./").strip("/").encode(errors="surrogateescape")


def within(path: bytes, *folders: bytes) -> bool:
    """Whether a path is one of `folders` or below it. An empty one, the root, holds nothing."""
    return any(folder and (path == folder or path.startswith(folder + b"/")) for folder in folders)


def _lfs(git: Git, attributes: Iterable[str]) -> bool:
    blobs = list(attributes)[:ATTRIBUTE_FILES]
    return any("filter=lfs" in blob_text(git, blob, ATTRIBUTE_BYTES) for blob in blobs)
