"""The questions, each put to a freshly started operator: how much, how fast, how big, how soon, and what for nothing.

They share one control plane and come in this order, because each leaves behind what the next one needs: items with
live runs, and finished ones with their Jobs.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.load import audit, objects
from bench.load.client import JSON, Client
from bench.load.controlplane import ControlPlane
from bench.load.kubelet import Kubelet, is_last, item_of
from bench.load.process import Operator, Usage
from hack.cluster.shell import say
from workitems.core import runs

NAMESPACE = "load"
ACTIVE = 200
PATIENCE_SECONDS = 240.0
SETTLE_SECONDS = 2.0
CALM_CORE = 0.1
"""Below this share of a core over `CALM_SECONDS` a start is over."""
CALM_SECONDS = 3.0


@dataclass(frozen=True)
class Options:
    """What a person may choose."""

    rates: tuple[int, ...] = (10, 20, 30, 40, 50, 60, 80)
    """Ends of pods a second, one step after the other, until the queue grows."""
    step_seconds: float = 15.0
    fleets: tuple[int, ...] = (1000, 10_000)
    """How many items there are besides none at all."""
    idle_seconds: float = 200.0
    """More than one sweep."""
    profile: Path | None = None


@dataclass(frozen=True)
class Step:
    """Some seconds at one rate."""

    rate: int | None
    """None: every pod ends as soon as it runs."""
    ends: int
    worked: float
    """Seconds until all 200 items had a run again."""
    usage: Usage
    story: audit.Story

    @property
    def latencies(self) -> list[float]:
        """Milliseconds from a pod's end to the item's next Job, in the order of the ends."""
        return [seconds * 1000 for seconds in self.story.latencies]

    @property
    def grows(self) -> bool:
        """Whether the queue does: those who end last wait much longer than those who end first."""
        third = max(len(self.latencies) // 3, 1)
        first, last = (statistics.median(part) for part in (self.latencies[:third], self.latencies[-third:]))
        return last > 2 * first + 200

    @property
    def cpu_ms(self) -> float:
        """The operator's CPU time for one transition."""
        return self.usage.cpu * 1000 / self.ends


@dataclass(frozen=True)
class Fleet:
    """An operator with so many items, most of which need nothing."""

    items: int
    others: str
    jobs: int
    first_action: float | None
    """Seconds from the start of the process to the Job that is due; None: none is."""
    start: Usage
    """Until it was calm again."""
    idle: Usage


@dataclass
class Bench:
    """What all scenarios use."""

    plane: ControlPlane
    client: Client
    kubelet: Kubelet
    kubeconfig: Path
    options: Options
    items: int = 0
    finished: int = 0
    example: JSON | None = None
    """The status of an item that is done."""

    @contextlib.contextmanager
    def operator(self, profile: Path | None = None) -> Iterator[Operator]:
        """A freshly started one."""
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = int(listener.getsockname()[1])
        log = self.plane.folder / "operator.log"
        with Operator(self.kubeconfig, log, port, {"WORKITEMS_LOG_LEVEL": "info"}, profile) as operator:
            yield operator

    async def new_items(self, count: int, status: JSON | None = None) -> None:
        """More items."""
        names = [f"i{self.items + n:05d}" for n in range(count)]
        self.items += count
        await objects.create(self.client, NAMESPACE, names, status)


async def alone(bench: Bench) -> Fleet:
    """No item at all."""
    with bench.operator() as operator:
        start = await _calm(operator)
        idle = await _idle(operator, bench.options.idle_seconds)
    return Fleet(0, "", 0, None, start, idle)


async def throughput(bench: Bench) -> list[Step]:
    """Faster and faster, with 200 items under way, until the queue grows."""
    await objects.namespace(bench.client, NAMESPACE)
    steps: list[Step] = []
    with bench.operator(bench.options.profile) as operator:
        await bench.new_items(ACTIVE)
        await bench.kubelet.wait_running(ACTIVE, PATIENCE_SECONDS)
        # Every young run is looked at once more: that of 200 at once is not what a transition costs.
        await asyncio.sleep(runs.USUAL_START.total_seconds())
        await _calm(operator)
        for rate in bench.options.rates:
            step = await _step(bench, operator, rate)
            steps.append(step)
            if step.grows:
                break
        steps.append(await _step(bench, operator, None))
    return steps


async def _step(bench: Bench, operator: Operator, rate: int | None) -> Step:
    log = bench.plane.audit_log
    since, before = audit.position(log), operator.usage
    began, ends = time.monotonic(), 0
    async with asyncio.TaskGroup() as tasks:
        while (now := time.monotonic()) < began + bench.options.step_seconds:
            due = ends + len(bench.kubelet.running) if rate is None else int((now - began) * rate) + 1
            while ends < due and bench.kubelet.running:
                tasks.create_task(_end(bench, bench.kubelet.running[0]))
                ends += 1
                # The pod leaves the queue before the next one is looked at.
                await asyncio.sleep(0)
            await asyncio.sleep(1 / (rate or 50))
    await bench.kubelet.wait_running(ACTIVE, PATIENCE_SECONDS)
    worked = time.monotonic() - began
    # The Job controller writes its part a second later, and the operator hears of it.
    await asyncio.sleep(SETTLE_SECONDS)
    step = Step(rate, ends, worked, operator.usage.since(before), audit.read(log, since))
    say(f"{rate or 'at once'}: {ends} transitions in {worked:.0f} s, {step.cpu_ms:.1f} ms CPU each")
    return step


async def _end(bench: Bench, pod: JSON) -> None:
    await bench.kubelet.end(pod)
    if is_last(pod):
        bench.finished += 1
        await bench.new_items(1)


async def fleet(bench: Bench, size: int) -> Fleet:
    """So many items, all but the 200 under way finished."""
    example = await _finished(bench)
    await bench.new_items(max(size - bench.items, 0), example)
    return await _cold(bench, "finished")


async def waiting_fleet(bench: Bench, size: int) -> Fleet:
    """The same with as many items again that are not finished and wait for a person: all of them are watched."""
    example = {**await _finished(bench), "phase": "Suspended", "stage": "stage-3"}
    example["completed"] = ["stage-1", "stage-2"]
    example.pop("finishedAt", None)
    names = [f"w{n:05d}" for n in range(size - ACTIVE)]
    await objects.create(bench.client, NAMESPACE, names, example, suspend=True)
    bench.items += len(names)
    return await _cold(bench, f"{bench.items - len(names) - ACTIVE} finished, {len(names)} suspended")


async def _finished(bench: Bench) -> JSON:
    """The status of an item that went its whole way; one goes it now if none has."""
    if bench.example is None:
        item = item_of(bench.kubelet.running[0])
        with bench.operator() as operator:
            while True:
                pod = await bench.kubelet.running_pod(item, PATIENCE_SECONDS)
                await _end(bench, pod)
                if is_last(pod):
                    break
            await _calm(operator)
        bench.example = await objects.status(bench.client, NAMESPACE, item)
        if bench.example["phase"] != "Done":
            raise RuntimeError(f"item {item} went through all stages and is not done: {bench.example}")
    return dict(bench.example)


async def _cold(bench: Bench, others: str) -> Fleet:
    """While the operator was away one pod has ended: how long until its item's next Job is the question."""
    pod = next(pod for pod in bench.kubelet.running if not is_last(pod))
    item = item_of(pod)
    await bench.kubelet.end(pod)
    jobs = await bench.client.get(f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs?limit=1")
    count = 1 + jobs["metadata"].get("remainingItemCount", 0)
    since, began = audit.position(bench.plane.audit_log), time.time()
    with bench.operator() as operator:
        first = await _first_job(bench, item, since) - began
        say(f"{bench.items} items: the first right action after {first:.1f} s")
        start = await _calm(operator)
        idle = await _idle(operator, bench.options.idle_seconds)
    return Fleet(bench.items, others, count, first, start, idle)


async def _first_job(bench: Bench, item: str, since: int) -> float:
    """The moment of the API server's clock at which a Job of this item was asked for."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            created = audit.read(bench.plane.audit_log, since).created
            if item in created:
                return min(created[item].values())
            await asyncio.sleep(0.5)


async def _calm(operator: Operator) -> Usage:
    """Wait until the process has nothing to do."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        await asyncio.sleep(CALM_SECONDS)
        while True:
            before = operator.usage
            await asyncio.sleep(CALM_SECONDS)
            if operator.usage.since(before).core < CALM_CORE:
                return operator.usage


async def _idle(operator: Operator, seconds: float) -> Usage:
    before = operator.usage
    await asyncio.sleep(seconds)
    return operator.usage.since(before)


def percentile(values: list[float], percent: int) -> float:
    """The value that so many per cent of `values` do not exceed; nan without values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) * percent // 100, len(ordered) - 1)] if ordered else float("nan")
