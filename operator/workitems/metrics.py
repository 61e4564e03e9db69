"""What the operator counts about itself and the work, for Prometheus.

Labels are words of Pipelines and of the contract (stage, agent, gate, result), never names of items, branches or
people: the number of series depends on how a team works, not on how much. Transitions are counted after the status
write that made them, so a write that failed counts nothing; a kill between the write and the counting loses a count.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from decimal import Decimal
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from workitems.api import GateResult, WorkItemStatus
from workitems.core import conditions
from workitems.core.transitions import Transition

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_RUN_SECONDS = (5, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200)
_ITEM_SECONDS = (60, 300, 900, 1800, 3600, 4 * 3600, 12 * 3600, 86400, 3 * 86400, 7 * 86400)
_STEP_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
LAG_PROBE_SECONDS = 5.0

Calls = Mapping[tuple[str, str, int], int]
"""Requests to the API server by (verb, resource, HTTP code)."""


class Metrics:
    """All metrics of one operator, in a registry of its own."""

    def __init__(self) -> None:
        """Register them; the process's own (CPU, memory, file descriptors) too."""
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._stages = self._counter("workitem_stage_transitions", "Stages entered, forwards or back.", "stage")
        self._phases = self._counter("workitem_phase_transitions", "Phases entered.", "phase")
        self._gates = self._counter("workitem_gate_results", "Results of gates.", "stage", "gate", "result")
        self._runs = self._counter("workitem_runs", "Runs that ended, by result.", "stage", "agent", "result")
        self._run_seconds = self._histogram(
            "workitem_run_duration_seconds", "From a run's announcement to its end.", _RUN_SECONDS, "stage", "agent"
        )
        self._item_seconds = self._histogram(
            "workitem_duration_seconds", "From an item's start to its end, waits for people included.",
            _ITEM_SECONDS, "phase",
        )  # fmt: skip
        self._cost = self._counter("workitem_cost_usd", "What agents said they cost, in US dollars.", "stage", "agent")
        self._tokens = self._counter("workitem_tokens", "Tokens that agents used.", "stage", "agent", "direction")
        self._effects = self._counter("workitem_effects", "Outside effects that came into a state.", "kind", "state")
        self._steps = self._histogram("workitem_reconcile_seconds", "One look at one item.", _STEP_SECONDS, "outcome")
        self._items = Gauge(
            "workitem_unfinished_items", "Unfinished items at the last sweep, by phase.", ["phase"],
            registry=self.registry,
        )  # fmt: skip
        self._lag = Gauge(
            "workitem_event_loop_lag_seconds", "How late the event loop last was, asked every five seconds.",
            registry=self.registry,
        )  # fmt: skip

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(name, text, labels, buckets=buckets, registry=self.registry)

    def transition(self, transition: Transition, after: WorkItemStatus) -> None:
        """Count what a written step changed."""
        if transition.stage is not None:
            self._stages.labels(transition.stage).inc()
        if transition.phase is not None:
            self._phases.labels(str(transition.phase)).inc()
            if transition.phase in conditions.FINISHED and after.started_at and after.finished_at:
                took = after.finished_at - after.started_at
                self._item_seconds.labels(str(transition.phase)).observe(_seconds(took))
        for gate in transition.gates:
            if gate.result is not GateResult.PENDING:
                self._gates.labels(gate.stage, gate.name, str(gate.result)).inc()
        for run in transition.finished:
            self._runs.labels(run.stage, run.agent, str(run.result)).inc()
            self._run_seconds.labels(run.stage, run.agent).observe(_seconds(run.finished_at - run.started_at))
            if run.usage is not None:
                self._cost.labels(run.stage, run.agent).inc(float(Decimal(run.usage.cost_usd)))
                self._tokens.labels(run.stage, run.agent, "input").inc(run.usage.input_tokens)
                self._tokens.labels(run.stage, run.agent, "output").inc(run.usage.output_tokens)
        for effect in transition.effects:
            self._effects.labels(effect.kind, effect.state).inc()

    def step(self, seconds: float, outcome: str) -> None:
        """Count one look at an item: `done`, or the name of the error that ended it."""
        self._steps.labels(outcome).observe(seconds)

    def swept(self, phases: Mapping[str, int]) -> None:
        """Take the number of unfinished items in each phase, as the last sweep found them."""
        self._items.clear()
        for phase, count in phases.items():
            self._items.labels(phase).set(count)

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Show a number that somebody else keeps, read when it is asked for."""
        Gauge(name, text, registry=self.registry).set_function(read)

    def api_calls(self, calls: Calls) -> None:
        """Show the requests that the connection to the API server has counted."""
        labels = ("verb", "resource", "code")
        text = "Requests to the API server, watches left out; code 0 is no answer."
        self.registry.register(_Counted("workitem_api_requests", text, labels, calls))

    def webhooks(self, answers: Mapping[tuple[str, int], int]) -> None:
        """Show how the receiver has answered deliveries."""
        text = "Deliveries of webhooks by source and answer; 401 is a wrong signature."
        self.registry.register(_Counted("workitem_webhook_deliveries", text, ("source", "code"), answers))

    async def watch_loop(self) -> None:
        """Measure the event loop's lag for ever."""
        loop = asyncio.get_running_loop()
        while True:
            before = loop.time()
            await asyncio.sleep(LAG_PROBE_SECONDS)
            self._lag.set(max(loop.time() - before - LAG_PROBE_SECONDS, 0.0))

    def text(self) -> bytes:
        """All of it as Prometheus reads it."""
        return generate_latest(self.registry)


class _Counted(Collector):
    """What others count themselves, by a tuple of labels; it is only shown here."""

    def __init__(self, name: str, text: str, labels: tuple[str, ...], counts: Mapping[Any, int]) -> None:
        self._name, self._text, self._labels = name, text, labels
        self._counts = counts

    def collect(self) -> Iterable[Metric]:
        family = CounterMetricFamily(self._name, self._text, labels=self._labels)
        for values, count in self._counts.items():
            family.add_metric([str(value) for value in values], count)
        yield family


def _seconds(duration: timedelta) -> float:
    return max(duration.total_seconds(), 0.0)
