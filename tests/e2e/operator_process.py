"""The operator as a process of the test machine, with the rights of its own ServiceAccount and no others.

It needs nothing but the API server, so it may run anywhere; here it can be killed with SIGKILL at any moment, which no
Deployment allows, and a missing RBAC rule fails the tests as it would fail an installation.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field

from hack.cluster import processes

START_SECONDS = 60
MARK = "WORKITEMS_UNDER_TEST"
"""A variable in its environment: of an operator that outlived its session nobody knows the process id."""


def end_leftovers() -> None:
    """End the operators of a session that was killed: they would do the work of the one under test."""
    for pid, _ in processes.carrying(f"{MARK}="):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@dataclass
class OperatorProcess:
    """One operator at a time; its log goes to a file that survives restarts."""

    kubeconfig: pathlib.Path
    runner_image: str
    agent_image: str
    namespaces: list[str]
    log: pathlib.Path
    port: int
    settings: dict[str, str] = field(default_factory=dict)
    foreign_pid: int | None = None
    """Where another process of the tests started it: it can be looked at and held still, not killed."""
    ended: int = 0
    """How often it ended by itself and was started again."""
    _process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start and wait until it is alive."""
        self._refuse_foreign()
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": os.environ.get("HOME", "/tmp"),
            "PYTHONUNBUFFERED": "1",
            MARK: "yes",
            "WORKITEMS_NAMESPACE": "workitem-operator",
            "WORKITEMS_WATCH_NAMESPACES": ",".join(self.namespaces),
            "WORKITEMS_KUBECONFIG": str(self.kubeconfig),
            "WORKITEMS_RUNNER_IMAGE": self.runner_image,
            "WORKITEMS_AGENT_IMAGE": self.agent_image,
            "WORKITEMS_HEALTH_PORT": str(self.port),
            "WORKITEMS_INFRA_BACKOFF_SECONDS": "1",
            "WORKITEMS_SWEEP_SECONDS": "30",
            "WORKITEMS_TRACKER_POLL_SECONDS": "5",
            **self.settings,
        }
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "workitems", "operate"]
            self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while not self._healthy():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the operator did not start:\n{self.tail()}")
            time.sleep(0.1)

    def kill(self) -> None:
        """SIGKILL: no chance to finish anything."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM, as the kubelet does it."""
        self._end(signal.SIGTERM)

    def restart(self) -> None:
        """Kill and start again."""
        self.kill()
        self.start()

    @property
    def pid(self) -> int:
        """The process id."""
        if self.foreign_pid is not None:
            return self.foreign_pid
        assert self._process is not None
        return self._process.pid

    @contextlib.contextmanager
    def differently(self, kubeconfig: pathlib.Path, **settings: str) -> Iterator[None]:
        """Another operator with another kubeconfig and more settings, started again whenever it ends by itself."""
        before = self.kubeconfig, self.settings
        self.stop()
        self.kubeconfig, self.settings = kubeconfig, {**self.settings, **settings}
        try:
            self.start()
            with self._supervised():
                yield
        finally:
            self.stop()
            self.kubeconfig, self.settings = before
            self.start()

    @contextlib.contextmanager
    def _supervised(self) -> Iterator[None]:
        """What a Deployment does for it."""
        over = threading.Event()

        def watch() -> None:
            while not over.wait(0.5):
                if self._process is not None and self._process.poll() is not None:
                    self.ended += 1
                    # It may fail at once again: then it is started again, and who waits for it runs out of patience.
                    with contextlib.suppress(AssertionError):
                        self.start()

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(START_SECONDS)

    @contextlib.contextmanager
    def asleep(self) -> Iterator[None]:
        """Hold the operator still, so that it sees all that happens meanwhile at once; one test at a time."""
        with self.log.open("rb") as log:
            fcntl.flock(log, fcntl.LOCK_EX)
            os.kill(self.pid, signal.SIGSTOP)
            try:
                yield
            finally:
                os.kill(self.pid, signal.SIGCONT)

    def tail(self, lines: int = 60) -> str:
        """The end of the log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def _refuse_foreign(self) -> None:
        assert self.foreign_pid is None, "a test that kills the operator is marked alone"

    def _end(self, number: signal.Signals) -> None:
        self._refuse_foreign()
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
            self._process.wait(60)
        self._process = None

    def _healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/healthz", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False
