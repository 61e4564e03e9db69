"""The bare repository on the worktree volume: a cache of the remote that heals itself.

Several runners may use one volume (a shared claim, ReadWriteMany), and any of them may be killed at any moment. So:

* What changes shared files (fetch, gc, refs) holds the lock `cache`. Whoever holds it knows that every `*.lock` file
  and half-written pack outside `worktrees/` was left by the dead, and removes it.
* A repository that git cannot use is emptied and fetched anew, once. Other items' folders under `worktrees/` stay:
  what their HEADs name is on the remote and comes back with the fetch. The lock `publishing` keeps that from
  happening while another runner holds commits that are not pushed yet.
* The folder itself is a mount point: its contents change, it never does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

from workitems.protocol import RunTask
from workitems.runner import problems, tree
from workitems.runner.git import Git
from workitems.runner.places import Patience, Places
from workitems.runner.remote import described

log = logging.getLogger("runner")

WORKTREES = "worktrees"
REMOTE_HEADS = "refs/remotes/origin"
CACHE, PUBLISHING = "cache", "publishing"

LOOSE_OBJECTS, PACKS = 6700, 50
"""Git's own thresholds for packing."""

# Unspecified for every path, above whatever the tree's own .gitattributes say: contents go in and out byte for
# byte. `diff` stays: an agent wants readable diffs, and a driver runs only where configuration names one.
ATTRIBUTES = "* !text !eol !crlf !ident !filter !working-tree-encoding\n"


@dataclasses.dataclass(frozen=True)
class Branches:
    """Where the remote has the item's branch and its base; None: no such branch."""

    branch: str | None
    base: str | None


class Cache:
    """The repository's cache, for one run's task."""

    def __init__(self, git: Git, places: Places, task: RunTask, patience: Patience) -> None:
        self.path = places.git_dir(task)
        self.admin = self.path / WORKTREES / task.item
        self.git = git
        self.bare = git.at(self.path)
        self._task, self._patience = task, patience
        self._locks = places.locks(task)
        self._remote = described(places, task.url)
        self._trees: dict[str, str] = {}

    @contextlib.contextmanager
    def locked(self, name: str = CACHE, *, shared: bool = False) -> Iterator[None]:
        """Hold a lock of the volume. Raises RunProblemError after `patience.lock` seconds."""
        self._locks.mkdir(parents=True, exist_ok=True)
        path = self._locks / f"{name}.lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            started = time.monotonic()
            while not _taken(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX):
                if time.monotonic() - started > self._patience.lock:
                    raise problems.RunProblemError(
                        "VolumeBusy",
                        f"another run has held {path} for {self._patience.lock:.0f} s: see which pods use this volume",
                        retry=True,
                    )
                time.sleep(0.1)
            yield
        finally:
            os.close(descriptor)

    def refresh(self) -> Branches:
        """Fetch all branches and tags. Raises RunProblemError where the remote, or the volume's space, is at fault."""
        try:
            with self.locked():
                self._remove_remains()
                self._fetch()
                return self._branches()
        except problems.GitError as error:
            return self.mend(error)

    def mend(self, error: problems.GitError) -> Branches:
        """Renew where neither remote nor volume is at fault: something here is damaged. Raises RunProblemError."""
        problem = self.fail(error)
        if problem is not None:
            raise problem from error
        log.warning("the cache is not usable, it is fetched anew: %s", error)
        return self.renew()

    def renew(self) -> Branches:
        """Empty the repository and fetch everything again. Raises RunProblemError."""
        self._trees.clear()
        with self.locked(PUBLISHING), self.locked():
            try:
                for entry in sorted(self.path.iterdir()):
                    if entry.name != WORKTREES:
                        tree.remove(self.path, entry.name)
                if self.admin.exists():
                    tree.remove(self.admin.parent, self.admin.name)
                self._fetch()
                return self._branches()
            except problems.GitError as error:
                raise self.fail(error) or problems.RunProblemError("GitFailed", str(error)) from error

    def fetch_commit(self, commit: str) -> bool:
        """Ask the remote for a commit that no branch leads to any more; False if it does not give it away."""
        if self.has(commit):
            return True
        with self.locked():
            self.bare.attempt("fetch", "--quiet", "--no-tags", "--", self._task.url, commit, seconds=self._seconds)
        return self.has(commit)

    def has(self, commit: str) -> bool:
        """Whether the commit is here."""
        return commit in self._trees or self.bare.attempt("cat-file", "-e", f"{commit}^{{commit}}").code == 0

    def tree_of(self, commit: str) -> str:
        """The id of a commit's tree. Raises GitError where the commit is not here."""
        if commit not in self._trees:
            self._trees[commit] = self.bare.run("rev-parse", "--verify", f"{commit}^{{tree}}").text
        return self._trees[commit]

    def made(self, commit: str, tree_id: str) -> None:
        """A commit of ours: nobody need ask for it."""
        self._trees[commit] = tree_id

    def tidy(self) -> None:
        """Pack what years of runs have left loose. It only saves space, so its failure is no problem of the run."""
        if not self._untidy():
            return
        with self.locked():
            try:
                # SETTINGS switches it off for every other command.
                self.bare.run("-c", f"gc.auto={LOOSE_OBJECTS}", "gc", "--auto", "--quiet")
            except problems.GitError as error:
                log.warning("not tidied: %s", error)

    def fail(self, error: problems.GitError) -> problems.RunProblemError | None:
        """The problem of the remote or of the volume that a failed command speaks of."""
        return problems.classify(error.stderr, self._remote)

    def _untidy(self) -> bool:
        """What `gc --auto` looks at first, without a process for it: one of 256 folders, and the number of packs."""
        objects = self.path / "objects"
        sample, packs = objects / "17", objects / "pack"
        loose = sum(1 for _ in sample.iterdir()) if sample.is_dir() else 0
        return loose > LOOSE_OBJECTS / 256 or sum(1 for _ in packs.glob("*.pack")) > PACKS

    @property
    def _seconds(self) -> float:
        return self._patience.network

    def _fetch(self) -> None:
        # The last thing that is written says that all before it is there; before that it is safe to begin again.
        attributes = self.path / "info" / "attributes"
        if not attributes.is_file() or attributes.read_bytes() != ATTRIBUTES.encode():
            self.path.mkdir(parents=True, exist_ok=True)
            self.git.run("init", "--quiet", "--bare", "--template=", "--", str(self.path))
            attributes.parent.mkdir(exist_ok=True)
            attributes.write_text(ATTRIBUTES, encoding="utf-8")
        refspecs = (f"+refs/heads/*:{REMOTE_HEADS}/*", "+refs/tags/*:refs/tags/*")
        options = ("--quiet", "--prune", "--no-tags", "--no-write-fetch-head", "--no-auto-gc")
        try:
            self.bare.run("fetch", *options, "--", self._task.url, *refspecs, seconds=self._seconds)
        except problems.GitTimeoutError as error:
            message = f"{self._task.url} did not deliver within {self._seconds:.0f} s"
            raise problems.RunProblemError("RemoteUnreachable", message, retry=True) from error

    def _branches(self) -> Branches:
        names = [f"{REMOTE_HEADS}/{branch}" for branch in (self._task.branch, self._task.base_branch)]
        lines = self.bare.run("for-each-ref", "--format=%(objectname) %(tree) %(refname)", *names).text.splitlines()
        records = [line.split(" ", 2) for line in lines]
        self._trees.update({commit: tree_id for commit, tree_id, _ in records})
        found = {name: commit for commit, _, name in records}
        return Branches(found.get(names[0]), found.get(names[1]))

    def _remove_remains(self) -> None:
        if not self.path.is_dir():
            return
        for name in ("commondir", "index"):
            for file in self.path.glob(f"{WORKTREES}/*/{name}"):
                # A full volume or a lost node left it: with it git neither fetches nor packs, for any item. Without, it
                # does.
                if file.stat().st_size == 0:
                    log.info("removing %s, which is empty", file)
                    file.unlink()
        for folder, folders, files in os.walk(self.path):
            if folder == str(self.path) and WORKTREES in folders:
                folders.remove(WORKTREES)
            packs = folder.endswith("/objects/pack")
            for name in files:
                # A .keep protects a pack while it is being received; one left behind would keep it for ever.
                # `.tmp-` is what gc has packed and not named yet: git itself never removes one.
                unfinished = name.startswith(("tmp_", ".tmp-")) or name.endswith(".keep")
                if name.endswith(".lock") or (packs and unfinished):
                    log.info("removing %s, left by a run that was killed", name)
                    Path(folder, name).unlink(missing_ok=True)


def _taken(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
