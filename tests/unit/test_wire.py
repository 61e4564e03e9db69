"""What a Job and the operator say to each other: written once, read by whoever trusts it or by whoever does not."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from pydantic import ValidationError

from workitems.protocol import Author, Excerpt, Problem, RunKind, RunReport, RunTask, Usage, Verdict
from workitems.wire import UnreadableError

TASK = RunTask(
    kind=RunKind.AGENT,
    item="et-12",
    uid="u",
    run=3,
    stage="review",
    attempt=2,
    agent="reviewer",
    repository="shop",
    url="https://git.example.com/shop.git",
    branch="feature/x",
    base_branch="main",
    commit=Author("Bot", "bot@example.com"),
    commit_paths=("docs/", "ü\u2028 \x00"),
    prompt="$(X) 'quoted' \"twice\"\n",
)
REPORT = RunReport(
    run=3,
    uid="u",
    head="a" * 40,
    code="sha256:" + "0" * 64,
    blobs=("b" * 40, None),
    left_out=("junk",),
    left_out_total=1,
    verdicts=(Verdict("docs/r.md", ("APPROVED",)),),
    excerpts=(Excerpt("docs/r.md", "я"),),
    not_fetched=("lfs",),
    usage=Usage(cost_usd="0.25", input_tokens=7),
    problem=Problem("GitFailed", "it did", retry=True),
)


def test_a_task_comes_back_as_it_was_written() -> None:
    assert RunTask.loads(TASK.dumps()) == TASK
    assert RunTask.loads(TASK.dumps().encode()) == TASK


def test_a_report_comes_back_as_it_was_written() -> None:
    assert RunReport.strictly(REPORT.dumps()) == REPORT


def test_names_are_camel_case_nothing_is_null_but_a_place_in_a_list() -> None:
    body = json.loads(REPORT.dumps())
    assert body["leftOutTotal"] == 1
    assert body["usage"]["costUSD"] == "0.25"
    assert body["blobs"] == ["b" * 40, None]
    assert "baseCommit" not in body


def test_what_a_newer_version_adds_is_ignored() -> None:
    body = {**REPORT.to_json(), "tomorrow": {"x": 1}}
    assert RunReport.strictly(json.dumps(body)) == REPORT
    assert RunTask.loads(json.dumps({**TASK.to_json(), "tomorrow": [1]})) == TASK


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"kind": "Deploy"}, "kind"),
        ({"run": "3"}, "run"),
        ({"run": True}, "run"),
        ({"item": None}, "item"),
        ({"commit": "me"}, "commit"),
        ({"commit": {"name": 1}}, "commit.name"),
        ({"watch": "docs"}, "watch"),
        ({"watch": ["docs", 1]}, "watch.1"),
        ({"adoptBranch": "yes"}, "adoptBranch"),
    ],
)
def test_a_task_of_another_shape_is_refused_by_the_fields_name(change: dict[str, Any], place: str) -> None:
    with pytest.raises(UnreadableError) as refused:
        RunTask.loads(json.dumps({**TASK.to_json(), **change}))
    assert str(refused.value) == place


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"', "[" * 100_000, "\udcff", '{"kind": "Agent"}'])
def test_what_is_no_task_at_all_is_refused(text: str) -> None:
    with pytest.raises(UnreadableError):
        RunTask.loads(text)


@pytest.mark.parametrize(
    "change",
    [
        {"head": "master"},
        {"head": "A" * 40},
        {"code": "sha256:0"},
        {"blobs": ["a" * 40] * 257},
        {"blobs": ["x"]},
        {"leftOut": ["x"] * 21},
        {"leftOut": ["x" * 256]},
        {"verdicts": [{"file": "f", "values": ["x"] * 5}]},
        {"verdicts": [{"file": "f" * 513}]},
        {"verdicts": [{"file": "f", "values": ["x" * 64]}]},
        {"excerpts": [{"file": "f", "text": "x" * 4097}]},
        {"notFetched": ["anything"]},
        {"usage": {"costUSD": "0" * 25}},
        {"problem": {"reason": "not a reason", "message": ""}},
        {"problem": {"reason": "Fine", "message": "x" * 1025}},
        {"run": None},
    ],
)
def test_a_report_beyond_its_limits_is_refused_by_the_strict_reader(change: dict[str, Any]) -> None:
    assert RunReport.strictly(json.dumps(REPORT.to_json())) == REPORT
    with pytest.raises(ValidationError):
        RunReport.strictly(json.dumps({**REPORT.to_json(), **change}))


def test_values_do_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        TASK.run = 4  # type: ignore[misc]
