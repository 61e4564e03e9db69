"""The client against a real Gitea: every trap that was measured there, and some that the code only suspects."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sqlite3
import subprocess
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from hack.gitea import local
from hack.gitea.client import BOT_SCOPES, Client, Repository
from workitems import errors
from workitems.api import Effect, WorkItem
from workitems.core import pull_requests
from workitems.core.forge import MergeResult
from workitems.forge_effects import COMMITS_NAMED, ForgeEffects, _lacking
from workitems.integrations.gitea import Gitea
from workitems.integrations.gitea_api import Place
from workitems.integrations.http import Access, Connections
from workitems.integrations.http import Client as HTTPClient

_numbers = itertools.count(1)


class Recording(Connections):
    """Remembers what the server decided."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[tuple[str, str, int]] = []
        """Method, path below /api/v1 and code, in order."""

    async def send(self, access: Access, method: str, url: str, **arguments: Any) -> tuple[int, httpx.Headers, bytes]:
        code, headers, body = await super().send(access, method, url, **arguments)
        self.answers.append((method, url.removeprefix(f"{access.base_url}/api/v1"), code))
        return code, headers, body


@dataclass
class Shop:
    """One repository of a test's own, and the operator's client of it."""

    server: local.Server
    owner: Client
    repository: Repository
    """As its owner sees it: a person."""
    bot: Client
    forge: Gitea
    connections: Recording

    def codes(self, method: str, path: str) -> list[int]:
        """What the server has answered to our requests so far."""
        wanted = (method, f"/repos/{self.repository.owner}/{self.repository.name}{path}")
        return [code for asked, where, code in self.connections.answers if (asked, where) == wanted]

    async def mergeable(self, number: int) -> None:
        """Wait until the server has looked for conflicts."""
        for _ in range(200):
            if (await self.forge.get(number)).mergeable:
                return
            await asyncio.sleep(0.1)
        raise AssertionError(f"pull request {number} is not mergeable")

    def client(self, token: str, name: str = "") -> Gitea:
        access = Access(self.server.url, {"Authorization": f"token {token}"}, (token,))
        place = Place(self.repository.owner, name or self.repository.name, "Secret shop-gitea (key token)")
        return Gitea(HTTPClient(self.connections, access), place)

    def work(self, branch: str = "feature/x", text: str = "ten percent\n", path: str = "src/code.txt") -> str:
        """One more commit of the bot's on a branch; its id."""
        return self.repository.by(self.bot).commit(branch, path, text)

    async def proposed(self, branch: str = "feature/x", **work: str) -> tuple[int, str]:
        """A branch with a commit and a pull request; number and head."""
        head = self.work(branch, **work)
        return (await self.forge.ensure(branch, "main", title="Discounts", body="By run 3.")).number, head


@pytest.fixture(scope="module")
def people(gitea: local.Server) -> tuple[Client, Client]:
    """A person and the bot."""
    owner = gitea.admin.create_user("forge-owner").with_token("all")
    return owner, gitea.admin.create_user("forge-bot").with_token(*BOT_SCOPES)


@pytest.fixture
async def shop(gitea: local.Server, people: tuple[Client, Client]) -> AsyncIterator[Shop]:
    owner, bot = people
    repository = owner.create_repository(f"shop-{next(_numbers)}")
    repository.invite(bot.user)
    connections = Recording()
    result = Shop(gitea, owner, repository, bot, None, connections)  # type: ignore[arg-type]  # made in the next line
    result.forge = result.client(bot.token)
    yield result
    await connections.close()


# --- pull requests


async def test_a_pull_request_is_opened_once_and_kept_right(shop: Shop) -> None:
    assert await shop.forge.find("feature/x", "main") is None
    head = shop.work()
    made = await shop.forge.ensure("feature/x", "main", title="Discounts", body="One.\nTwo.")
    assert (made.state, made.head, made.base, made.merge_commit) == ("open", head, "main", None)
    assert made.url == f"{shop.server.url}/{shop.repository.owner}/{shop.repository.name}/pulls/{made.number}"
    again = await shop.forge.ensure("feature/x", "main", title="Discounts", body="One.\nThree.")
    assert again.number == made.number
    [pull] = shop.repository.pull_requests()
    assert (pull["title"], pull["body"]) == ("Discounts", "One.\nThree.")
    await shop.forge.ensure("feature/x", "main", title="Discounts", body="One.\nThree.")
    [same] = shop.repository.pull_requests()
    assert same["updated_at"] == pull["updated_at"]
    assert await shop.forge.find("feature/x", "main") == made
    assert (await shop.forge.get(made.number)).mergeable in (True, None)


async def test_of_two_open_pull_requests_the_right_one_is_chosen(shop: Shop) -> None:
    # Gitea ignores `head=` and lists both; the other one is newer, and comes first.
    mine, _ = await shop.proposed("feature/et-1", path="a.txt")
    other, _ = await shop.proposed("feature/et-10", path="b.txt")
    assert mine != other
    for branch, number in (("feature/et-1", mine), ("feature/et-10", other)):
        found = await shop.forge.find(branch, "main")
        assert found is not None
        assert found.number == number
    assert await shop.forge.find("feature/et", "main") is None
    assert await shop.forge.find("feature/et-1", "release") is None


async def test_a_forks_branch_of_the_same_name_is_not_ours(shop: Shop) -> None:
    stranger = shop.server.admin.create_user(f"stranger-{next(_numbers)}").with_token("all")
    shop.repository.ask("PATCH", "", {"private": False})
    stranger.ask("POST", f"/repos/{shop.repository.owner}/{shop.repository.name}/forks", {"name": "fork"})
    stranger.repository(stranger.user, "fork").commit("feature/x", "evil.txt", "x")
    theirs = stranger.ask(
        "POST",
        f"/repos/{shop.repository.owner}/{shop.repository.name}/pulls",
        {"head": f"{stranger.user}:feature/x", "base": "main", "title": "Mine"},
    )
    assert await shop.forge.find("feature/x", "main") is None
    number, _ = await shop.proposed()
    assert number != theirs["number"]


async def test_a_repository_that_was_made_anew_under_its_name_is_another_one(shop: Shop) -> None:
    """As where a server is set up again: the address is the same, and the id is not."""
    await shop.proposed()
    shop.repository.ask("DELETE")
    shop.repository = shop.owner.create_repository(shop.repository.name)
    shop.repository.invite(shop.bot.user)
    number, _ = await shop.proposed()
    found = await shop.forge.find("feature/x", "main")
    assert found is not None
    assert (found.number, found.state) == (number, "open")
    assert (await shop.proposed(text="more\n"))[0] == number


async def test_a_branch_name_that_was_used_before_gets_a_pull_request_of_its_own(shop: Shop) -> None:
    first, head = await shop.proposed()
    assert (
        await shop.forge.merge(first, head, "merge", delete_branch=True, patient=False)
    ).result is MergeResult.MERGED
    assert await shop.forge.head("feature/x") is None
    wait_until_deleted(shop, "feature/x")
    old = await shop.forge.find("feature/x", "main")
    assert old is not None
    assert (old.number, old.state, old.head) == (first, "merged", head)
    second, _ = await shop.proposed(text="twenty percent\n")
    assert second != first
    found = await shop.forge.find("feature/x", "main")
    assert found is not None
    assert (found.number, found.state) == (second, "open")


def wait_until_deleted(shop: Shop, branch: str) -> None:
    """Until Gitea is through with it: late, it closes what is open of the branch, be it the next one of that name."""
    wanted = ("delete_branch", f"refs/heads/{branch}")
    deadline = time.monotonic() + 60
    while wanted not in [(act["op_type"], act["ref_name"]) for act in shop.repository.all("/activities/feeds")]:
        assert time.monotonic() < deadline, f"the deletion of {branch} is not in Gitea's feed"
        time.sleep(0.2)
    # The feed is written first, by the same turn of its queue.
    shop.server.flush()


async def test_a_closed_pull_request_is_reported_and_a_new_one_is_not_the_old(shop: Shop) -> None:
    number, head = await shop.proposed()
    await shop.forge.close(number)
    await shop.forge.close(number)
    found = await shop.forge.find("feature/x", "main")
    assert found is not None
    assert (found.number, found.state) == (number, "closed")
    outcome = await shop.forge.merge(number, head, "merge", delete_branch=False, patient=False)
    assert (outcome.result, outcome.message) == (MergeResult.REFUSED, f"pull request {number} is closed")


async def test_closing_a_merged_one_leaves_it_merged(shop: Shop) -> None:
    number, _ = await shop.proposed()
    shop.repository.merge(number)
    await shop.forge.close(number)
    assert (await shop.forge.get(number)).state == "merged"


async def test_no_pull_request_without_a_commit(shop: Shop) -> None:
    shop.repository.create_branch("feature/x")
    assert await shop.forge.ahead("main", "feature/x") == 0
    with pytest.raises(errors.Permanent, match="has no commit that main has not") as caught:
        await shop.forge.ensure("feature/x", "main", title="T", body="")
    assert caught.value.reason == "NoCommits"
    assert shop.repository.pull_requests() == []


async def test_no_pull_request_without_the_branch(shop: Shop) -> None:
    with pytest.raises(errors.Permanent) as caught:
        await shop.forge.ensure("feature/none", "main", title="T", body="")
    assert caught.value.reason == "BranchNotFound"


async def test_no_pull_request_without_the_base(shop: Shop) -> None:
    """Gitea answers 500, which is no outage here."""
    shop.work()
    with pytest.raises(errors.Permanent, match="neither a branch nor a commit release/9") as caught:
        await shop.forge.ensure("feature/x", "release/9", title="T", body="B")
    assert caught.value.reason == "BranchNotFound"
    assert 500 in shop.codes("GET", "/commits")


async def test_two_at_once_open_one_pull_request(shop: Shop) -> None:
    shop.work()
    clients = [shop.client(shop.bot.token) for _ in range(4)]
    found = await asyncio.gather(*(c.ensure("feature/x", "main", title="T", body="") for c in clients))
    # Gitea looks and inserts without a lock: it opens all of them.
    assert {pull.number for pull in found} == {1}
    assert [pull["number"] for pull in shop.repository.pull_requests("open")] == [1]
    found_later = await shop.forge.find("feature/x", "main")
    assert found_later is not None
    assert found_later.number == 1


async def test_all_pages_are_looked_at(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workitems.integrations.gitea_api.PAGE", 2)
    number, _ = await shop.proposed("feature/first")
    for other in range(5):
        shop.repository.create_branch(f"other-{other}", "feature/first")
        shop.repository.open_pull_request(f"other-{other}")
    found = await shop.forge.find("feature/first", "main")
    assert found is not None
    assert found.number == number


async def test_any_number_of_closed_pull_requests_stands_in_nobodys_way(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, _ = await shop.proposed("feature/old")
    shop.repository.ask("PATCH", f"/pulls/{old}", {"state": "closed"})
    for other in range(4):
        shop.repository.create_branch(f"other-{other}", "feature/old")
        made = shop.repository.open_pull_request(f"other-{other}")
        shop.repository.ask("PATCH", f"/pulls/{made['number']}", {"state": "closed"})
    assert await shop.forge.find("feature/old", "main") is not None
    monkeypatch.setattr("workitems.integrations.gitea_api.PAGE", 2)
    monkeypatch.setattr("workitems.integrations.gitea_api.PAGES", 2)
    monkeypatch.setattr("workitems.integrations.gitea.CLOSED_MOST", 4)
    assert await shop.forge.find("feature/old", "main") is None
    number, _ = await shop.proposed("feature/new", text="twenty percent\n")
    assert [pull["number"] for pull in shop.repository.pull_requests("open")] == [number]


async def test_commits_that_a_branch_lacks_are_named_with_their_files(shop: Shop) -> None:
    number, head = await shop.proposed()
    first = shop.repository.commit("main", "prices.txt", "1", "Raise prices\n\nBecause.")
    second = shop.repository.commit("main", "prices.txt", "2", "Raise them again")
    assert await shop.forge.ahead(head, "main") == 2
    assert await shop.forge.ahead("main", head) == 1
    named = await shop.forge.commits(head, "main")
    assert [(c.id, c.subject, c.files) for c in named] == [
        (second, "Raise them again", ("prices.txt",)),
        (first, "Raise prices", ("prices.txt",)),
    ]
    assert len(await shop.forge.commits(head, "main", most=1)) == 1
    assert (await shop.forge.get(number)).head == head


async def test_of_many_commits_that_a_branch_lacks_those_that_touch_its_files_come_first(shop: Shop) -> None:
    head = shop.work(path="prices.txt")
    conflicting = shop.repository.commit("main", "prices.txt", "1", "Raise prices")
    for number in range(COMMITS_NAMED + 1):
        newest = shop.repository.commit("main", "other.txt", str(number))
    lacks = await _lacking(shop.forge, head, "main")
    assert [commit.id for commit in lacks[:2]] == [conflicting, newest]
    assert len(lacks) == COMMITS_NAMED + 2


async def test_a_document_is_read_at_a_commit(shop: Shop) -> None:
    old = shop.work(text="ä" * 10, path="docs/a bö.md")
    shop.work(text="new", path="docs/a bö.md")
    assert await shop.forge.document(old, "docs/a bö.md") == "ä" * 10
    assert await shop.forge.document(old, "docs/a bö.md", most=3) == "äää"
    assert await shop.forge.document("feature/x", "docs/a bö.md") == "new"
    assert await shop.forge.document(old, "docs") is None
    assert await shop.forge.document(old, "docs/none.md") is None


# --- checks


async def test_fifty_six_contexts_with_one_failing(shop: Shop) -> None:
    head = shop.work()
    for number in range(56):
        shop.repository.report(head, f"check-{number:02}", "failure" if number == 0 else "success")
    checks = await shop.forge.checks(head)
    assert len(checks.contexts) == 56
    assert [check.context for check in checks.contexts if check.state != "success"] == ["check-00"]
    # This is the trap: the first page's own word for it.
    page = shop.repository.ask("GET", f"/commits/{head}/status", page=1, limit=50)
    assert page["state"] == "success"


async def test_the_newest_status_of_a_context_counts(shop: Shop) -> None:
    head = shop.work()
    for state in ("pending", "failure", "success"):
        shop.repository.report(head, "build", state, "https://ci.example.com/1")
    shop.repository.report(head, "lint", "success")
    shop.repository.report(head, "lint", "error")
    checks = await shop.forge.checks(head)
    assert {c.context: c.state for c in checks.contexts} == {"build": "success", "lint": "failure"}
    assert checks.contexts[0].url == "https://ci.example.com/1"


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("success", "success"),
        ("skipped", "success"),
        ("failure", "failure"),
        ("error", "failure"),
        ("warning", "failure"),
        ("pending", "pending"),
        ("approved-by-my-cat", "pending"),
    ],
)
async def test_what_a_state_means(shop: Shop, said: str, meant: str) -> None:
    head = shop.work()
    shop.repository.report(head, "build", said)
    [check] = (await shop.forge.checks(head)).contexts
    assert check.state == meant


async def test_no_status_at_all_is_none(shop: Shop) -> None:
    head = shop.work()
    checks = await shop.forge.checks(head)
    assert (checks.commit, checks.contexts) == (head, ())


# --- merging


@pytest.mark.parametrize("method", ["merge", "squash", "rebase", "fast-forward-only"])
async def test_a_merge_right_after_opening_names_its_commit(shop: Shop, method: Any) -> None:
    number, head = await shop.proposed()
    outcome = await shop.forge.merge(number, head, method, delete_branch=False, patient=False)
    assert outcome.result is MergeResult.MERGED, outcome
    pull = await shop.forge.get(number)
    assert (pull.state, pull.merge_commit) == ("merged", outcome.commit)
    assert outcome.commit == shop.repository.head("main")
    assert shop.repository.read("src/code.txt") == "ten percent\n"
    assert shop.repository.has("feature/x")
    # Repeated, as after a kill before the status write: found, not done again.
    again = await shop.forge.merge(number, head, method, delete_branch=False, patient=False)
    assert (again.result, again.commit) == (MergeResult.MERGED, outcome.commit)
    assert again.message == f"merged already by {shop.bot.user}"


async def test_a_server_that_is_still_checking_is_waited_for(shop: Shop) -> None:
    number, head = await shop.proposed()
    await shop.mergeable(number)
    outcome = await Unchecked(shop).merge(number, head, "merge", delete_branch=False, patient=True)
    assert outcome.result is MergeResult.MERGED, outcome
    *earlier, last = shop.codes("POST", f"/pulls/{number}/merge")
    assert (set(earlier), last) == ({405}, 200)


async def test_a_head_that_was_pushed_between_gate_and_merge_is_not_merged(shop: Shop) -> None:
    number, head = await shop.proposed()
    pushed = shop.work(text="a hundred percent\n")
    outcome = await shop.forge.merge(number, head, "merge", delete_branch=True, patient=False)
    assert outcome.result is MergeResult.HEAD_MOVED
    assert outcome.message == f"the head is {pushed[:12]} and not {head[:12]}"
    # Even if the client had not looked: the server itself refuses.
    said = shop.repository.send("POST", f"/pulls/{number}/merge", {"Do": "merge", "head_commit_id": head})
    while said.status_code == 405:
        await asyncio.sleep(0.2)
        said = shop.repository.send("POST", f"/pulls/{number}/merge", {"Do": "merge", "head_commit_id": head})
    assert (said.status_code, said.json()["message"]) == (409, "head out of date")
    assert (await shop.forge.get(number)).state == "open"


async def test_a_head_pushed_while_the_merge_is_under_way_is_refused_by_the_server(shop: Shop) -> None:
    number, head = await shop.proposed()
    forge = Racing(shop)
    outcome = await forge.merge(number, head, "merge", delete_branch=True, patient=False)
    assert outcome.result is MergeResult.HEAD_MOVED
    assert (await shop.forge.get(number)).state == "open"


class Meddled(Gitea):
    """Something happens after the client has looked and before it asks for the merge, once."""

    def __init__(self, shop: Shop) -> None:
        access = Access(shop.server.url, {"Authorization": f"token {shop.bot.token}"})
        place = Place(shop.repository.owner, shop.repository.name, "Secret")
        super().__init__(HTTPClient(shop.connections, access), place)
        self.shop, self.done = shop, False
        ask = self._api.ask

        async def asking(method: str, path: str, *rest: Any, **named: Any) -> Any:
            if path.endswith("/merge") and not self.done:
                self.done = True
                self.meddle()
            return await ask(method, path, *rest, **named)

        self._api.ask = asking  # type: ignore[method-assign]  # the network's own doing

    def meddle(self) -> None:
        raise NotImplementedError


class Racing(Meddled):
    """Somebody pushes."""

    def meddle(self) -> None:
        self.shop.work(text="pushed in between\n")


class Unchecked(Meddled):
    """The server is to look for conflicts again, as it is after every push to the base; on an idle one that is over
    before anybody can ask, so it is told by its database."""

    def meddle(self) -> None:
        with contextlib.closing(sqlite3.connect(self.shop.server.folder / "data/gitea.db", timeout=30)) as database:
            database.execute("UPDATE pull_request SET status = 1 WHERE has_merged = 0")
            database.commit()


async def test_a_conflict_that_the_merge_itself_comes_upon(shop: Shop) -> None:
    number, head = await shop.proposed(path="README.md", text="ours\n")
    await shop.mergeable(number)
    shop.repository.commit("main", "README.md", "theirs\n")
    outcome = await shop.forge.merge(number, head, "merge", delete_branch=False, patient=True)
    assert (outcome.result, outcome.message) == (MergeResult.CONFLICT, "the branch conflicts with main")
    assert shop.codes("POST", f"/pulls/{number}/merge") == [409]


async def test_a_conflict_is_told_from_still_checking(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workitems.integrations.gitea.CHECK_SECONDS", 4.0)
    head = shop.work(path="README.md", text="ours\n")
    shop.repository.commit("main", "README.md", "theirs\n")
    number = (await shop.forge.ensure("feature/x", "main", title="T", body="")).number
    # Both have the same answer: only one that stays is a conflict.
    with pytest.raises(errors.Transient, match="does not say whether pull request"):
        await shop.forge.merge(number, head, "merge", delete_branch=False, patient=True)
    outcome = await shop.forge.merge(number, head, "merge", delete_branch=False, patient=False)
    assert (outcome.result, outcome.message) == (MergeResult.CONFLICT, "the branch conflicts with main")
    assert set(shop.codes("POST", f"/pulls/{number}/merge")) == {405}
    assert (await shop.forge.get(number)).state == "open"


async def test_a_server_that_goes_on_checking_is_no_conflict(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workitems.integrations.gitea.CHECK_SECONDS", 1.0)
    number, head = await shop.proposed()
    # Work in progress is the one refusal that can be had for a branch that lacks nothing.
    request = await shop.forge.get(number)
    with pytest.raises(errors.Transient, match="does not say whether"):
        await shop.forge._cannot_merge(request, "Please try again later", head, patient=False)


async def test_merged_already_by_a_person(shop: Shop) -> None:
    number, head = await shop.proposed()
    shop.repository.merge(number)
    outcome = await shop.forge.merge(number, head, "squash", delete_branch=True, patient=False)
    assert outcome.result is MergeResult.MERGED
    assert outcome.commit == shop.repository.head("main")
    assert outcome.message == f"merged already by {shop.owner.user}"
    assert not shop.repository.has("feature/x")


async def test_merged_already_at_another_head_is_said_and_its_branch_is_kept(shop: Shop) -> None:
    number, head = await shop.proposed()
    newer = shop.work(text="more\n")
    # The server merges what is there, and goes on calling it what its queue had noted by then.
    await noted(shop, number, newer)
    shop.repository.merge(number)
    outcome = await shop.forge.merge(number, head, "merge", delete_branch=True, patient=False)
    assert outcome.result is MergeResult.MERGED
    assert f"at {newer[:12]} and not at {head[:12]}" in outcome.message
    assert outcome.branch_kept == f"branch feature/x was not deleted: it is at {newer[:12]} by now"
    assert shop.repository.has("feature/x")


async def test_what_is_pushed_after_a_merge_was_not_merged(shop: Shop) -> None:
    """Gitea goes on naming the branch's head as the merged pull request's."""
    number, merged = await shop.proposed()
    shop.repository.merge(number, "squash")
    newer = shop.work(text="more\n")
    assert shop.repository.ask("GET", f"/pulls/{number}")["head"]["sha"] == newer
    for found in (await shop.forge.get(number), await shop.forge.find("feature/x", "main")):
        assert found is not None
        assert (found.number, found.state, found.head) == (number, "merged", merged)
    outcome = await shop.forge.merge(number, newer, "squash", delete_branch=True, patient=False)
    assert (outcome.result, outcome.head) == (MergeResult.MERGED, None)
    assert f"at {merged[:12]} and not at {newer[:12]}" in outcome.message


async def test_a_commit_that_the_server_merged_before_it_noted_it_was_merged(shop: Shop) -> None:
    """What Gitea keeps of a merged pull request is what its queue of pushes had reached by then, for ever."""
    number, older = await shop.proposed()
    head = shop.work(text="more\n")
    await shop.mergeable(number)
    await noted(shop, number, head)
    note(shop, number, older)
    outcome = await shop.forge.merge(number, head, "squash", delete_branch=True, patient=False)
    assert (outcome.result, outcome.head, outcome.branch_kept) == (MergeResult.MERGED, head, "")
    # What the pull request says of itself is the older one, unless the queue has come to it after all.
    assert shop.repository.read("src/code.txt") == "more\n"


async def noted(shop: Shop, number: int, head: str) -> None:
    """Wait until the server's own reference of the pull request is this commit."""
    for _ in range(200):
        [found] = shop.repository.ask("GET", f"/git/refs/pull/{number}/head")
        if found["object"]["sha"] == head:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"pull request {number} is still at {found}")


def note(shop: Shop, number: int, head: str) -> None:
    """As if the queue of pushes had come no further."""
    # By its name: a search would come upon folders that the server has just removed.
    folder = shop.server.folder / "repositories" / shop.repository.owner / f"{shop.repository.name}.git"
    subprocess.run(("git", "-C", folder, "update-ref", f"refs/pull/{number}/head", head), check=True)


async def test_a_commit_that_a_person_squashed_with_later_ones_is_not_asked_for_again(shop: Shop) -> None:
    """By its commits the branch still differs from the base, and nothing of it is missing there."""
    number, older = await shop.proposed()
    head = shop.work(text="more\n")
    await noted(shop, number, head)
    shop.repository.merge(number, "squash")
    known = {"number": number, "url": "https://git.example.com/pulls/1", "state": "open", "head": older, "base": "main"}
    metadata = {"name": "et-1", "namespace": "team-a", "uid": "u", "resourceVersion": "1", "generation": 1}
    spec = {"repository": "shop", "pipeline": "default", "title": "Discounts", "description": "Ten percent."}
    item = WorkItem.model_validate({"metadata": metadata, "spec": spec, "status": {"pullRequest": known}})
    params = {"title": "Discounts", "branch": "feature/x", "base": "main", "commit": older}
    effect = Effect(id="pr", kind=pull_requests.ENSURE, target="forge", params=params)

    async def forge_of(_namespace: str, _name: str) -> Gitea:
        return shop.forge

    result = await ForgeEffects(forge_of).ensure(item, effect)
    assert result is not None
    assert (result.state, result.reason) == ("Failed", pull_requests.NO_COMMITS)
    found = await shop.forge.find("feature/x", "main")
    assert found is not None
    assert (found.number, found.state, found.head) == (number, "merged", head)


async def test_a_branch_that_cannot_be_deleted_is_said(shop: Shop) -> None:
    number, head = await shop.proposed()
    shop.repository.protect("feature/x", enable_push=True)
    kept = "branch feature/x was not deleted: branch protected"
    # Gitea itself says nothing about it; found merged already, it is the same.
    for _ in range(2):
        outcome = await shop.forge.merge(number, head, "merge", delete_branch=True, patient=False)
        assert (outcome.result, outcome.branch_kept) == (MergeResult.MERGED, kept)
    assert shop.repository.has("feature/x")


async def test_a_protected_branch_refuses_in_its_own_words(shop: Shop) -> None:
    shop.repository.protect("main", required_approvals=1, enable_push=False)
    number, head = await shop.proposed()
    outcome = await shop.forge.merge(number, head, "merge", delete_branch=False, patient=False)
    assert outcome.result is MergeResult.REFUSED
    assert "enough approvals" in outcome.message


async def test_a_red_required_check_refuses(shop: Shop) -> None:
    shop.repository.protect("main", enable_status_check=True, status_check_contexts=["build"])
    number, head = await shop.proposed()
    shop.repository.report(head, "build", "failure")
    outcome = await shop.forge.merge(number, head, "merge", delete_branch=False, patient=False)
    assert outcome.result is MergeResult.REFUSED
    assert "required status checks" in outcome.message


async def test_a_base_that_refuses_branches_behind_it_takes_one_that_was_brought_up_to_date(shop: Shop) -> None:
    shop.repository.protect("main", block_on_outdated_branch=True, enable_push=True)
    # Behind from the first: Gitea takes note of a base that moves a moment later, and merges until then.
    head = shop.work()
    shop.repository.commit("main", "other.txt", "x")
    number = (await shop.forge.ensure("feature/x", "main", title="Discounts", body="")).number
    outcome = await shop.forge.merge(number, head, "merge", delete_branch=False, patient=False)
    assert outcome.result is MergeResult.REFUSED, outcome
    assert "behind" in outcome.message
    await shop.forge.update_branch(number, "merge")
    updated = (await shop.forge.get(number)).head
    outcome = await shop.forge.merge(number, updated, "merge", delete_branch=False, patient=False)
    assert outcome.result is MergeResult.MERGED, outcome


async def test_a_pull_request_that_depends_on_an_open_issue_is_an_outage_by_what_gitea_says(shop: Shop) -> None:
    number, head = await shop.proposed()
    await shop.mergeable(number)
    first = shop.repository.ask("POST", "/issues", {"title": "First this"})["number"]
    other = {"owner": shop.repository.owner, "repo": shop.repository.name, "index": first}
    shop.repository.ask("POST", f"/issues/{number}/dependencies", other)
    with pytest.raises(errors.Unanswered, match=r"it answered 500$"):
        await shop.forge.merge(number, head, "merge", delete_branch=False, patient=False)
    shop.repository.ask("PATCH", f"/issues/{first}", {"state": "closed"})
    outcome = await shop.forge.merge(number, head, "merge", delete_branch=False, patient=False)
    assert outcome.result is MergeResult.MERGED


async def test_a_draft_is_refused(shop: Shop) -> None:
    head = shop.work()
    pull = await shop.forge.ensure("feature/x", "main", title="WIP: Discounts", body="")
    outcome = await shop.forge.merge(pull.number, head, "merge", delete_branch=False, patient=False)
    assert (outcome.result, "Work in progress" in outcome.message) == (MergeResult.REFUSED, True)


async def test_a_method_that_the_repository_does_not_allow_is_refused(shop: Shop) -> None:
    shop.repository.ask("PATCH", "", {"allow_squash_merge": False, "has_pull_requests": True})
    number, head = await shop.proposed()
    outcome = await shop.forge.merge(number, head, "squash", delete_branch=False, patient=False)
    assert outcome.result is MergeResult.REFUSED, outcome


async def test_fast_forward_only_does_not_pass_a_base_that_has_moved(shop: Shop) -> None:
    number, head = await shop.proposed()
    shop.repository.commit("main", "other.txt", "x")
    outcome = await shop.forge.merge(number, head, "fast-forward-only", delete_branch=False, patient=False)
    assert outcome.result is MergeResult.CONFLICT
    assert "main has 1 commits that the branch lacks" in outcome.message
    await shop.forge.update_branch(number, "rebase")
    rebased = (await shop.forge.get(number)).head
    assert rebased != head
    outcome = await shop.forge.merge(number, rebased, "fast-forward-only", delete_branch=False, patient=False)
    assert outcome.result is MergeResult.MERGED


@pytest.mark.parametrize("style", ["merge", "rebase"])
async def test_the_bases_commits_are_brought_into_the_branch(shop: Shop, style: Any) -> None:
    number, head = await shop.proposed()
    shop.repository.commit("main", "other.txt", "x")
    await shop.forge.update_branch(number, style)
    updated = (await shop.forge.get(number)).head
    assert updated != head
    assert await shop.forge.ahead(updated, "main") == 0
    await shop.forge.update_branch(number, style)
    assert (await shop.forge.get(number)).head == updated


@pytest.mark.parametrize("style", ["merge", "rebase"])
async def test_a_conflict_with_the_base_is_a_reason(shop: Shop, style: Any) -> None:
    number, head = await shop.proposed(path="README.md", text="ours\n")
    shop.repository.commit("main", "README.md", "theirs\n")
    with pytest.raises(errors.Permanent, match="conflict") as caught:
        await shop.forge.update_branch(number, style)
    assert caught.value.reason == "Conflict"
    assert (await shop.forge.get(number)).head == head


# --- people


def review(shop: Shop, by: Client, number: int, event: str, body: str) -> dict[str, Any]:
    words = {"event": event, "body": body}
    return dict(shop.repository.by(by).ask("POST", f"/pulls/{number}/reviews", words))


async def test_the_newest_verdict_of_every_person(shop: Shop) -> None:
    number, head = await shop.proposed()
    ann = shop.server.admin.create_user(f"ann-{next(_numbers)}").with_token("all")
    bob = shop.server.admin.create_user(f"bob-{next(_numbers)}").with_token("all")
    for person in (ann, bob):
        shop.repository.invite(person.user)
    review(shop, ann, number, "REQUEST_CHANGES", "The refund case is missing.")
    made = review(shop, bob, number, "REQUEST_CHANGES", "No.")
    newer = shop.work(text="refunds\n")
    approved = review(shop, ann, number, "APPROVED", "Good to go.")
    review(shop, ann, number, "COMMENT", "By the way…")
    found = {r.user: r for r in await shop.forge.reviews(number)}
    assert {user: (r.state, r.commit, r.body) for user, r in found.items()} == {
        ann.user: ("approved", newer, "Good to go."),
        bob.user: ("changes_requested", head, "No."),
    }
    assert found[ann.user].id == approved["id"]
    assert found[ann.user].submitted_at.tzinfo is not None
    shop.repository.ask("POST", f"/pulls/{number}/reviews/{made['id']}/dismissals", {"message": "Never mind"})
    assert {r.user for r in await shop.forge.reviews(number)} == {ann.user}


# --- webhooks


async def test_a_webhook_is_registered_once_and_repaired(shop: Shop) -> None:
    shop.repository.invite(shop.bot.user, "admin")
    url = "http://127.0.0.1:9/hooks/team-a/shop/gitea"
    first = await shop.forge.ensure_webhook(url, "secret", renew=False)
    assert await shop.forge.ensure_webhook(url, "secret", renew=False) == first
    [hook] = shop.repository.webhooks()
    assert (str(hook["id"]), hook["active"], hook["config"]["url"]) == (first, True, url)
    shop.repository.ask("DELETE", f"/hooks/{first}")
    second = await shop.forge.ensure_webhook(url, "secret", renew=False)
    assert second != first
    # Switched off by somebody, or for other events: made anew, as Gitea does not let its secret be set.
    shop.repository.ask("PATCH", f"/hooks/{second}", {"active": False, "events": ["push"]})
    third = await shop.forge.ensure_webhook(url, "secret", renew=False)
    assert [str(hook["id"]) for hook in shop.repository.webhooks()] == [third]
    fourth = await shop.forge.ensure_webhook(url, "another secret", renew=True)
    assert [str(hook["id"]) for hook in shop.repository.webhooks()] == [fourth]
    other = await shop.forge.ensure_webhook(f"{url}/2", "secret", renew=False)
    assert {str(hook["id"]) for hook in shop.repository.webhooks()} == {fourth, other}
    # The operator's address is another one by now.
    moved = await shop.forge.ensure_webhook(f"{url}/3", "secret", renew=True, former=url)
    assert {str(hook["id"]) for hook in shop.repository.webhooks()} == {moved, other}


async def test_a_webhook_needs_an_administrator_and_says_so(shop: Shop) -> None:
    with pytest.raises(errors.Permanent, match=r"Secret shop-gitea \(key token\).*to administer it") as caught:
        await shop.forge.ensure_webhook("http://127.0.0.1:9/", "secret", renew=False)
    assert caught.value.reason == "Forbidden"


# --- credentials and outages


async def test_a_wrong_token_names_the_secret(shop: Shop) -> None:
    forge = shop.client("0" * 40)
    for ask in (forge.find("feature/x", "main"), forge.checks("main"), forge.ensure("a", "main", title="T", body="")):
        with pytest.raises(
            errors.Permanent, match=r"The token in Secret shop-gitea \(key token\) is not valid"
        ) as caught:
            await ask
        assert caught.value.reason == "Unauthorized"
        assert "0" * 40 not in str(caught.value)


@pytest.mark.parametrize("scopes", [("read:user",), ("read:repository",)])
async def test_a_token_without_scope_names_the_scopes(shop: Shop, scopes: tuple[str, ...]) -> None:
    shop.work()
    forge = shop.client(shop.bot.with_token(*scopes).token)
    with pytest.raises(errors.Permanent, match="needs the scope write:repository") as caught:
        await forge.ensure("feature/x", "main", title="T", body="")
    assert caught.value.reason == "Forbidden"
    assert shop.repository.pull_requests() == []


@pytest.mark.parametrize("question", ["find", "head", "ahead", "checks", "get", "document"])
async def test_a_repository_that_is_not_there_is_told_from_what_is_not_in_it(shop: Shop, question: str) -> None:
    forge = shop.client(shop.bot.token, "shp")
    arguments: dict[str, tuple[Any, ...]] = {
        "find": ("a", "main"), "head": ("a",), "ahead": ("main", "a"), "checks": ("main",), "get": (1,),
        "document": ("main", "a"),
    }  # fmt: skip
    with pytest.raises(errors.Permanent, match=rf"Is there a repository {shop.repository.owner}/shp") as caught:
        await getattr(forge, question)(*arguments[question])
    assert caught.value.reason == "NotFound"
    assert await shop.forge.head("no-such-branch") is None
    with pytest.raises(errors.Permanent, match="has no pull request 4711"):
        await shop.forge.get(4711)


async def test_an_archived_repository_says_so(shop: Shop) -> None:
    number, head = await shop.proposed()
    shop.repository.ask("PATCH", "", {"archived": True})
    with pytest.raises(errors.Permanent, match="Unarchive") as caught:
        await shop.forge.merge(number, head, "merge", delete_branch=False, patient=False)
    assert caught.value.reason == "Archived"


async def test_a_renamed_repository_is_moved_and_not_followed(shop: Shop) -> None:
    shop.repository.ask("PATCH", "", {"name": f"store-{next(_numbers)}"})
    with pytest.raises(errors.Permanent, match=r"spec\.forge\.gitea"):
        await shop.forge.find("feature/x", "main")


async def test_a_server_that_is_stopped_in_the_middle_costs_nothing_but_the_time(shop: Shop) -> None:
    number, head = await shop.proposed()
    shop.server.kill()
    try:
        for ask in (shop.forge.get(number), shop.forge.merge(number, head, "merge", delete_branch=True, patient=False)):
            with pytest.raises(errors.Transient, match="no connection"):
                await ask
    finally:
        shop.server.start()
    outcome = await shop.forge.merge(number, head, "merge", delete_branch=True, patient=False)
    assert outcome.result is MergeResult.MERGED
    assert [pull["merged"] for pull in shop.repository.pull_requests()] == [True]


async def test_an_answer_that_is_lost_is_found_again(shop: Shop) -> None:
    """A kill between a request and its answer, for each request that changes something: never two of anything."""
    shop.work()
    with pytest.raises(errors.Transient):
        await Deaf(shop, "/pulls").ensure("feature/x", "main", title="T", body="B")
    number = (await shop.forge.ensure("feature/x", "main", title="T", body="B")).number
    assert len(shop.repository.pull_requests()) == 1
    head = shop.repository.head("feature/x")
    with pytest.raises(errors.Transient):
        await Deaf(shop, f"/pulls/{number}/merge").merge(number, head, "squash", delete_branch=True, patient=False)
    outcome = await shop.forge.merge(number, head, "squash", delete_branch=True, patient=False)
    assert (outcome.result, outcome.commit) == (MergeResult.MERGED, shop.repository.head("main"))
    assert len(shop.repository.subjects("main")) == 2


class Deaf(Gitea):
    """Hears no answer to a POST of one path, which the server carries out all the same."""

    def __init__(self, shop: Shop, deaf_to: str) -> None:
        access = Access(shop.server.url, {"Authorization": f"token {shop.bot.token}"})
        place = Place(shop.repository.owner, shop.repository.name, "Secret")
        super().__init__(HTTPClient(shop.connections, access), place)
        ask = self._api.ask

        async def asking(method: str, path: str, *rest: Any, **named: Any) -> Any:
            answer = await ask(method, path, *rest, **named)
            if (method, path) == ("POST", deaf_to) and answer.code != 405:
                raise errors.Unanswered("the answer was lost")
            return answer

        self._api.ask = asking  # type: ignore[method-assign]  # the network's own doing
