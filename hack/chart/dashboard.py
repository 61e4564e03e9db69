"""The Grafana dashboard, from a table: JSON of this size is written by nobody and reviewed by nobody.

`make crds` writes it into the chart. A row is a title and its panels; a panel is a title, a unit and its queries, each
with the legend of its series.
"""

from __future__ import annotations

import json
from typing import Any

JSON = dict[str, Any]
Panel = tuple[str, str, dict[str, str]]

_RATE = "$__rate_interval"

ROWS: dict[str, list[Panel]] = {
    "The work": [
        ("Unfinished items by phase", "short", {"sum by (phase) (workitem_unfinished_items)": "{{phase}}"}),
        ("Items finished", "short", {
            'sum by (phase) (increase(workitem_phase_transitions_total{phase=~"Done|Aborted"}[1h]))': "{{phase}}",
        }),
        ("Stages entered", "short", {"sum by (stage) (increase(workitem_stage_transitions_total[1h]))": "{{stage}}"}),
        ("From start to end, median", "s", {
            "histogram_quantile(0.5, sum by (le, phase) (increase(workitem_duration_seconds_bucket[1d])))": "{{phase}}",
        }),
    ],
    "Runs": [
        ("Runs by result", "short", {"sum by (result) (increase(workitem_runs_total[1h]))": "{{result}}"}),
        ("A run's time, 90th percentile", "s", {
            "histogram_quantile(0.9, sum by (le, stage) (increase(workitem_run_duration_seconds_bucket[6h])))":
                "{{stage}}",
        }),
        ("Runs under way and waiting", "short", {
            "sum(workitem_concurrent_runs)": "under way", "sum(workitem_queued_items)": "waiting for a place",
        }),
        ("Results of gates", "short", {
            "sum by (gate, result) (increase(workitem_gate_results_total[1h]))": "{{gate}} {{result}}",
        }),
    ],
    "Cost": [
        ("US dollars an hour", "currencyUSD", {"sum by (agent) (increase(workitem_cost_usd_total[1h]))": "{{agent}}"}),
        ("Tokens", "short", {
            "sum by (agent, direction) (increase(workitem_tokens_total[1h]))": "{{agent}} {{direction}}",
        }),
        ("Outside effects", "short", {
            "sum by (kind, state) (increase(workitem_effects_total[1h]))": "{{kind}} {{state}}",
            "sum(workitem_outbox_items)": "items with something to tell",
        }),
        ("Deliveries of webhooks", "reqps", {
            "sum by (source, code) (rate(workitem_webhook_deliveries_total[$__rate_interval]))": "{{source}} {{code}}",
        }),
    ],
    "The operator": [
        ("Queue", "short", {
            "sum(workitem_queue_depth)": "waiting", "sum(workitem_queue_working)": "being looked at",
            "sum(workitem_queue_delayed)": "later", "sum(workitem_queue_failing)": "failing",
        }),
        ("Age of the oldest key", "s", {"max(workitem_queue_oldest_age_seconds)": "oldest"}),
        ("A look at an item, 99th percentile", "s", {
            f"histogram_quantile(0.99, sum by (le, outcome) (rate(workitem_reconcile_seconds_bucket[{_RATE}])))":
                "{{outcome}}",
        }),
        ("Event loop's lag", "s", {"max(workitem_event_loop_lag_seconds)": "lag"}),
        ("Requests to the API server", "reqps", {
            f"sum by (verb, code) (rate(workitem_api_requests_total[{_RATE}]))": "{{verb}} {{code}}",
        }),
        ("CPU", "short", {f'sum(rate(process_cpu_seconds_total{{job=~".*workitem-operator"}}[{_RATE}]))': "cores"}),
        ("Memory", "bytes", {'sum(process_resident_memory_bytes{job=~".*workitem-operator"})': "resident"}),
    ],
}  # fmt: skip

WIDTH, HEIGHT, COLUMNS = 24, 8, 4


def text() -> str:
    """The dashboard as Grafana reads it, the same text every time."""
    return json.dumps(dashboard(), indent=1) + "\n"


def dashboard() -> JSON:
    """The dashboard's model."""
    panels: list[JSON] = []
    top = 0
    for row, content in ROWS.items():
        panels.append(
            {"type": "row", "title": row, "gridPos": _place(0, top, WIDTH, 1), "id": len(panels) + 1, "panels": []}
        )
        top += 1
        for index, panel in enumerate(content):
            line, column = divmod(index, COLUMNS)
            width = WIDTH // COLUMNS
            place = _place(column * width, top + line * HEIGHT, width, HEIGHT)
            panels.append({**_panel(panel), "gridPos": place, "id": len(panels) + 1})
        top += -(-len(content) // COLUMNS) * HEIGHT
    return {
        "uid": "workitem-operator",
        "title": "WorkItems",
        "tags": ["workitem-operator"],
        "schemaVersion": 39,
        "time": {"from": "now-24h", "to": "now"},
        "refresh": "1m",
        "templating": {
            "list": [{"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}]
        },
        "panels": panels,
    }


def _panel(panel: Panel) -> JSON:
    title, unit, queries = panel
    source = {"type": "prometheus", "uid": "${datasource}"}
    targets = [
        {"refId": chr(ord("A") + number), "expr": query, "legendFormat": legend, "datasource": source}
        for number, (query, legend) in enumerate(queries.items())
    ]
    defaults = {"unit": unit, "min": 0}
    return {
        "type": "timeseries",
        "title": title,
        "datasource": source,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "targets": targets,
    }


def _place(x: int, y: int, width: int, height: int) -> JSON:
    return {"x": x, "y": y, "w": width, "h": height}
