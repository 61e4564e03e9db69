"""Liveness is told from what must happen: own writes come back by the watch, and keys reach a worker."""

from __future__ import annotations

import aiohttp
import pytest

from workitems import health, metrics, queue


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_watch_is_stalled_once_an_own_write_stays_without_an_event(clock: Clock) -> None:
    pulse = health.Pulse(clock)
    assert pulse.stalled() == ""
    pulse.written("team-a", clock.now)
    clock.now += health.WATCH_STALLED_SECONDS
    assert pulse.stalled() == ""
    clock.now += 1
    assert "team-a" in pulse.stalled()
    pulse.heard("team-b")
    assert "team-a" in pulse.stalled(), "each namespace has a watch of its own"
    pulse.heard("team-a")
    assert pulse.stalled() == ""


def test_an_event_that_came_before_the_writes_answer_counts(clock: Clock) -> None:
    pulse = health.Pulse(clock)
    began = clock.now
    clock.now += 1
    pulse.heard("team-a")
    clock.now += 1
    pulse.written("team-a", began)
    clock.now += 10 * health.WATCH_STALLED_SECONDS
    assert pulse.stalled() == ""


def test_later_writes_do_not_hide_the_first_one(clock: Clock) -> None:
    pulse = health.Pulse(clock)
    for _ in range(10):
        pulse.written("team-a", clock.now)
        clock.now += health.WATCH_STALLED_SECONDS / 5
    assert pulse.stalled()


async def test_the_three_paths(clock: Clock, unused_tcp_port: int) -> None:
    pulse, counted = health.Pulse(clock), metrics.Metrics()
    checks = health.Health(pulse, queue.Queue(), counted, ["/apis/a", "/apis/b"])
    address = f"http://127.0.0.1:{unused_tcp_port}"

    async with checks.served(unused_tcp_port), aiohttp.ClientSession() as session:

        async def ask(path: str) -> tuple[int, str]:
            async with session.get(f"{address}{path}") as answer:
                return answer.status, await answer.text()

        assert await ask("/healthz") == (200, "ok\n")
        checks.watched("/apis/a")
        assert await ask("/readyz") == (503, "starting: no watch of /apis/b yet\n")
        checks.watched("/apis/b")
        checks.watched("/apis/b")
        assert await ask("/readyz") == (200, "ok\n")
        counted.swept({"InReview": 3})
        assert 'workitem_unfinished_items{phase="InReview"} 3.0' in (await ask("/metrics"))[1]
        pulse.written("team-a", clock.now)
        clock.now += 2 * health.WATCH_STALLED_SECONDS
        status, text = await ask("/healthz")
        assert status == 503
        assert "team-a" in text
        assert await ask("/readyz") == (503, text)


async def test_a_key_that_no_worker_takes_is_unhealthy(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = queue.Queue()
    checks = health.Health(health.Pulse(clock), waiting, metrics.Metrics(), ())
    waiting.add("team-a/et-1")
    assert checks.wrong() == ""
    monkeypatch.setattr(health, "QUEUE_STALLED_SECONDS", -1.0)
    assert "waited" in checks.wrong()
