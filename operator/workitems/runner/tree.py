"""File operations in a folder that an agent has written to, none of which leaves it or gets stuck in it.

An agent can leave symlinks that point anywhere, folders without permissions, trees deeper than any path may be
long, and pipes that block whoever opens them. Here nothing follows a symlink, nothing is opened before its kind is
known, and removal takes a tree apart level by level, by file descriptors.
"""

# Paths are bytes with descriptors beside them, which pathlib does not have.
# ruff: noqa: PTH101, PTH108, PTH118, PTH208

from __future__ import annotations

import contextlib
import dataclasses
import errno
import itertools
import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path

log = logging.getLogger("runner")

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
TRASH = ".workitem-trash-"
# git reads these whole wherever it finds them.
GIT_FILES = (b".gitignore", b".gitattributes", b".gitmodules")
GIT_FILE_BYTES = 1024 * 1024


class SymlinkError(OSError):
    """A folder on the way to a path is a symlink or no folder at all; `filename` is that path."""


@dataclasses.dataclass
class Survey:
    """What a walk over a tree found that git must not see, or does not tell about. Paths relative to the tree."""

    nested: list[bytes] = dataclasses.field(default_factory=list)
    """`.git` entries below the root."""
    removed: list[bytes] = dataclasses.field(default_factory=list)
    """Pipes, sockets, devices, absurdly large files of git's own: git would block or swell on them."""
    unreadable: list[bytes] = dataclasses.field(default_factory=list)
    """Folders that cannot be read, because the paths in them are too long."""


def write(root: Path, path: str, content: bytes) -> None:
    """Write a file below `root`, with its folders. Raises SymlinkError; a file or symlink in its place is replaced."""
    *folders, name = path.strip("/").split("/")
    with _folder(root, folders, path, create=True) as parent:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=parent)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(name, flags, 0o644, dir_fd=parent), "wb") as file:
            file.write(content)


def unlink(root: Path, path: str) -> bool:
    """Remove a file below `root`; False if there is none. Nothing behind a symlink is touched."""
    *folders, name = path.strip("/").split("/")
    try:
        with _folder(root, folders, path, create=False) as parent:
            if stat.S_ISDIR(os.lstat(name, dir_fd=parent).st_mode):
                return False
            os.unlink(name, dir_fd=parent)
    except (FileNotFoundError, SymlinkError):
        return False
    return True


def remove(root: Path, name: str | bytes) -> None:
    """Remove one entry of `root` with all that is in it, however deep and whatever its permissions."""
    name, number = os.fsencode(name), itertools.count()
    top = os.open(root, FOLDER)
    try:
        waiting = [name]
        while waiting:
            current = waiting.pop()
            mode = os.lstat(current, dir_fd=top).st_mode
            if not stat.S_ISDIR(mode):
                os.unlink(current, dir_fd=top)
                continue
            _open_up(current, mode, top)
            inside = os.open(current, FOLDER, dir_fd=top)
            try:
                for entry in map(os.fsencode, os.listdir(inside)):
                    kind = os.lstat(entry, dir_fd=inside).st_mode
                    if not stat.S_ISDIR(kind):
                        os.unlink(entry, dir_fd=inside)
                        continue
                    # Moved up instead of descended into: no recursion and no path that grows.
                    _open_up(entry, kind, inside)
                    moved = os.fsencode(f"{TRASH}{next(number)}")
                    while _exists(moved, top):
                        moved = os.fsencode(f"{TRASH}{next(number)}")
                    os.rename(entry, moved, src_dir_fd=inside, dst_dir_fd=top)
                    waiting.append(moved)
            finally:
                os.close(inside)
            os.rmdir(current, dir_fd=top)
    finally:
        os.close(top)


def clean(root: Path, files: set[bytes], links: set[bytes]) -> int:
    """Remove what the commit does not have: everything but `files` (blobs) and empty folders for `links` (gitlinks).

    Returns how many entries went. The root's own `.git` is not touched.
    """
    folders = {parent for path in itertools.chain(files, links) for parent in _parents(path)}
    removed, waiting = 0, [b""]
    while waiting:
        folder = waiting.pop()
        absolute = os.path.join(os.fsencode(root), folder)
        # The root too: where the runner came before the kubelet, it is the agent's to lock.
        _open_up(absolute, os.lstat(absolute).st_mode)
        with os.scandir(absolute) as entries:
            found = list(entries)
        for entry in found:
            path = os.path.join(folder, entry.name)
            if path == b".git":
                continue
            if entry.is_dir(follow_symlinks=False):
                if path in folders:
                    waiting.append(path)
                    continue
                if path in links:
                    _open_up(entry.path, entry.stat(follow_symlinks=False).st_mode)
                    for name in os.listdir(entry.path):
                        remove(Path(os.fsdecode(entry.path)), name)
                        removed += 1
                    continue
            elif path in files and (entry.is_symlink() or entry.is_file(follow_symlinks=False)):
                continue
            remove(Path(os.fsdecode(absolute)), entry.name)
            removed += 1
    return removed


def survey(root: Path) -> Survey:
    """Make an agent's tree readable for git: permissions restored, whatever would block or swell git taken away."""
    result, waiting = Survey(), [b""]
    while waiting:
        folder = waiting.pop()
        absolute = os.path.join(os.fsencode(root), folder)
        try:
            _open_up(absolute, os.lstat(absolute).st_mode)
            with os.scandir(absolute) as entries:
                found = list(entries)
        except OSError as error:
            if error.errno not in (errno.ENAMETOOLONG, errno.ENOENT):
                raise
            result.unreadable.append(folder)
            continue
        for entry in found:
            path = os.path.join(folder, entry.name)
            if entry.name == b".git":
                if folder:
                    result.nested.append(path)
            elif entry.is_dir(follow_symlinks=False):
                waiting.append(path)
            elif not entry.is_symlink() and not _survey_file(entry):
                result.removed.append(path)
    return result


def _survey_file(entry: os.DirEntry[bytes]) -> bool:
    """Make a file readable; False if it was none that git may open, and is gone now."""
    try:
        found = entry.stat(follow_symlinks=False)
        swollen = entry.name in GIT_FILES and found.st_size > GIT_FILE_BYTES
        if not stat.S_ISREG(found.st_mode) or swollen:
            os.unlink(entry.path)
            return False
        if not found.st_mode & stat.S_IRUSR and found.st_uid == os.geteuid():
            os.chmod(entry.path, found.st_mode | stat.S_IRUSR)
    except OSError as error:
        if error.errno not in (errno.ENAMETOOLONG, errno.ENOENT):
            raise
        # Too deep for git as well; or the agent, still ending, has taken it away.
        log.info("skipped: %s", error)
    return True


def _open_up(path: bytes, mode: int, parent: int | None = None) -> None:
    """Give ourselves a folder that its owner (our own uid, in the agent's container) has locked."""
    if mode & stat.S_IRWXU != stat.S_IRWXU:
        with contextlib.suppress(PermissionError):  # not ours: the group's rights must do
            os.chmod(path, stat.S_IMODE(mode) | stat.S_IRWXU, dir_fd=parent)


@contextlib.contextmanager
def _folder(root: Path, folders: list[str], path: str, *, create: bool) -> Iterator[int]:
    """A descriptor of the folder `folders` below `root`, reached without following any symlink."""
    descriptor = os.open(root, FOLDER)
    try:
        for name in folders:
            if name in ("", ".", "..", ".git"):
                raise SymlinkError(errno.EINVAL, "not a path inside the tree", path)
            if create:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, 0o755, dir_fd=descriptor)
            try:
                inner = os.open(name, FOLDER, dir_fd=descriptor)
            except OSError as error:
                if error.errno in (errno.ELOOP, errno.ENOTDIR):
                    raise SymlinkError(errno.ELOOP, f"{name} is a symlink or no folder", path) from error
                raise
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)


def _exists(name: bytes, folder: int) -> bool:
    try:
        os.lstat(name, dir_fd=folder)
    except FileNotFoundError:
        return False
    return True


def _parents(path: bytes) -> Iterator[bytes]:
    position = path.find(b"/")
    while position >= 0:
        yield path[:position]
        position = path.find(b"/", position + 1)
