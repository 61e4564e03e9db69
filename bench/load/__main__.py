"""Run all scenarios and print the report."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import platform
import signal
import sys
import time
from pathlib import Path

from bench.load import controlplane, objects, scenarios
from bench.load.client import Client
from bench.load.kubelet import Kubelet
from bench.load.scenarios import Bench, Fleet, Options, Step, percentile
from hack.cluster.shell import say

GOAL_RATE, GOAL_P50_MS, GOAL_P99_MS, GOAL_WRITES = 50, 50, 250, 3
GOAL_MB, GOAL_START_SECONDS, GOAL_IDLE = 150, 15, 0.01


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m bench.load", description=__doc__)
    default = Options()
    parser.add_argument("--rates", type=int, nargs="*", default=default.rates, help="ends of pods a second")
    parser.add_argument("--seconds", type=float, default=default.step_seconds, help="at each rate")
    parser.add_argument("--fleets", type=int, nargs="*", default=default.fleets, help="numbers of items")
    parser.add_argument("--idle", type=float, default=default.idle_seconds, help="seconds of looking on")
    parser.add_argument("--waiting", type=int, default=10_000, help="items that wait for a person; 0: leave it out")
    parser.add_argument("--profile", type=Path, help="where the operator's CPU time under load went, into this file")
    arguments = parser.parse_args()
    options = Options(
        tuple(arguments.rates), arguments.seconds, tuple(arguments.fleets), arguments.idle, arguments.profile
    )
    # Ended from outside, it still takes its control plane away.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    with controlplane.running() as plane:
        asyncio.run(_measure(plane, options, arguments.waiting))


async def _measure(plane: controlplane.ControlPlane, options: Options, waiting: int) -> None:
    async with Client(plane) as client:
        kubelet = Kubelet(client)
        bench = Bench(plane, client, kubelet, await objects.prepare(client, plane), options)
        playing = asyncio.create_task(kubelet.run())
        try:
            print(machine())
            if options.fleets:
                print(fleet_rows([await scenarios.alone(bench)], head=True))
            steps = await scenarios.throughput(bench)
            print(throughput_report(steps))
            for size in options.fleets:
                print(fleet_rows([await scenarios.fleet(bench, size)]))
            if waiting:
                print(fleet_rows([await scenarios.waiting_fleet(bench, waiting)]))
        finally:
            playing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await playing
            say("stopping")


def machine() -> str:
    """What the figures are worth."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
    python = f"Python {platform.python_version()}, pace {pace_ns():.0f} ns"
    return f"{os.cpu_count()} cores ({model}), {memory:.0f} GiB, {python}, load {load}\n"


def pace_ns() -> float:
    """CPU time of one turn of a loop that does next to nothing: machines of the same name differ by this."""
    turns = 10**6
    began = time.process_time()
    for number in range(turns):
        _ = number * number
    return (time.process_time() - began) * 1e9 / turns


def throughput_report(steps: list[Step]) -> str:
    """A table, a row for each rate, and what it says about the goals."""
    lines = [
        "| pods end | done | p50 | p99 | CPU a transition | of a core | had to wait for a core | writes | reads |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [_step_row(step) for step in steps]
    ends, cpu = sum(step.ends for step in steps), sum(step.usage.cpu for step in steps)
    good = [step.rate for step in steps if step.rate and not step.grows]
    lines += [
        "",
        f"one core does {ends / cpu:.0f} transitions a second (goal {GOAL_RATE}), {cpu * 1000 / ends:.1f} ms each",
        f"highest rate at which the queue did not grow: {max(good, default=0)}/s",
        f"goals: p50 {GOAL_P50_MS} ms, p99 {GOAL_P99_MS} ms, {GOAL_WRITES} writes a transition",
    ]
    requests = sum((step.story.requests for step in steps), start=type(steps[0].story.requests)())
    lines += [f"  {count / ends:5.2f} {verb} {resource}" for (verb, resource), count in requests.most_common(20)]
    return "\n".join(lines) + "\n"


def _step_row(step: Step) -> str:
    waited, rate = step.usage.waited / step.usage.wall, f"{step.rate}/s" if step.rate else "at once"
    p50, p99 = (f"{percentile(step.latencies, percent):.0f} ms" for percent in (50, 99))
    writes, reads = step.story.writes / step.ends, step.story.reads / step.ends
    cells = [rate, f"{step.ends / step.worked:.0f}/s", p50, p99, f"{step.cpu_ms:.1f} ms", f"{step.usage.core:.0%}"]
    return f"| {' | '.join([*cells, f'{waited:.0%}', f'{writes:.2f}', f'{reads:.2f}'])} |"


def fleet_rows(fleets: list[Fleet], *, head: bool = False) -> str:
    """Rows of the table of fleets."""
    lines = [
        "| items | of which 200 have a run; the others | Jobs | first action | start: CPU | memory | peak | idle |",
        "|---|---|---|---|---|---|---|---|",
    ]
    rows = [
        f"| {fleet.items} | {fleet.others} | {fleet.jobs} "
        f"| {f'{fleet.first_action:.1f} s' if fleet.first_action is not None else ''} | {fleet.start.cpu:.1f} s "
        f"| {fleet.idle.rss:.0f} MB | {fleet.idle.peak:.0f} MB | {fleet.idle.core:.2%} |"
        for fleet in fleets
    ]
    return "\n".join([*(lines if head else ()), *rows])


if __name__ == "__main__":
    main()
