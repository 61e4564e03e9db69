"""The item's worktree: a git worktree of the cache, made by hand, because its folder may be a mount point already.

`git worktree add` refuses a folder that exists and writes paths that it finds itself. The layout is documented
(gitrepository-layout(5)): a folder `worktrees/<item>` in the repository with HEAD, commondir and gitdir, and a file
`.git` in the tree that names it. The agent may rewrite that file: the runner never reads it.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from workitems.runner import problems, tree
from workitems.runner.cache import Cache
from workitems.runner.git import CHUNK_BYTES, Git

log = logging.getLogger("runner")

GITLINK = b"160000"
REGULAR = (b"100644", b"100755")


class Worktree:
    """One item's tree, checked out from a cache."""

    def __init__(self, cache: Cache, path: Path) -> None:
        self.cache, self.path = cache, path
        self.git: Git = cache.git.at(cache.admin, path)

    def bring(self, branch: str, head: str) -> int:
        """Make the tree exactly the commit, on a local branch of that name.

        Returns how many leftovers were removed. Raises GitError if the repository cannot give the commit.
        """
        files, links = self._contents(head)
        with self.cache.locked():
            self._point(branch, head)
        self.path.mkdir(parents=True, exist_ok=True)
        removed = tree.clean(self.path, files, links)
        with contextlib.suppress(FileNotFoundError):
            # Whatever it is now, a file, a symlink or a whole repository.
            tree.remove(self.path, ".git")
        (self.path / ".git").write_text(f"gitdir: {self.cache.admin}\n", encoding="utf-8")
        try:
            self.git.run("reset", "--quiet", "--hard", head)
        except problems.GitError as error:
            if self.cache.fail(error) is not None:
                raise
            # An index that a kill has left half written: it is made from the commit again.
            log.info("the index is made anew")
            (self.cache.admin / "index").unlink(missing_ok=True)
            self.git.run("reset", "--quiet", "--hard", head)
        return removed

    def _contents(self, head: str) -> tuple[set[bytes], set[bytes]]:
        files: set[bytes] = set()
        links: set[bytes] = set()
        with self.cache.bare.reading("ls-tree", "-r", "-z", "--full-tree", head) as stream:
            for record in records(stream):
                meta, _, path = record.partition(b"\t")
                (links if meta.startswith(GITLINK) else files).add(path)
        return files, links

    def _point(self, branch: str, head: str) -> None:
        """Write the worktree's folder in the repository, and the branch that it is on."""
        admin, bare = self.cache.admin, self.cache.bare
        admin.mkdir(parents=True, exist_ok=True)
        for stale in admin.glob("*.lock"):
            stale.unlink()
        ref = f"refs/heads/{branch}"
        if not _says(self.cache.path / ref, head):
            # A branch of an item that is over may stand in the way as a folder or as a parent: the remote cannot have
            # both.
            parents = {ref.rsplit("/", count)[0] for count in range(1, branch.count("/") + 1)}
            for other in bare.run("for-each-ref", "--format=%(refname)", "refs/heads/").text.splitlines():
                if other in parents or other.startswith(f"{ref}/"):
                    bare.run("update-ref", "-d", other)
            bare.run("update-ref", ref, head)
        (admin / "commondir").write_text("../..\n", encoding="utf-8")
        (admin / "gitdir").write_text(f"{self.path}/.git\n", encoding="utf-8")
        (admin / "HEAD").write_text(f"ref: {ref}\n", encoding="utf-8")


def _says(ref: Path, head: str) -> bool:
    """Whether a branch's file has this commit already; a packed branch has no file."""
    return ref.is_file() and ref.read_bytes() == f"{head}\n".encode()


def records(stream: IO[bytes]) -> Iterator[bytes]:
    """The NUL-terminated records of a stream, one at a time."""
    rest = b""
    while block := stream.read(CHUNK_BYTES):
        *complete, rest = (rest + block).split(b"\0")
        yield from complete
