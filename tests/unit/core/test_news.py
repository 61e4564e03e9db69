"""Which events of a Job or a pod are worth a look."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from workitems.core import news
from workitems.core.facts import ContainerView, JobView, PodView

NOW = datetime(2026, 11, 25, 12, 0, 0, tzinfo=UTC)
RUNNING = ContainerView(running=True)


def pod(phase: str = "Running", age: float = 1, **changes: object) -> str:
    containers = {"runner": RUNNING, "agent": RUNNING}
    fields: dict[str, object] = {"created": NOW - timedelta(seconds=age), "containers": containers, **changes}
    return news.of_pod(PodView(name="p", phase=phase, **fields), NOW)  # type: ignore[arg-type]


USUAL = {
    "a pod that was just made": pod("Pending", containers={}),
    "one that has a node": pod("Pending", node="n", containers={}),
    "one whose containers are made": pod(
        "Pending", containers=dict.fromkeys(("runner", "agent"), ContainerView(reason="ContainerCreating"))
    ),
    "one that waits for its first container": pod(
        "Pending", containers={"agent": ContainerView(reason="PodInitializing")}
    ),
    "one that runs": pod(),
    "one whose agent has ended well and is being published": pod(
        containers={"runner": RUNNING, "agent": ContainerView(exit_code=0)}
    ),
}
ENDED = ContainerView(exit_code=0)
UNUSUAL = {
    "both containers have ended": pod(containers={"runner": ENDED, "agent": ENDED}),
    "it has succeeded": pod("Succeeded", containers={"runner": ENDED, "agent": ENDED}),
    "it was evicted before it ran": pod("Failed", containers={}, disrupted="the node was low on memory"),
    "it is being deleted": pod(deleted=NOW),
    "there is no node for it": pod("Pending", unschedulable="0/1 nodes are available"),
    "its image cannot be pulled": pod("Pending", containers={"agent": ContainerView(reason="ErrImagePull")}),
    "its image cannot be pulled, and is not tried at once": pod(
        "Pending", containers={"agent": ContainerView(reason="ImagePullBackOff")}
    ),
    "its runner has failed": pod(containers={"runner": ContainerView(exit_code=1), "agent": RUNNING}),
    "its agent has failed": pod(containers={"runner": RUNNING, "agent": ContainerView(exit_code=1)}),
    "it runs at last": pod(age=60),
    "it is still not running": pod("Pending", age=60, containers={}),
}


@pytest.mark.parametrize("sentence", USUAL)
def test_a_start_like_any_other_is_no_news(sentence: str) -> None:
    assert USUAL[sentence] == news.NONE


@pytest.mark.parametrize("sentence", UNUSUAL)
def test_what_may_change_a_decision_is_news(sentence: str) -> None:
    assert UNUSUAL[sentence] != news.NONE


def test_what_changes_a_decision_again_is_news_again() -> None:
    different = [value for key, value in UNUSUAL.items() if "has ended" not in key and "has succeeded" not in key]
    assert len(set(different)) == len(different)


def test_a_finished_pod_that_the_job_controller_lets_go_is_no_news_again() -> None:
    once, again = (pod("Succeeded", containers={"runner": ENDED, "agent": ENDED}, age=age) for age in (5, 90))
    assert once == again


def test_containers_that_have_ended_and_the_phase_that_says_so_later_are_one_end() -> None:
    assert UNUSUAL["both containers have ended"] == UNUSUAL["it has succeeded"]


def test_a_job_is_news_when_it_failed_or_is_being_deleted() -> None:
    job = JobView(name="j", uid="u")
    assert news.of_job(job, deleted=False) == news.NONE
    said = {
        news.of_job(job, deleted=True),
        news.of_job(JobView(name="j", uid="u", failed="DeadlineExceeded"), deleted=False),
        news.of_job(JobView(name="j", uid="u", failed="BackoffLimitExceeded"), deleted=False),
    }
    assert len(said | {news.NONE}) == 4
