"""Every test here gets a loop with a virtual clock and a world of its own."""

from __future__ import annotations

import functools
import gc
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import structlog

from tests.loop.lab import Lab
from tests.loop.virtual import VirtualLoop


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, Callable[[], VirtualLoop]]:
    return {"virtual": VirtualLoop}


@pytest.fixture(autouse=True, scope="session")
def _frozen() -> Iterator[None]:
    """The garbage of hundreds of short worlds is not looked for among all that is imported: a fifth of the time."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _no_certificates(monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator's start reads the machine's certificates four times, 0.1 s each, and here is nothing to verify."""
    monkeypatch.setenv("SSL_CERT_FILE", "/dev/null")
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def log() -> Iterator[list[Any]]:
    """The operator's log as a list."""
    before = structlog.get_config()
    entries: list[Any] = []

    def keep(_logger: Any, method: str, entry: Any) -> Any:
        entries.append({**entry, "level": method})
        raise structlog.DropEvent

    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, structlog.processors.format_exc_info, keep]
    )
    yield entries
    structlog.configure(**before)


@pytest.fixture
async def lab(tmp_path: Path, log: list[Any]) -> Lab:
    """Open during the test, and checked after it."""
    return Lab(tmp_path, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Open the lab in the test's own task: kopf, when it ends, ends all younger tasks of its loop."""
    for item in items:
        if (
            isinstance(item, pytest.Function)
            and "lab" in item.fixturenames
            and item.path.parent == Path(__file__).parent
        ):
            item.obj = _within_lab(item.obj)


def _within_lab(test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    @functools.wraps(test)
    async def whole(lab: Lab, **arguments: Any) -> None:
        async with lab:
            await test(lab=lab, **arguments)
        lab.check()

    return whole
