"""A whole item at a real Gitea: the operator's loop, a stand-in cluster, and every word of the forge a real one.

In one test nothing is ever polled, so that every step is a webhook's; in the other there are no webhooks.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from hack.gitea import local
from hack.gitea.client import BOT_SCOPES, Client, Repository
from tests.loop import kubelet, virtual
from tests.loop.apiserver import Call, Cut
from tests.loop.conftest import log  # noqa: F401 - a fixture
from tests.loop.lab import NAMESPACE, Lab
from tests.loop.store import DECISIONS, JSON, REPOSITORIES, SECRETS, WORKITEMS
from tests.unit.core.world import Branch, End

BRANCH = "feature/et-1"
PATIENCE_SECONDS = 90.0
PIPELINE: JSON = {
    "documents": "docs/{item}",
    "agents": {"coder": {"command": ["agent"]}},
    "stages": [
        {
            "name": "build",
            "agent": "coder",
            "pullRequest": {"title": "feat: {title}"},
            "gates": [
                {"name": "ci-green", "ci": {}, "onFailure": [{"sendBackTo": "build", "maxAttempts": 3}]},
                {"name": "good", "approval": {}, "onFailure": [{"sendBackTo": "build", "maxAttempts": 3}]},
            ],
        },
        {"name": "deploy", "agent": "coder", "merge": {"method": "squash", "deleteBranch": True}},
    ],
}
_numbers = itertools.count(1)


class RealBranch(Branch):
    """A branch whose commits are made in a real repository."""

    def __init__(self, repository: Repository) -> None:
        super().__init__()
        self.repository = repository
        self.base = repository.head("main")

    def commit(self, files: dict[str, str], *, ours: bool) -> str:
        changed = {path: text for path, text in files.items() if self.files.get(path) != text}
        for path, text in changed.items():
            self.head = self.repository.commit(BRANCH, path, text)
            if ours:
                self.ours.add(self.head)
        self.files = dict(files)
        assert self.head is not None
        self.trees[self.head] = dict(files)
        return self.head


class Shop:
    """The people, their repository, and the cluster beside it."""

    def __init__(self, gitea: local.Server, lab: Lab) -> None:
        number = next(_numbers)
        self.gitea, self.lab = gitea, lab
        self.owner = self._person(f"item-owner-{number}", "all")
        self.ann = self._person(f"item-ann-{number}", "all")
        self.bot = self._person(f"item-bot-{number}", *BOT_SCOPES)
        self.repository = self.owner.create_repository("shop")
        self.repository.invite(self.ann.user)
        # Webhooks are an administrator's.
        self.repository.invite(self.bot.user, "admin")
        self.branch = RealBranch(self.repository.by(self.bot))
        lab.kubelet.branches[self.repository.url, BRANCH] = self.branch
        self.port = lab.free_port()

    def _person(self, name: str, *scopes: str) -> Client:
        return self.gitea.admin.create_user(name).with_token(*scopes)

    def apply(self, **spec: Any) -> None:
        """What a team applies."""
        self._secret("shop-gitea", token=self.bot.token)
        self._secret("shop-webhooks", gitea="a key that only the forge knows\n")
        gitea = {
            "url": f"{self.gitea.url}/",
            "owner": self.owner.user,
            "name": "shop",
            "token": {"secretName": "shop-gitea", "key": "token"},
            "reviewers": {self.ann.user: "team-lead"},
        }
        self.lab.repository(url=self.repository.url, forge={"gitea": gitea}, **spec)
        self.lab.pipeline(PIPELINE)
        texts = ("first\n", "second\n", "third\n")
        self.lab.kubelet.scripts["et-1", "build"] = [End(writes={"/src/code.txt": text}) for text in texts]
        self.lab.item("et-1", branch=BRANCH, title="Discounts")

    def _secret(self, name: str, **values: str) -> None:
        data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data}
        self.lab.store.create(SECRETS, NAMESPACE, body)

    async def until_asked(self, reason: str, attempt: int) -> str:
        """Wait until the item waits for somebody after so many attempts; its head."""
        lab = self.lab

        def waits() -> bool:
            status = lab.status("et-1")
            return lab.ready("et-1")[0] == reason and len(status.runs) == attempt and status.pull_request is not None

        await lab.until(waits, f"{reason} {attempt}")
        head = lab.status("et-1").head
        assert head is not None
        return head

    def review(self, event: str, body: str) -> None:
        pull = self.repository.pull_requests("open")[0]["number"]
        self.repository.by(self.ann).ask("POST", f"/pulls/{pull}/reviews", {"event": event, "body": body})

    async def red_then_changes_then_good(self) -> str:
        """A red check, a person who wants changes, and at last one who is content; the head that may be merged."""
        head = await self.until_asked("WaitingForChecks", 1)
        self.repository.report(head, "build", "failure", "https://ci.example.com/1")
        head = await self.until_asked("WaitingForChecks", 2)
        self.repository.report(head, "build", "success")
        await self.until_asked("WaitingForApproval", 2)
        self.review("REQUEST_CHANGES", "The refund case is missing.")
        head = await self.until_asked("WaitingForChecks", 3)
        self.repository.report(head, "build", "success")
        await self.until_asked("WaitingForApproval", 3)
        self.review("APPROVED", "Good to go.")
        return head

    def check(self, head: str) -> None:
        """One pull request, one merge, of what everybody has agreed to."""
        lab, status = self.lab, self.lab.status("et-1")
        [pull] = self.repository.pull_requests()
        assert (pull["title"], pull["merged"], pull["head"]["sha"]) == ("feat: Discounts", True, head)
        assert "| build | ci-green | ✅ Passed |" in pull["body"]
        assert "✅ Passed | approved by gitea:team-lead: Good to go." in pull["body"]
        assert self.repository.read("src/code.txt") == "third\n"
        # Squashed: one commit beside the repository's first.
        assert len(self.repository.subjects("main")) == 2
        assert not self.repository.has(BRANCH)
        assert status.pull_request is not None
        assert status.pull_request.merge_commit == self.repository.head("main")
        assert status.pull_request.state == "merged"
        said = {(body["spec"]["by"], body["status"]["result"]) for body in lab.store.list(DECISIONS)}
        assert said == {("gitea:team-lead", "Accepted")}
        assert sum(1 for _ in lab.store.list(DECISIONS)) == 2
        assert "ci-green: build (build is failure) https://ci.example.com/1 failed" in lab.kubelet.tasks[1].prompt
        assert "The refund case is missing." in lab.kubelet.tasks[2].prompt
        everything = f"{lab.log} {[body for _, body in lab.store.objects.items() if body['kind'] != 'Secret']}"
        assert self.bot.token not in everything
        assert "only the forge knows" not in everything


@pytest.fixture
async def lab(tmp_path: Path, log: list[Any], monkeypatch: pytest.MonkeyPatch) -> Lab:  # noqa: F811 - the fixture
    """A world in real time, as the forge has no other."""
    monkeypatch.setattr(virtual, "now", lambda: datetime.now(UTC))
    monkeypatch.setattr(kubelet, "START_SECONDS", 0.05)
    monkeypatch.setattr(kubelet, "RUN_SECONDS", 0.1)
    monkeypatch.setattr(kubelet, "JOB_LAGS_SECONDS", 0.1)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return Lab(tmp_path, log, at_its_forge=True)


@contextlib.asynccontextmanager
async def patience(lab: Lab) -> AsyncIterator[None]:
    """A test that does not come to its end says where everything stands."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            yield
    except TimeoutError:
        raise AssertionError(f"no end after {PATIENCE_SECONDS:.0f} s:\n{lab.told()}") from None


def poll_every(monkeypatch: pytest.MonkeyPatch, delay: timedelta) -> None:
    monkeypatch.setattr("workitems.core.pull_requests.POLL", delay)
    monkeypatch.setattr("workitems.core.reviews.OFTEN", delay)


async def test_every_step_comes_by_webhook(gitea: local.Server, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    poll_every(monkeypatch, timedelta(hours=1))
    async with lab, patience(lab):
        shop = Shop(gitea, lab)
        shop.apply(webhooks={"secretName": "shop-webhooks", "manage": True})
        lab.start(sweep_seconds=86400, webhook_port=shop.port, webhook_url=f"http://127.0.0.1:{shop.port}", workers=4)
        head = await shop.red_then_changes_then_good()
        await lab.until_phase("Done", "et-1")
        await lab.until(lambda: lab.status("et-1").outbox is None, "the last word")
        shop.check(head)
        [hook] = shop.repository.webhooks()
        assert hook["config"]["url"] == f"http://127.0.0.1:{shop.port}/hooks/{NAMESPACE}/shop/gitea"
        [condition] = lab.store.get(REPOSITORIES, NAMESPACE, "shop")["status"]["conditions"]
        assert (condition["type"], condition["status"]) == ("WebhookRegistered", "True")
        heard = {(entry["field"], tuple(entry["items"])) for entry in lab.log if entry["event"] == "delivery"}
        assert ("status.branch", (f"{NAMESPACE}/et-1",)) in heard
        assert ("status.head", (f"{NAMESPACE}/et-1",)) in heard
        lab.check()
        await lab.stop()


async def test_without_webhooks_with_dying_operators_and_a_dying_forge(
    gitea: local.Server, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    poll_every(monkeypatch, timedelta(seconds=0.5))
    async with lab, patience(lab):
        shop = Shop(gitea, lab)
        shop.apply()
        lab.server.fault = dies_before_it_writes(
            lambda: bool(shop.repository.pull_requests()),
            lambda: any(pull["merged"] for pull in shop.repository.pull_requests()),
        )
        lab.start(sweep_seconds=5)
        await lab.until_dead()
        # The pull request is there, and status does not know it.
        assert lab.status("et-1").pull_request is None
        lab.start(sweep_seconds=5)
        await shop.until_asked("WaitingForChecks", 1)
        gitea.kill()
        gitea.start()
        head = await shop.red_then_changes_then_good()
        await lab.until_dead()
        # It is merged, and status does not know it.
        assert lab.status("et-1").pull_request.state == "open"  # type: ignore[union-attr]  # it was asked for above
        lab.start(sweep_seconds=5)
        await lab.until_phase("Done", "et-1")
        await lab.until(lambda: lab.status("et-1").outbox is None, "the last word")
        shop.check(head)
        lab.check()
        await lab.kill()


async def test_a_push_between_the_gates_and_the_merge_is_judged_before_it_is_merged(
    gitea: local.Server, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    poll_every(monkeypatch, timedelta(seconds=0.5))
    pushed: list[str] = []

    def fault(call: Call) -> Cut | None:
        """A person pushes while the merge is being announced."""
        announced = call.kind is WORKITEMS and call.verb == "update" and call.subresource == "status"
        effects = call.body["status"].get("effects", ()) if announced else ()
        if not pushed and any((e["kind"], e.get("state", "Intended")) == ("Merge", "Intended") for e in effects):
            pushed.append(shop.branch.push({"src/person.txt": "mine\n"}))
        return None

    async with lab, patience(lab):
        shop = Shop(gitea, lab)
        shop.apply()
        lab.server.fault = fault
        lab.start(sweep_seconds=5)
        judged = await shop.red_then_changes_then_good()
        await lab.until(
            lambda: bool(pushed) and lab.ready("et-1")[0] == "WaitingForChecks", "checks of what was pushed"
        )
        [pull] = shop.repository.pull_requests()
        assert (pull["merged"], pull["head"]["sha"]) == (False, pushed[0])
        assert pushed[0] != judged
        shop.repository.report(pushed[0], "build", "success")
        await lab.until(lambda: lab.ready("et-1")[0] == "WaitingForApproval", "another approval")
        shop.review("APPROVED", "Still good.")
        await lab.until_phase("Done", "et-1")
        await lab.until(lambda: lab.status("et-1").outbox is None, "the last word")
        [pull] = shop.repository.pull_requests()
        assert (pull["merged"], pull["head"]["sha"]) == (True, pushed[0])
        assert shop.repository.read("src/person.txt") == "mine\n"
        lab.check()
        await lab.stop()


def dies_before_it_writes(*moments: Callable[[], bool]) -> Callable[[Call], Cut | None]:
    """The operator dies before the first status write after each moment: what it did outside is nowhere recorded."""
    left = list(moments)

    def fault(call: Call) -> Cut | None:
        if left and call.kind is WORKITEMS and call.verb == "update" and left[0]():
            left.pop(0)
            return Cut.DIE_BEFORE
        return None

    return fault
