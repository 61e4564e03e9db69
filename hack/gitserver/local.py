"""The git server on loopback, inside the test's own process, for tests that need git's server side and no cluster."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
import threading
from typing import TYPE_CHECKING, Any

from hack.gitserver import server

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

USERNAME = "bot"
PASSWORD = "a password / with: odd @ signs"  # noqa: S105 - guards nothing but loopback


@dataclasses.dataclass(frozen=True)
class Local:
    """A running server: its address, its credentials (files too), and what was pushed."""

    address: str
    folder: pathlib.Path
    username: str = USERNAME
    password: str = PASSWORD

    def url(self, repository: str) -> str:
        """Return the repository's address, without credentials."""
        return f"{self.address}/{repository}.git"

    def path(self, repository: str) -> pathlib.Path:
        """Return the bare repository itself, for a look that is no fetch."""
        return self.folder / "root" / f"{repository}.git"

    @property
    def credentials(self) -> pathlib.Path:
        """The folder with the files `username` and `password`, as a mounted Secret has them."""
        return self.folder / "credentials"

    def pushes(self) -> list[dict[str, Any]]:
        """Return every reference that a push has moved: time, repository, ref, old, new."""
        log = self.folder / "root" / "pushes.jsonl"
        return [json.loads(line) for line in log.read_text().splitlines()]


@contextlib.contextmanager
def running(folder: pathlib.Path, repositories: Mapping[str, bytes]) -> Iterator[Local]:
    """Serve the bundles (name -> bytes) from `folder` on a free port of 127.0.0.1 until the block ends."""
    root, seed = folder / "root", folder / "seed"
    local = Local("", folder)
    for path in (seed, local.credentials):
        path.mkdir(parents=True, exist_ok=True)
    for name, data in repositories.items():
        (seed / f"{name}.bundle").write_bytes(data)
    (local.credentials / "username").write_text(USERNAME)
    (local.credentials / "password").write_text(PASSWORD)
    settings = server.Settings(root, seed, local.credentials, root / "pushes.jsonl")
    server.seed(settings)
    with server.Server(settings, ("127.0.0.1", 0)) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)  # seconds until it sees the end
        thread.start()
        try:
            yield dataclasses.replace(local, address=f"http://127.0.0.1:{http.server_address[1]}")
        finally:
            http.shutdown()
            thread.join()
