"""The operator dies at every write of a whole path, before it and before its answer; nothing is lost or doubled."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.loop.apiserver import Call, Cut
from tests.loop.lab import Lab, Past, cut_at
from tests.loop.store import DECISIONS, JSON
from tests.loop.virtual import VirtualLoop
from tests.unit.core.world import End
from workitems.api import WorkItemStatus

Log = list[Any]
Story = dict[str, Any]

PIPELINE: JSON = {
    "documents": "docs/{item}",
    "agents": {"coder": {"command": ["agent"]}},
    "stages": [
        {
            "name": "build",
            "agent": "coder",
            "gates": [
                {
                    "name": "tests",
                    "command": {"run": ["make", "test"]},
                    "onFailure": [{"sendBackTo": "build", "maxAttempts": 3}],
                },
                {"name": "accepted", "approval": {}},
            ],
        },
        {"name": "deploy", "agent": "coder"},
    ],
}
JOBS = ["build-1", "build-tests", "build-2", "build-tests", "deploy-1"]


def prepare(lab: Lab) -> None:
    """A command gate that fails once and sends back, then passes; an approval; one stage more."""
    lab.repository()
    lab.pipeline(PIPELINE)
    lab.kubelet.scripts["et-1", "build"] = [End(writes={"/src/shop.py": text}) for text in ("first\n", "second\n")]
    lab.kubelet.gate_codes["tests"] = [1, 0]
    lab.item("et-1")


def intended(status: WorkItemStatus) -> bool:
    return any(effect.state == "Intended" for effect in status.effects)


def story(status: WorkItemStatus) -> Story:
    """What must be the same however often the operator died."""
    return {
        "runs": [(r.number, r.job, str(r.result), r.attempt, r.commit) for r in status.runs],
        "gates": [(g.stage, g.name, str(g.result), g.reason, g.commit, g.job) for g in status.gates],
        "rework": status.rework,
        "decisions": [(d.name, d.result) for d in status.decisions],
        "effects": [(e.id, e.state) for e in status.effects],
        "usage": status.usage.runs,
    }


async def finish(lab: Lab) -> Story:
    """Until nothing is left to do; what became of it."""
    lab.approve_always()
    await lab.until(lambda: lab.phase("et-1") == "Done" and not intended(lab.status("et-1")), "Done")
    await lab.rest()
    lab.check()
    assert lab.phase("et-1") == "Done"
    assert [decision["status"]["result"] for decision in lab.store.list(DECISIONS)] == ["Accepted"]
    return {**story(lab.status("et-1")), "jobs": [record.job for record in lab.kubelet.records]}


@dataclass(frozen=True)
class Journey:
    """A path: how it begins, and what became of it once nothing is left to do."""

    prepare: Callable[[Lab], None] = prepare
    finish: Callable[[Lab], Awaitable[Story]] = finish
    resume: Callable[[Lab], None] = lambda _lab: None
    """What a world that begins in the middle has to be told."""


async def undisturbed(folder: Path, log: Log, journey: Journey) -> tuple[Story, list[Past], list[Past]]:
    """The whole path; its story, and the moments just before and just after each write, the forge's included."""
    before: list[Past] = []
    after: list[Past] = []
    async with Lab(folder, log) as lab:
        journey.prepare(lab)

        def arrives(call: Call) -> None:
            if call.writes:
                before.append(lab.remember(f"before write {len(before) + 1}, {call}"))

        def done(call: Call) -> None:
            if call.writes:
                after.append(lab.remember(f"after write {len(after) + 1}, {call}"))

        def changes(moment: str) -> None:
            moments = before if moment.startswith("before") else after
            moments.append(lab.remember(f"{moment} at the forge"))

        lab.server.fault, lab.server.done, lab.forge.cut = arrives, done, changes
        lab.start()
        return await journey.finish(lab), before, after


async def another_operator(folder: Path, log: Log, past: Past, journey: Journey) -> Story:
    async with Lab(folder, log, past) as lab:
        journey.resume(lab)
        lab.start()
        return await journey.finish(lab)


async def killed(folder: Path, log: Log, number: int, cut: Cut) -> Story:
    async with Lab(folder, log) as lab:
        prepare(lab)
        lab.server.fault = cut_at(number, cut, lambda call: call.writes)
        lab.approve_always()
        lab.start()
        await lab.until_dead()
        lab.start()
        return await finish(lab)


# The pure twin, a kill at every boundary of a simulated world, is part of make check: tests/unit/core/test_kills.py.
@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before", "after"])
def test_an_operator_may_die_at_any_write(tmp_path: Path, log: Log, moment: str) -> None:
    """What a dead operator leaves behind is the state of the cluster, so another one is started on every such state."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        expected, before, after = runner.run(undisturbed(tmp_path, log, Journey()))
    assert [job.rsplit("-", 1)[0] for job in expected["jobs"]] == [f"et-1-{job}" for job in JOBS]
    assert len(before) == len(after) > 20
    dies_at_each(tmp_path, log, before if moment == "before" else after, (Journey(), expected))


def dies_at_each(folder: Path, log: Log, moments: list[Past], expected: tuple[Journey, Story]) -> None:
    """Whatever an operator leaves behind at these moments, another one comes to the same end."""
    journey, story_ = expected
    failures = []
    for past in moments:
        log.clear()
        try:
            with asyncio.Runner(loop_factory=functools.partial(VirtualLoop, past.seconds)) as runner:
                found = runner.run(another_operator(folder, log, past, journey))
        except AssertionError as error:
            failures.append(f"{past.what}: {str(error)[:3000]}")
            continue
        if found != story_:
            different = [f"{key}: {found[key]} instead of {story_[key]}" for key in story_ if found[key] != story_[key]]
            failures.append(f"{past.what}: {'; '.join(different)}")
    assert not failures, "\n".join(failures)


@pytest.mark.slow
def test_an_operator_that_is_cut_off_in_the_act_leaves_nothing_else(tmp_path: Path, log: Log) -> None:
    """The same by a real death: its connections are gone in the middle of a request."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        expected, before, _ = runner.run(undisturbed(tmp_path, log, Journey()))
    for write in ("create jobs et-1-build-2", "update workitems/status"):
        number = max(n for n, past in enumerate(before, start=1) if write in past.what)
        for cut in (Cut.DIE_BEFORE, Cut.DIE_AFTER):
            with asyncio.Runner(loop_factory=VirtualLoop) as runner:
                assert runner.run(killed(tmp_path, log, number, cut)) == expected, f"{cut.value}: {write}"
