"""The forge of the tests is a real one: what others build on is checked here once."""

from __future__ import annotations

import pathlib

import pytest

from hack.gitea import local
from hack.gitea.client import BOT_SCOPES, Client
from hack.gitea.errors import GiteaError
from hack.gitserver import bundle


@pytest.fixture(scope="module")
def owner(gitea: local.Server) -> Client:
    return gitea.admin.create_user("shopkeeper").with_token("all")


def test_a_token_of_minimal_scope_pushes_opens_and_merges_and_cannot_more(
    gitea: local.Server, owner: Client, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "README.md").write_text("A shop.\n")
    shop = owner.create_repository("shop", tmp_path)
    bot = gitea.admin.create_user("bot").with_token(*BOT_SCOPES)
    shop.invite("bot")

    mine = shop.by(bot)
    head = mine.commit("feature", "src/code.txt", "ten percent\n")
    assert mine.head("feature") == head
    assert mine.has("feature")
    assert not mine.has("feat")
    number = mine.open_pull_request("feature")["number"]
    mine.report(head, "build", "success")
    mine.merge(number)

    assert [pull["merged"] for pull in shop.pull_requests()] == [True]
    assert shop.files() == {"README.md", "src/code.txt"}
    assert shop.read("src/code.txt") == "ten percent\n"
    with pytest.raises(GiteaError, match="403"):
        bot.ask("GET", "/user")
    with pytest.raises(GiteaError, match="403"):
        mine.ask("POST", f"/issues/{number}/comments", {"body": "Done."})
    with pytest.raises(GiteaError, match="403"):
        bot.ask("POST", "/admin/users", {"username": "x", "email": "x@gitea.example", "password": "y"})


def test_it_never_writes_to_its_configuration_which_is_read_only_in_a_pod(gitea: local.Server) -> None:
    text = (gitea.folder / "app.ini").read_text()
    gitea.restart()
    assert (gitea.folder / "app.ini").read_text() == text
    assert "JWT_SECRET" in text


def test_stopped_or_killed_in_the_middle_it_comes_back_with_everything(
    gitea: local.Server, owner: Client, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "README.md").write_text("A shop.\n")
    shop = owner.create_repository("durable", bundle.bundle(tmp_path))
    gitea.stop()
    with pytest.raises(GiteaError, match="no answer"):
        shop.head()
    gitea.start()
    head = shop.head()
    gitea.kill()
    gitea.start()
    assert shop.head() == head


def test_git_pushes_over_http_and_a_bad_token_is_refused(owner: Client, tmp_path: pathlib.Path) -> None:
    shop = owner.create_repository("pushed")
    shop.git(tmp_path, "clone", "--quiet", shop.url, "clone")
    clone = tmp_path / "clone"
    (clone / "file").write_text("text\n")
    shop.git(clone, "add", "file")
    shop.git(clone, "commit", "--quiet", "--message=One file")
    shop.git(clone, "push", "--quiet", "origin", "HEAD:by-git")
    assert shop.subjects("by-git")[0] == "One file"

    stranger = shop.by(Client(owner.url, owner.user, token="0" * 40))
    with pytest.raises(GiteaError, match="could not read Username"):
        stranger.git(tmp_path, "clone", "--quiet", shop.url, "again")


def test_statuses_protection_and_webhooks_are_kept_as_given(owner: Client) -> None:
    shop = owner.create_repository("ruled")
    head = shop.head()
    for number in range(56):
        shop.report(head, f"check-{number}", "failure" if number == 55 else "success")
    assert len(shop.all(f"/commits/{head}/statuses")) == 56
    shop.protect(required_approvals=1)
    assert [rule["required_approvals"] for rule in shop.ask("GET", "/branch_protections")] == [1]
    config = {"url": "http://127.0.0.1:9/hooks", "content_type": "json", "secret": "s"}
    shop.ask("POST", "/hooks", {"type": "gitea", "config": config, "events": ["push"], "active": True})
    assert [hook["config"]["url"] for hook in shop.webhooks()] == ["http://127.0.0.1:9/hooks"]
