"""The long-running parts of the local cluster are told from what has ended by what the kernel shows of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hack.cluster import processes
from hack.cluster.errors import ClusterError


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """A state folder; what was started for it is stopped again."""
    yield tmp_path
    for part in processes.running(tmp_path).values():
        processes.stop(part)


def _sleeper(state: Path, seconds: int = 600) -> processes.Part:
    """Ready once it is its program: while the kernel puts that in the place of setsid, nothing can be seen of it."""

    def ready() -> bool:
        found = processes.running(state).get("sleeper")
        if found is None or Path(f"/proc/{found.pid}/cmdline").read_bytes() != f"sleep\0{seconds}\0".encode():
            return False
        return found in processes.running(state).values()

    return processes.Part("sleeper", ("sleep", str(seconds)), ready)


def test_a_part_is_started_once_and_anew_when_it_changes(state: Path) -> None:
    assert processes.ensure(_sleeper(state), state)
    first = processes.running(state)["sleeper"]
    assert not processes.ensure(_sleeper(state), state)
    assert processes.running(state)["sleeper"] == first
    assert processes.ensure(_sleeper(state, 601), state)
    assert processes.running(state)["sleeper"].pid != first.pid


@pytest.mark.slow
def test_a_part_that_ends_is_told_with_the_end_of_its_log(state: Path) -> None:
    part = processes.Part("broken", ("sh", "-c", "echo no such flag >&2; exit 2"), lambda: False)
    with pytest.raises(ClusterError, match=r"broken ended instead of starting.*no such flag"):
        processes.ensure(part, state)


@pytest.mark.slow
def test_what_a_stranger_answers_at_the_address_of_a_part_that_has_ended_does_not_pass_for_it(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "running", lambda _state: {})
    with pytest.raises(ClusterError, match="sleeper ended instead of starting"):
        processes.ensure(_sleeper(state, 1), state)


def test_a_part_that_has_no_environment_for_a_moment_has_not_ended(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the kernel puts a program in the place of another one, its environment reads as empty."""
    seen, look = 0, processes.running

    def flickering(folder: Path) -> dict[str, processes.Running]:
        nonlocal seen
        found = look(folder)
        seen += bool(found)
        return {} if seen == 2 else found

    monkeypatch.setattr(processes, "running", flickering)
    part = processes.Part("sleeper", ("sleep", "600"), lambda: seen > 2)
    assert processes.ensure(part, state)
    assert seen > 2
