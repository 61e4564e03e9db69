"""What an item has on a volume that others use too, so that a shared claim does not grow with each item there was.

A file of the item's name beside the repository holds its uid, and is touched by each of its runs. Another uid there is
an item of the same name that is over: its outputs and conversations are not the new one's. A file that no run has
touched for weeks is of an item that is over or waits for a person; what it has here can be done without, as on a volume
that was lost: the tree comes from the branch again, and a conversation begins anew.

Folders are emptied and never removed, because a pod that is just starting may have mounted them.
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

from workitems.protocol import RunTask
from workitems.runner import tree
from workitems.runner.cache import Cache
from workitems.runner.places import Places

log = logging.getLogger("runner")

KEPT_SECONDS = 14 * 24 * 3600
"""Longer than any run takes: what is emptied is not in use."""
ITEMS = "items"


def settle(cache: Cache, places: Places, task: RunTask) -> None:
    """Make the volume this item's own as far as it is concerned, and drop what is long unused. Raises OSError."""
    home = places.git_dir(task).parent
    owner = home / ITEMS / task.item
    # An item's first run touches its file under the lock, so nobody empties what it is about to use.
    with cache.locked():
        owner.parent.mkdir(parents=True, exist_ok=True)
        if not owner.exists() or owner.read_text() != task.uid:
            _empty(home / "outputs" / task.item)
            _empty_each(home / "sessions" / task.item)
            # Only now: a file that a full volume or a kill left empty would make the next run a stranger here.
            owner.write_text(task.uid)
        os.utime(owner)
        for other in owner.parent.iterdir():
            if time.time() - other.stat().st_mtime > KEPT_SECONDS:
                log.info("emptying the folders of %s: no run of it has been here for two weeks", other.name)
                for folder in ("outputs", "trees"):
                    _empty(home / folder / other.name)
                _empty_each(home / "sessions" / other.name)
                other.unlink()


def _empty_each(folder: Path) -> None:
    """Empty the folders of the stages, each of which may be a mount."""
    for stage in folder.iterdir() if folder.is_dir() else ():
        _empty(stage)


def _empty(folder: Path) -> None:
    if folder.is_dir() and not folder.is_symlink():
        tree.clean(folder, set(), set())
        if (folder / ".git").is_symlink() or (folder / ".git").exists():
            tree.remove(folder, ".git")
