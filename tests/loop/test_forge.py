"""An item and its forge, by the whole operator: from the first push to the merge, away forges, dying operators."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from tests.loop.lab import NAMESPACE, URL, Lab
from tests.loop.store import JSON, SECRETS, WORKITEMS
from tests.loop.test_killed import Journey, Log, Story, dies_at_each, intended, story, undisturbed
from tests.loop.virtual import VirtualLoop
from tests.unit.core.world import End
from workitems.core.forge import Check, Commit

pytestmark = pytest.mark.slow

PIPELINE: JSON = {
    "documents": "docs/{item}",
    "agents": {"coder": {"command": ["agent"]}},
    "stages": [
        {
            "name": "build",
            "agent": "coder",
            "pullRequest": {"title": "feat: {branchTail}"},
            "gates": [
                {
                    "name": "ci-green",
                    "ci": {"timeout": "30m"},
                    "onFailure": [{"sendBackTo": "build", "maxAttempts": 3}],
                }
            ],
        },
        {
            "name": "deploy",
            "agent": "coder",
            "merge": {"method": "fast-forward-only", "updateBranch": "Merge", "deleteBranch": True},
        },
    ],
}


def ci(lab: Lab) -> None:
    """A CI that finds the first version red, and takes a minute for every other."""

    def reports(commit: str) -> list[Check]:
        branch = lab.kubelet.branch(URL, "workitem/et-1")
        text = branch.trees.get(commit, {}).get("src/shop.py", "")
        return [Check("build", "failure" if text == "first\n" else "success", "https://ci.example.com/1", "1 test")]

    lab.forge.reports = reports


def prepare(lab: Lab) -> None:
    lab.repository_with_forge()
    lab.pipeline(PIPELINE)
    lab.kubelet.scripts["et-1", "build"] = [End(writes={"/src/shop.py": text}) for text in ("first\n", "second\n")]
    ci(lab)
    lab.item("et-1")


async def finish(lab: Lab) -> Story:
    await lab.until(lambda: lab.phase("et-1") == "Done" and not intended(lab.status("et-1")), "Done")
    await lab.rest()
    lab.check()
    told = story(lab.status("et-1"))
    # How often the text was brought up to date depends on how fast it went.
    told["effects"] = [(name, state) for name, state in told["effects"] if not name.startswith("pr-text-")]
    return {
        **told,
        "pull request": lab.status("et-1").pull_request,
        "merges": lab.forge.merges,
        "requests": [request for request in lab.forge.requests if not request.startswith("update 7")],
        "text": lab.forge.pulls[7].body,
    }


def moved_base(lab: Lab) -> None:
    prepare(lab)
    lab.forge.base_ahead = (Commit("c0ffee" * 6 + "beef", "Prices in cents"),)


JOURNEY = Journey(moved_base, finish, ci)


async def test_red_checks_rework_green_checks_merge(lab: Lab) -> None:
    prepare(lab)
    lab.start()
    told = await finish(lab)
    status = lab.status("et-1")
    assert [job.rsplit("-", 1)[0] for job in lab.jobs("et-1")] == ["et-1-build-1", "et-1-build-2", "et-1-deploy-1"]
    assert "ci-green: build (1 test) https://ci.example.com/1 failed" in lab.kubelet.tasks[1].prompt
    assert told["requests"] == ["open 7", "merge 7 and delete the branch"]
    assert told["merges"] == [(7, status.head)]
    assert status.pull_request is not None
    assert (status.pull_request.state, status.pull_request.head) == ("merged", status.head)
    assert "| build | ci-green | ✅ Passed |" in told["text"]
    assert (status.head or "")[:10] in told["text"]
    assert lab.ready("et-1")[1].startswith("pull request 7 is merged into main as ")
    assert "s3cret" not in str(lab.log) + str(status)
    await lab.stop()


async def test_a_webhook_or_the_next_poll_brings_the_news(lab: Lab) -> None:
    """Twenty seconds after the checks are green at the latest; no event of the cluster is needed for it."""
    prepare(lab)
    pending = lab.forge.reports
    lab.forge.reports = lambda _commit: [Check("build", "pending")]
    lab.start()
    await lab.until(lambda: lab.ready("et-1")[0] == "WaitingForChecks", "the wait")
    await lab.rest(300)
    writes = len(lab.writes("et-1"))
    await lab.rest(300)
    assert len(lab.writes("et-1")) == writes, "waiting is not worth a write"
    lab.forge.reports = pending
    await lab.rest(30)
    assert lab.status("et-1").rework[0].gate == "ci-green"


async def test_a_look_meanwhile_does_not_put_off_the_next_question(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "random", lambda: 1.0)
    prepare(lab)
    lab.forge.reports = lambda _commit: [Check("build", "pending")]
    lab.start(sweep_seconds=86400)
    await lab.until(lambda: lab.ready("et-1")[0] == "WaitingForChecks", "the wait")
    await lab.rest(60)
    asked: list[float] = []
    clock = asyncio.get_running_loop().time

    async def note() -> None:
        asked.append(clock())

    lab.forge.hang = note
    lab.forge.away = "no answer"
    await lab.rest(3600)
    count = len(asked)
    while len(asked) == count:
        await lab.rest(1)
    last = asked[-1]
    await lab.rest(290)
    lab.store.patch(WORKITEMS, NAMESPACE, "et-1", {"metadata": {"labels": {"a": "b"}}})
    await lab.rest(600)
    assert next(a for a in asked if a > last) - last < 330


async def test_a_forge_that_is_away_for_an_hour_costs_an_hour_and_other_items_nothing(lab: Lab) -> None:
    prepare(lab)
    lab.repository("other", url="https://git.example.com/other.git")
    never = asyncio.Event()

    async def hangs() -> None:
        await never.wait()

    lab.forge.hang = hangs
    lab.start(workers=1)
    await lab.until(lambda: bool(lab.status("et-1").outbox), "something to tell the forge")
    lab.item("et-2", repository="other")
    await lab.until_phase("Done", "et-2")
    await lab.rest(3600)
    status = lab.status("et-1")
    assert (status.rework, status.infra_retries) == ((), 0)
    assert lab.ready("et-1")[0] == "ForgeUnreachable"
    delivered = next(c for c in status.conditions if c.type == "EffectsDelivered")
    assert (delivered.status, delivered.reason) == ("False", "Late")
    lab.forge.hang = None
    await finish(lab)


async def test_a_token_that_is_missing_is_said_and_everything_goes_on_once_it_is_there(lab: Lab) -> None:
    prepare(lab)
    secret = lab.store.get(SECRETS, "team-a", "shop-gitea")
    lab.store.remove(SECRETS, secret)
    lab.start()
    await lab.until(lambda: lab.phase("et-1") == "Blocked", "Blocked")
    reason, message = lab.ready("et-1")
    assert reason == "SecretNotFound"
    assert "there is no Secret shop-gitea in namespace team-a, which Repository shop names" in message
    lab.store.create(SECRETS, "team-a", {**secret, "metadata": {"name": "shop-gitea"}})
    await finish(lab)


async def test_what_is_over_and_has_something_to_tell_is_swept_by_the_next_operator(lab: Lab) -> None:
    prepare(lab)
    lab.forge.reports = lambda _commit: [Check("build", "pending")]
    lab.start()
    await lab.until(lambda: lab.status("et-1").pull_request is not None, "the pull request")
    lab.forge.away = "no answer"
    lab.decide("et-1", "abort")
    await lab.until_phase("Aborted", "et-1")
    await lab.kill()
    assert lab.status("et-1").outbox == "Pending"
    lab.forge.away = ""
    lab.start()
    await lab.until(lambda: lab.status("et-1").outbox is None, "an empty outbox")
    assert lab.forge.pulls[7].state == "closed"


@pytest.mark.parametrize("moment", ["before", "after"])
def test_an_operator_may_die_at_any_write_and_at_any_request_to_the_forge(
    tmp_path: Path, log: Log, moment: str
) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        expected, before, after = runner.run(undisturbed(tmp_path, log, JOURNEY))
    assert expected["requests"] == ["open 7", "update branch of 7 by merge", "merge 7 and delete the branch"]
    moments = before if moment == "before" else after
    assert len(moments) > 30
    dies_at_each(tmp_path, log, moments, (JOURNEY, expected))


def test_an_operator_may_die_at_any_request_to_the_forge(tmp_path: Path, log: Log) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        expected, before, after = runner.run(undisturbed(tmp_path, log, JOURNEY))
    moments = [past for past in (*before, *after) if past.what.endswith("at the forge") and "text" not in past.what]
    assert len(moments) >= 6
    dies_at_each(tmp_path, log, moments, (JOURNEY, expected))
