"""Alerts and dashboard ask for metrics and labels that the operator has."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from unittest import mock

import promql_parser
import pytest
import yaml
from prometheus_client import CollectorRegistry

from hack.chart import dashboard
from hack.chart.sources import CHART
from workitems import cluster, connect, operate
from workitems.settings import Settings

ALERTS = [
    rule for group in yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())["groups"] for rule in group["rules"]
]
QUERIES = {f"alert {rule['alert']}": rule["expr"] for rule in ALERTS} | {
    f"panel {title}: {query}": query.replace("$__rate_interval", "5m")
    for panels in dashboard.ROWS.values()
    for title, _unit, queries in panels
    for query in queries
}
PROMETHEUS = {"job", "instance", "namespace", "pod"}
"""Labels that the scrape adds."""


class Api(cluster.Cluster):
    """No connection: the operator is put together and never run."""

    def __init__(self) -> None:
        self.calls = collections.Counter({("get", "pods", 200): 1})


@pytest.fixture
async def known() -> dict[str, set[str]]:
    """Name of a series -> its labels, of everything that a whole operator registers."""
    settings = Settings(namespace="workitem-operator", runner_image="r", agent_image="a")
    clients = mock.Mock(spec=connect.Clients)
    whole = operate.Operator(settings, Api(), clients, lambda: datetime.now(UTC))
    whole._deliveries["gitea", 401] = 1
    registry: CollectorRegistry = whole._metrics.registry
    found: dict[str, set[str]] = {}
    for family in registry.collect():
        collector: Any = registry._names_to_collectors.get(family.name)
        labels = set(getattr(collector, "_labelnames", ()))
        labels |= {label for sample in family.samples for label in sample.labels}
        match family.type:
            case "counter":
                found[f"{family.name}_total"] = labels
            case "histogram":
                found |= {f"{family.name}{end}": labels | {"le"} for end in ("_bucket", "_sum", "_count")}
            case _:
                found[family.name] = labels
    return found


def parts(node: Any) -> Iterator[Any]:
    """Every expression inside an expression."""
    yield node
    for name in ("expr", "lhs", "rhs", "vector_selector", "param"):
        inner = getattr(node, name, None)
        if inner is not None:
            yield from parts(inner)
    for inner in getattr(node, "args", None) or ():
        yield from parts(inner)


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_a_query_asks_for_what_there_is(query: str, known: dict[str, set[str]]) -> None:
    nodes = list(parts(promql_parser.parse(query)))
    selectors = [node for node in nodes if isinstance(node, promql_parser.VectorSelector)]
    assert selectors
    labels: set[str] = set()
    for selector in selectors:
        assert selector.name in known
        assert {m.name for m in selector.matchers.matchers} <= known[selector.name] | PROMETHEUS
        labels |= known[selector.name]
    for node in nodes:
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            assert set(node.modifier.labels) <= labels | PROMETHEUS


def test_no_label_names_an_item_a_branch_or_a_person(known: dict[str, set[str]]) -> None:
    allowed = {"stage", "agent", "gate", "result", "phase", "direction", "kind", "state", "outcome", "le"}
    ours = {name: labels for name, labels in known.items() if name.startswith("workitem_")}
    assert set().union(*ours.values()) <= allowed | {"verb", "resource", "code", "source"}


def test_every_metric_of_ours_is_shown(known: dict[str, set[str]]) -> None:
    asked = " ".join(QUERIES.values())
    names = {name for name in known if name.startswith("workitem_") and not name.endswith(("_sum", "_count"))}
    assert {name for name in names if name not in asked} == set()


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: str(rule["alert"]))
def test_an_alert_says_what_is_wrong_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert rule["for"]
    assert len(rule["annotations"]["summary"].split()) > 3
    assert len(rule["annotations"]["description"].split()) > 5


def test_panels_do_not_lie_on_each_other() -> None:
    places = [panel["gridPos"] for panel in dashboard.dashboard()["panels"]]
    cells = [
        (x, y)
        for place in places
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < dashboard.WIDTH
