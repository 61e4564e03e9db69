"""What somebody who watches the demo gets to see, from statuses as the contract has them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from hack.cluster.images import Images
from hack.demo import cluster, install, view

STAGES = ["analysis", "architecture", "development", "review", "testing", "deploy"]
Object = dict[str, Any]


def item(**status: Any) -> Object:
    return {"metadata": {"name": "et-1"}, "spec": {"title": "Discount codes at checkout"}, "status": status}


def run(number: int, agent: str, result: str = "Succeeded", message: str = "") -> Object:
    times = {"startedAt": "2026-11-22T14:00:00Z", "finishedAt": "2026-11-22T14:00:04Z"}
    return {"number": number, "agent": agent, "stage": "review", "attempt": 1, "result": result, **times} | {
        "commit": "4b825dc642cb6eb9a060e54bf8d69288fbee4904",
        "message": message,
    }


def gate(name: str, result: str, message: str = "") -> Object:
    return {"name": name, "stage": "review", "result": result, "reason": "Because", "message": message, "attempt": 1}


REVIEWING = item(stage="review", phase="InProgress", run={"number": 4, "agent": "reviewer", "state": "Running"})
SENT_BACK = item(
    stage="development",
    phase="InProgress",
    runs=[run(4, "reviewer")],
    rework=[{"gate": "review-approved", "attempts": 1}],
    gates=[gate("review-approved", "Failed", "12-review.md says REQUEST_CHANGES\nand much more")],
    run={"number": 5, "agent": "developer", "stage": "development", "attempt": 2, "state": "Running"},
)


def test_a_pipe_gets_each_step_of_a_rework_once_and_in_the_order_of_events() -> None:
    assert view.changes(REVIEWING, SENT_BACK, STAGES) == [
        "run 4: reviewer Succeeded after 4s, commit 4b825dc642",
        "gate ✗ review-approved Failed: 12-review.md says REQUEST_CHANGES",
        "↩ rework: review sends the item back to development",
        "run 5: developer works on development, attempt 2",
    ]
    assert view.changes(SENT_BACK, SENT_BACK, STAGES) == []


def test_what_moved_between_two_looks_is_told_move_by_move() -> None:
    developing = item(stage="development", phase="InProgress", runs=[])
    both = [run(3, "developer") | {"stage": "development"}, run(4, "reviewer")]
    back = item(stage="development", phase="InProgress", runs=both, rework=[{"gate": "review-approved", "attempts": 1}])
    moves = [line for line in view.changes(developing, back, STAGES) if not line.startswith("run")]
    assert moves == ["▶ stage review", "↩ rework: review sends the item back to development"]


def test_a_gate_that_must_see_a_new_commit_is_no_rework() -> None:
    back = item(stage="development", phase="InProgress", run=REVIEWING["status"]["run"])
    assert view.changes(REVIEWING, back, STAGES) == ["↺ back at development: a gate there must see the new commit"]


def test_a_terminal_shows_where_the_item_is_among_the_stages() -> None:
    assert view.screen(SENT_BACK, STAGES)[1] == (
        "✓ analysis  ✓ architecture  ▶ development  · review  · testing  · deploy  · done"
    )
    assert "· done" not in view.screen(item(stage="done", phase="Done"), STAGES)[1]


def test_an_item_that_the_operator_has_not_seen_yet_can_be_shown() -> None:
    new = {"metadata": {"name": "et-1"}, "spec": {"title": "t"}}
    assert "Pending" in "\n".join(view.screen(new, STAGES))
    assert view.changes({}, new, STAGES) == []


def test_why_an_item_waits_is_said_in_one_line() -> None:
    blocked = item(phase="Blocked", conditions=[{"type": "Ready", "reason": "X", "message": "No prompt.\nkubectl …"}])
    assert view.changes(item(), blocked, STAGES) == ["phase Blocked: No prompt."]


def test_objects_are_read_from_kubectls_stream_as_they_come_cut_anywhere() -> None:
    class Dribble(io.BytesIO):
        def read1(self, _size: int | None = -1, /) -> bytes:
            return super().read1(1)  # every cut there is, in the middle of an ä too

    bodies = [{"title": "Rabatt für Käufer {"}, {"n": 2}]
    stream = Dribble("\n".join(json.dumps(body, indent=4, ensure_ascii=False) for body in bodies).encode())
    assert list(cluster.documents(stream)) == bodies


@pytest.mark.parametrize(
    ("image", "flags"),
    [
        ("localhost/workitem-operator:abc", ["repository=localhost/workitem-operator", "tag=abc", "digest="]),
        ("registry:5000/team/operator", ["repository=registry:5000/team/operator", "tag=latest", "digest="]),
        ("registry:5000/operator@sha256:12", ["repository=registry:5000/operator", "digest=sha256:12"]),
    ],
)
def test_the_chart_gets_the_images_that_were_built(image: str, flags: list[str]) -> None:
    assert install.values(Images(operator=image, agent=image)) == [
        *(f"--set-string=image.{flag}" for flag in flags),
        *(f"--set-string=agentImage.{flag}" for flag in flags),
    ]


def test_helm_is_told_the_same_cluster_as_kubectl() -> None:
    kubectl = cluster.Kubectl(["/opt/kubectl", "--kubeconfig=/tmp/k", "--context=workitems-local"], "demo")
    command = install.helm_command(Path("/opt/helm"), kubectl)
    assert command[:4] == [
        "/opt/helm",
        "--kubeconfig=/tmp/k",
        "--kube-context=workitems-local",
        "--namespace=workitem-operator",
    ]


def test_a_pull_request_is_told_when_it_opens_and_when_it_is_merged() -> None:
    opened = item(stage="review", pullRequest={"number": 3, "state": "open"})
    merged = item(stage="review", pullRequest={"number": 3, "state": "merged", "mergeCommit": "4b825dc642cb6eb9"})
    assert view.changes(REVIEWING, opened, STAGES)[0] == "⇢ Pull request #3 is open."
    assert view.changes(opened, merged, STAGES) == ["⇢ Pull request #3 is merged as 4b825dc642."]
    assert "Pull request #3 is merged as 4b825dc642." in view.screen(merged, STAGES)
