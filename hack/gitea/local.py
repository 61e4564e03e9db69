"""Gitea as a process on loopback, for tests that need a real forge and no cluster.

It can be stopped and started again, or killed, in the middle of a test: address, users, tokens and repositories stay.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from hack.cluster import gitea, ports
from hack.gitea.client import Client
from hack.gitea.configuration import Configuration, ini
from hack.gitea.errors import GiteaError

ADMIN = "root"
START_SECONDS = 90.0
POLL_SECONDS = 0.05


@dataclass
class Server:
    """One server whose files are all in `folder`; `program` is the folder that hack.cluster.gitea gives."""

    folder: Path
    program: Path
    admin: Client = field(init=False)
    _port: socket.socket = field(default_factory=ports.held, init=False)
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def port(self) -> int:
        """Its port of 127.0.0.1."""
        return ports.number(self._port)

    @property
    def url(self) -> str:
        """Its address, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        """What it printed, over all restarts."""
        return self.folder / "gitea.log"

    def start(self) -> None:
        """Start it and wait until it answers. Raises GiteaError with its last words if it does not."""
        if self._process is not None:
            raise GiteaError(f"The Gitea at {self.url} runs already; stop it first.")
        first = not (self.folder / "app.ini").exists()
        if first:
            self._configure()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._argv("web"), cwd=self.folder, env=self._environment(), stdout=log, stderr=log
            )
        self._wait()
        if first:
            self.admin = self._administrator()

    def stop(self) -> None:
        """End it as a service manager would."""
        self._end(kill=False)

    def kill(self) -> None:
        """SIGKILL: no chance to finish anything."""
        self._end(kill=True)

    def close(self) -> None:
        """Stop it for good."""
        self.stop()
        self._port.close()

    def flush(self) -> None:
        """Wait until it has done what its queues hold, the work under way included. Raises GiteaError."""
        done = subprocess.run(
            self._argv("manager", "flush-queues"),
            cwd=self.folder, env=self._environment(), capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise GiteaError(f"Gitea did not flush its queues: {(done.stderr or done.stdout).strip()}")

    def restart(self) -> None:
        """Stop it and start it again."""
        self.stop()
        self.start()

    def tail(self, lines: int = 20) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""

    def _configure(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        wanted = Configuration(f"{self.url}/", str(self.folder), str(self.program), "127.0.0.1", self.port)
        path = self.folder / "app.ini"
        path.write_text(ini(wanted))
        path.chmod(0o600)

    def _administrator(self) -> Client:
        password = secrets.token_hex(12)
        created = subprocess.run(
            [
                *self._argv("admin", "user", "create", "--admin"),
                f"--username={ADMIN}", f"--password={password}", f"--email={ADMIN}@gitea.example",
                "--must-change-password=false",
            ],
            cwd=self.folder, env=self._environment(), capture_output=True, text=True, check=False,
        )  # fmt: skip
        if created.returncode != 0:
            raise GiteaError(f"Gitea did not create its administrator: {(created.stderr or created.stdout).strip()}")
        return Client(self.url, ADMIN, password=password).with_token("all", name="administrator")

    def _argv(self, *words: str) -> list[str]:
        return [str(self.program / "gitea"), "--config", str(self.folder / "app.ini"), *words]

    def _environment(self) -> dict[str, str]:
        # Nothing of the person's: neither their git configuration nor their GITEA_ variables.
        return {"PATH": os.environ["PATH"], "HOME": str(self.folder), "USER": os.environ.get("USER", "root")}

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self._healthy():
            assert self._process is not None  # noqa: S101 - start() made it
            code = self._process.poll()
            if code is not None or time.monotonic() > deadline:
                self._end(kill=True)
                how = f"ended with exit code {code}" if code is not None else f"did not answer in {START_SECONDS:.0f} s"
                raise GiteaError(f"Gitea at {self.url} {how}; its last lines:\n{self.tail()}")
            time.sleep(POLL_SECONDS)

    def _healthy(self) -> bool:
        try:
            return httpx.get(f"{self.url}/api/healthz", timeout=2, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def _end(self, *, kill: bool) -> None:
        if self._process is None:
            return
        if kill:
            self._process.kill()
        else:
            self._process.terminate()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Server]:
    """A server from an empty folder until the block ends.

    Raises GiteaError if this machine has no Gitea yet: eight minutes of building belong to no test.
    """
    program = gitea.cached()
    if program is None:
        raise GiteaError("Gitea is not built on this machine yet; run `.venv/bin/python -m hack.cluster gitea` first.")
    server = Server(folder, program)
    try:
        server.start()
        yield server
    finally:
        server.close()
