"""The demo's shop on a server that had a demo before: its feature goes, or the agents would find nothing to do."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hack.gitea.client import Repository


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout


def test_the_shop_is_made_again_what_it_was_by_a_commit_on_top(tmp_path: Path) -> None:
    server, content = tmp_path / "ada/shop.git", tmp_path / "content"
    server.mkdir(parents=True)
    _git(server, "init", "--quiet", "--bare", "--initial-branch=main")
    client: Any = SimpleNamespace(url=f"file://{tmp_path}", user="ada", password="x", token=None)
    repository = Repository(client, "ada", "shop")
    (content / "src").mkdir(parents=True)
    (content / "src/checkout.py").write_text("total = 1\n")
    desk = tmp_path / "desk"
    _git(tmp_path, "clone", "--quiet", str(server), "desk")
    for name, text in {"src/checkout.py": "total = 1 - discount\n", "src/discounts.py": "discount = 1\n"}.items():
        (desk / name).parent.mkdir(exist_ok=True)
        (desk / name).write_text(text)
    _git(desk, "add", "--all")
    who = ("-c", "user.name=Ada", "-c", "user.email=ada@example.com")
    _git(desk, *who, "commit", "--quiet", "--message", "The feature")
    _git(desk, "push", "--quiet", "origin", "HEAD:refs/heads/main")

    assert repository.restore(content, "As it was")
    assert _git(server, "ls-tree", "-r", "--name-only", "main").split() == ["src/checkout.py"]
    assert _git(server, "show", "main:src/checkout.py") == "total = 1\n"
    assert _git(server, "log", "--format=%s", "main").splitlines() == ["As it was", "The feature"]
    assert not repository.restore(content, "As it was"), "a commit without a change"
