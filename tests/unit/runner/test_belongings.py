"""What items leave on a volume that they share."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import Any

import pytest

from tests.unit.runner.lab import Lab
from workitems.runner.belongings import KEPT_SECONDS


def _conversation(lab: Lab, item: str = "et-12") -> Path:
    """A conversation, as an agent left it: with a folder that may not be looked into, and a way out."""
    stage = lab.places.volume / "shop/sessions" / item / "development"
    (stage / "-workspace").mkdir(parents=True)
    kept = stage / "-workspace/id.jsonl"
    kept.write_text("{}")
    (stage / "out").symlink_to("/etc")
    (stage / "shut").mkdir(mode=0o000)
    return kept


def test_a_later_item_of_the_same_name_gets_nothing_of_the_one_before(lab: Lab) -> None:
    first = lab.run(lab.task(output="claude", branch="one"), "echo secret; echo x > src/x")
    kept, output = _conversation(lab), lab.places.output(lab.task())
    assert output.read_text() == "secret\n"

    lab.run(lab.task(run=2, branch="one", expected_head=first.head), "true")
    assert kept.exists(), "its own conversation is gone"
    assert output.exists()

    second = lab.run(lab.task(uid="another", run=2, branch="two"), "true")
    assert second.problem is None
    assert not output.exists()
    assert kept.parents[1].is_dir(), "a mount point was removed"
    assert list(kept.parents[1].iterdir()) == []


def test_a_full_volume_makes_no_item_a_stranger_to_its_own(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    first = lab.run(lab.task(), "echo x > src/x")
    kept, write = _conversation(lab), Path.write_text

    def full(path: Path, *arguments: Any, **options: Any) -> int:
        if path.parent.name != "items":
            return write(path, *arguments, **options)
        path.write_bytes(b"")
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_text", full)
    lab.run(lab.task(run=2, expected_head=first.head), "true")
    monkeypatch.undo()
    lab.run(lab.task(run=3, expected_head=first.head), "true")
    assert kept.exists()


def test_what_no_run_has_touched_for_weeks_goes_and_what_is_in_use_stays(lab: Lab) -> None:
    for item in ("old", "young"):
        lab.run(lab.task(item=item, uid=item, branch=item, output="claude"), "echo said; echo x > src/x")
    kept = {item: _conversation(lab, item) for item in ("old", "young")}
    long_ago = time.time() - KEPT_SECONDS - 60
    os.utime(lab.places.volume / "shop/items/old", (long_ago, long_ago))

    lab.run(lab.task(), "true")

    assert {item: path.exists() for item, path in kept.items()} == {"old": False, "young": True}
    for item, there in (("old", False), ("young", True)):
        task = lab.task(item=item, uid=item)
        assert lab.places.output(task).exists() == there
        assert any(lab.tree(task).iterdir()) == there
        assert lab.tree(task).is_dir()

    # It comes back after all: from its branch.
    head = lab.head("old")
    report = lab.run(lab.task(item="old", uid="old", run=2, branch="old", expected_head=head), "cat src/x")
    assert report.problem is None
    assert lab.agent_log == "x\n"
