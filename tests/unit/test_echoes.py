"""Events of our own writes, told apart from those of others whenever they come."""

from __future__ import annotations

import pytest

from workitems.echoes import OWN_VERSIONS, Echoes


@pytest.fixture
def woken() -> list[str]:
    return []


@pytest.fixture
def echoes(woken: list[str]) -> Echoes:
    return Echoes(woken.append)


def write(echoes: Echoes, version: str | None, *meanwhile: str) -> None:
    with echoes.writing("a") as ours:
        assert all(echoes.is_echo("a", other) for other in meanwhile)
        ours.version = version


def test_an_event_after_the_answer_is_an_echo_once(echoes: Echoes, woken: list[str]) -> None:
    write(echoes, "7")
    assert echoes.is_echo("a", "7")
    assert not echoes.is_echo("a", "7")
    assert not woken


def test_an_event_that_outruns_the_answer_is_an_echo(echoes: Echoes, woken: list[str]) -> None:
    write(echoes, "7", "7")
    assert not woken
    assert not echoes.is_echo("a", "7")


def test_an_event_of_another_that_comes_meanwhile_is_not_lost(echoes: Echoes, woken: list[str]) -> None:
    write(echoes, "7", "6", "7")
    assert woken == ["a"]


@pytest.mark.parametrize("meanwhile", [("6",), ()])
def test_a_write_that_failed_has_no_echo(echoes: Echoes, woken: list[str], meanwhile: tuple[str, ...]) -> None:
    def fail() -> None:
        with echoes.writing("a"):
            assert all(echoes.is_echo("a", version) for version in meanwhile)
            raise OSError("away")

    with pytest.raises(OSError, match="away"):
        fail()
    assert woken == ["a"] * len(meanwhile)
    assert not echoes.is_echo("a", "6")


def test_a_write_that_no_event_tells_of_leaves_nothing_behind(echoes: Echoes) -> None:
    write(echoes, None)
    assert not echoes.is_echo("a", "7")


def test_other_items_are_others(echoes: Echoes) -> None:
    write(echoes, "7")
    assert not echoes.is_echo("b", "7")


def test_the_last_versions_are_known_and_a_forgotten_item_has_none(echoes: Echoes) -> None:
    for version in range(OWN_VERSIONS + 1):
        write(echoes, str(version))
    assert [echoes.is_echo("a", str(v)) for v in range(2)] == [False, True]
    echoes.forget("a")
    assert not echoes.is_echo("a", str(OWN_VERSIONS))
