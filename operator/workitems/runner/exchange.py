"""The small shared folder in which runner and agent meet: who may start, and who is still there.

Read-only for the agent. The runner writes the prompt and then, by one atomic rename, `go` or `stop`. The agent's
entry (`agents/entry.py`) writes one byte into the FIFO and holds it open: its end of file tells the runner that the
agent's container is gone, whatever ended it, without any right to ask Kubernetes.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import time
from pathlib import Path
from types import FrameType

from workitems import protocol

log = logging.getLogger("runner")


class TerminatedError(BaseException):
    """The pod is being deleted while nothing is there yet to publish. Like KeyboardInterrupt, not an Exception."""


class Termination:
    """SIGTERM, as something to wait for: the kubelet sends it when a pod is deleted, drained or past its deadline."""

    def __init__(self) -> None:
        self.requested = False
        self.interrupts = False
        """Raise TerminatedError out of whatever is going on, instead of only being noted."""
        self.reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def install(self) -> None:
        """Take over the signal. As process 1 of a container we would otherwise not even notice it."""
        signal.signal(signal.SIGTERM, self._arrived)

    def sleep(self, seconds: float) -> bool:
        """Wait; True, at once, if the pod is being deleted."""
        if not self.requested:
            select.select([self.reader], [], [], seconds)
        return self.requested

    def close(self) -> None:
        """Give the pipe back; for tests, which do this more than once in a process."""
        os.close(self.reader)
        os.close(self._writer)

    def _arrived(self, _signal: int, _frame: FrameType | None) -> None:
        first, self.requested = not self.requested, True
        if first:
            os.write(self._writer, b"\0")
            if self.interrupts:
                raise TerminatedError


class Exchange:
    """The runner's side of the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._alive: int | None = None
        self.decided = False

    def put(self, name: str, content: bytes) -> None:
        """Write a file that appears at once and complete."""
        unfinished = self.folder / f".{name}"
        unfinished.write_bytes(content)
        unfinished.chmod(0o644)
        unfinished.rename(self.folder / name)

    def go(self) -> None:
        """Let the agent start. From now on `wait` can tell whether it is there."""
        fifo = self.folder / protocol.ALIVE_FIFO
        os.mkfifo(fifo)
        fifo.chmod(0o666)  # the other container may run as another user of the same group
        # Before `go`: the entry's opening for writing waits for a reader.
        self._alive = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self.put(protocol.GO_FILE, b"")
        self.decided = True

    def stop(self, reason: str) -> None:
        """Keep the agent from starting; its log gets the reason."""
        self.put(protocol.STOP_FILE, f"{reason}\n".encode(errors="replace"))
        self.decided = True

    def wait(self, hello_seconds: float, parting_seconds: float, termination: Termination) -> bool:
        """Wait for the agent's container to end, or for the pod's deletion; True if the agent had started."""
        assert self._alive is not None  # noqa: S101 - go() comes first
        poll = select.poll()
        poll.register(self._alive, select.POLLIN)
        poll.register(termination.reader, select.POLLIN)
        deadline: float | None = time.monotonic() + hello_seconds
        started = parting = False
        while True:
            limit = None if deadline is None else max(0.0, deadline - time.monotonic())
            events = dict(poll.poll(None if limit is None else limit * 1000))
            if self._alive in events:
                # A pipe without writers is silent before the first one and at its end after the last.
                if not os.read(self._alive, 4096):
                    return started
                if not started:
                    log.info("the agent has started")
                started, deadline = True, deadline if parting else None
            elif termination.reader in events and not parting:
                log.info("the pod is being deleted: publishing what is there")
                parting, deadline = True, time.monotonic() + parting_seconds
                poll.unregister(termination.reader)
            elif deadline is not None and time.monotonic() >= deadline:
                return started
