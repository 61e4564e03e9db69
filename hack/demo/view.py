"""How a work item looks to somebody who watches: pure functions from its status to lines of text.

Two ways to show the same thing. `screen` is all of it, for a terminal that is drawn again; `changes` is what is new
since the last look, for a pipe, where every line stays.
"""

from __future__ import annotations

import datetime as dt
import itertools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

Object = dict[str, Any]
BRIEF = 140
MARKS = {"Passed": "✓", "Failed": "✗", "Error": "!", "Skipped": "-", "Pending": "…"}


def status_of(item: Object) -> Object:
    """Return the status, empty where the operator has not written one."""
    status: Object = item.get("status") or {}
    return status


def ready(item: Object) -> tuple[str, str]:
    """Return reason and message of the Ready condition: what the item is doing, or what a person must do."""
    for condition in status_of(item).get("conditions", []):
        if condition["type"] == "Ready":
            return condition.get("reason", ""), condition.get("message", "")
    return "", ""


def pull_request(item: Object) -> Object | None:
    """Return what the status says of the pull request; None where there is none."""
    found: Object | None = status_of(item).get("pullRequest")
    return found


def merged(pull: Object) -> str:
    """Say where the pull request stands."""
    commit = pull.get("mergeCommit")
    return f"Pull request #{pull['number']} is {pull['state']}" + (f" as {commit[:10]}" if commit else "") + "."


def _brief(text: str) -> str:
    """Return the first line, cut: messages may end with a manifest to paste, which belongs into `kubectl describe`."""
    line = (text.strip().splitlines() or [""])[0]
    return line if len(line) <= BRIEF else f"{line[: BRIEF - 1]}…"


def screen(item: Object, stages: Sequence[str]) -> list[str]:
    """Return the whole picture: stages, what is going on, gates and runs."""
    status = status_of(item)
    reason, message = ready(item)
    return [
        f"{item['metadata']['name']}  {item['spec']['title']}",
        _path(status, stages),
        f"{status.get('phase', 'Pending')} {reason}: {_brief(message)}",
        *([merged(pull)] if (pull := pull_request(item)) else []),
        "",
        *gates_table(item),
        "",
        *runs_table(item),
    ]


def _path(status: Object, stages: Sequence[str]) -> str:
    """Show the stages in a row, the ones behind marked as done."""
    current = status.get("stage", "created")
    if current == "done":
        return "  ".join(f"✓ {stage}" for stage in stages) + "  ✓ done"
    at = stages.index(current) if current in stages else -1
    marks = ["✓" if place < at else "▶" if place == at else "·" for place in range(len(stages))]
    return "  ".join(f"{mark} {stage}" for mark, stage in zip(marks, stages, strict=True)) + "  · done"


def gates_table(item: Object) -> list[str]:
    """Return the gates with result and reason, as a table."""
    rows = [
        [
            f"{MARKS.get(gate['result'], '?')} {gate['name']}",
            gate["stage"],
            gate["result"],
            gate["reason"],
            _brief(gate.get("message", "")),
        ]
        for gate in status_of(item).get("gates", [])
    ]
    return _table(["GATE", "STAGE", "RESULT", "REASON", "MESSAGE"], rows)


def runs_table(item: Object) -> list[str]:
    """Return the runs with result, duration and commit, the live one last, as a table."""
    status = status_of(item)
    rows = [
        [
            str(run["number"]),
            run["agent"],
            run["stage"],
            str(run["attempt"]),
            run["result"],
            _seconds(run),
            (run.get("commit") or "")[:10],
        ]
        for run in status.get("runs", [])
    ]
    rows.sort(key=lambda row: int(row[0]))
    if live := status.get("run"):
        rows.append([str(live["number"]), live["agent"], live["stage"], str(live["attempt"]), live["state"], "", ""])
    return _table(["RUN", "AGENT", "STAGE", "ATTEMPT", "RESULT", "TOOK", "COMMIT"], rows)


def _seconds(run: Object) -> str:
    start, end = (dt.datetime.fromisoformat(run[key]) for key in ("startedAt", "finishedAt"))
    return f"{(end - start).total_seconds():.0f}s"


def _table(header: list[str], rows: list[list[str]]) -> list[str]:
    flat = [[" ".join(cell.split()) for cell in row] for row in [header, *rows]]
    widths = [max(len(row[column]) for row in flat) for column in range(len(header))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in flat]


def changes(before: Object, after: Object, stages: Sequence[str]) -> list[str]:
    """Return one line for each thing that happened between two looks, in the order in which it happens."""
    old, new = status_of(before), status_of(after)
    return [
        *_new_runs(old, new),
        *_new_gates(old, new),
        *_new_pull_request(before, after),
        *_moved(old, new, stages),
        *_started(old, new),
        *_waits(before, after),
    ]


def _new_runs(old: Object, new: Object) -> list[str]:
    known = {run["number"] for run in old.get("runs", [])}
    return [
        f"run {run['number']}: {run['agent']} {run['result']} after {_seconds(run)}"
        + (f", commit {run['commit'][:10]}" if run.get("commit") else "")
        + (f": {_brief(run['message'])}" if run.get("message") and run["result"] != "Succeeded" else "")
        for run in sorted(new.get("runs", []), key=lambda run: int(run["number"]))
        if run["number"] not in known
    ]


def _new_gates(old: Object, new: Object) -> list[str]:
    known = {(gate["stage"], gate["name"]): _result(gate) for gate in old.get("gates", [])}
    return [
        f"gate {MARKS.get(gate['result'], '?')} {gate['name']} {gate['result']}"
        + (f": {_brief(gate['message'])}" if gate.get("message") else "")
        for gate in new.get("gates", [])
        if _result(gate) != known.get((gate["stage"], gate["name"]))
    ]


def _result(gate: Object) -> tuple[str, str, int]:
    return gate["result"], gate["reason"], gate.get("attempt", 0)


def _new_pull_request(before: Object, after: Object) -> list[str]:
    old, new = pull_request(before) or {}, pull_request(after)
    if not new or (new["number"], new["state"]) == (old.get("number"), old.get("state")):
        return []
    return [f"⇢ {merged(new)}"]


def _moved(old: Object, new: Object, stages: Sequence[str]) -> list[str]:
    """Say each move, those too that lie between the two looks: the runs that ended meanwhile tell the way."""
    known = {run["number"] for run in old.get("runs", [])}
    ended = sorted((run for run in new.get("runs", []) if run["number"] not in known), key=lambda run: run["number"])
    way = [old.get("stage", "created"), *(run["stage"] for run in ended), new.get("stage", "created")]
    before, after = (sum(entry["attempts"] for entry in status.get("rework", [])) for status in (old, new))
    reworks, order, lines = after - before, ["created", *stages, "done"], []
    for here, there in itertools.pairwise(way):
        if here == there:
            continue
        if here not in order or there not in order or order.index(there) > order.index(here):
            lines.append(f"▶ stage {there}")
        elif reworks > 0:
            reworks -= 1
            lines.append(f"↩ rework: {here} sends the item back to {there}")
        else:
            # Not every way back is somebody's finding: a gate about the exact commit is asked again for a newer one.
            lines.append(f"↺ back at {there}: a gate there must see the new commit")
    return lines


def _started(old: Object, new: Object) -> list[str]:
    live, last = new.get("run"), old.get("run") or {}
    if not live or (live["number"], live["state"]) == (last.get("number"), last.get("state")):
        return []
    if live["state"] != "Running":
        return []
    return [f"run {live['number']}: {live['agent']} works on {live['stage']}, attempt {live['attempt']}"]


def _waits(before: Object, after: Object) -> list[str]:
    phase = status_of(after).get("phase", "Pending")
    if phase == status_of(before).get("phase", "Pending") or phase == "InProgress":
        return []
    return [f"phase {phase}: {_brief(ready(after)[1])}"]
