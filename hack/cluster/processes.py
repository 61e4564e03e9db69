"""Long-running parts of the cluster: started detached, found again later, stopped without hitting strangers.

There are no pid files: they lie after a kill or a reboot. A part carries its identity in its own environment instead
(state folder, name, fingerprint of its command line and configuration), which the kernel shows in /proc as long as
exactly that process lives. The programs it starts inherit it (containerd's shims do), so `strays` finds these too; the
part itself is the leader of its session.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hack.cluster import shell
from hack.cluster.errors import ClusterError

_MARK = "WORKITEMS_CLUSTER_PART"
_LOG_LIMIT = 20 * 1024 * 1024
_UNSEEN_SECONDS = 2.0
"""A process that has just been started has no identity for moments: before setsid has made it the leader of its
session, and while the kernel puts the program in its place, when its environment reads as empty."""


@dataclass(frozen=True)
class Part:
    """One process of the cluster.

    `configuration` is what else it depends on: when that changes, the process is started anew.
    """

    name: str
    argv: tuple[str, ...]
    ready: Callable[[], bool]
    configuration: str = ""
    # Variables that it takes over from the caller's environment; no others, which may hold secrets.
    inherits: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """Equal as long as a running process is what this part asks for."""
        return hashlib.sha256("\0".join((*self.argv, self.configuration)).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Running:
    """A process that carries our mark."""

    pid: int
    name: str
    fingerprint: str
    leads: bool


def running(state: Path) -> dict[str, Running]:
    """The living parts of the cluster that has this state folder, by name."""
    return {process.name: process for process in _marked(state) if process.leads}


def strays(state: Path) -> list[Running]:
    """Everything that carries the mark without being a part: containerd's shims, CNI plugins."""
    return [process for process in _marked(state) if not process.leads]


def ensure(part: Part, state: Path, deadline_seconds: float = 60) -> bool:
    """Start a part unless it runs as asked, and wait until it is ready; returns whether it was started.

    Raises ClusterError if it never is.
    """
    log = log_file(state, part.name)
    alive = running(state).get(part.name)
    started = False
    if alive and alive.fingerprint != part.fingerprint:
        shell.say(f"{part.name} runs with another configuration; starting it anew")
        stop(alive)
        alive = None
    if alive is None:
        _start(part, state, log)
        started = True
    seen = time.monotonic()
    end = seen + deadline_seconds
    while True:
        # Its own life first: whatever else answers at its address must not pass for it.
        if part.name in running(state):
            seen = time.monotonic()
            if part.ready():
                return started
        elif time.monotonic() > seen + _UNSEEN_SECONDS:
            raise ClusterError(f"{part.name} ended instead of starting; the end of its log {log} says: {_tail(log)}")
        if time.monotonic() > end:
            raise ClusterError(
                f"{part.name} was not ready after {deadline_seconds:.0f} s; the end of its log {log} says: {_tail(log)}"
            )
        time.sleep(0.1)


def stop(process: Running, patience_seconds: float = 10) -> None:
    """End a process: politely, and after a while by force. Returns when it is gone."""
    end = time.monotonic() + patience_seconds
    _signal(process, signal.SIGTERM)
    while _lives(process):
        if time.monotonic() > end:
            _signal(process, signal.SIGKILL)
        time.sleep(0.05)


def log_file(state: Path, name: str) -> Path:
    """Where a part writes."""
    return state / "log" / f"{name}.log"


def _start(part: Part, state: Path, log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > _LOG_LIMIT:
        log.unlink()
    environment = {
        "PATH": os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin",
        "HOME": "/root",
        **{name: os.environ[name] for name in part.inherits if name in os.environ},
        _MARK: f"{state}:{part.name}:{part.fingerprint}",
    }
    with log.open("ab") as output:
        # setsid --fork: a session of its own, so that it outlives the terminal and the `make` that started it, and init
        # for a parent.
        subprocess.run(
            ["setsid", "--fork", *part.argv],
            cwd=state,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            check=True,
        )


def carrying(mark: str) -> Iterator[tuple[int, str]]:
    """Processes with an entry in their environment that begins with `mark`: the id, and what follows in the entry."""
    prefix = mark.encode()
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            entries = (folder / "environ").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # ended while we looked, or is somebody else's
        for entry in entries:
            if entry.startswith(prefix):
                yield int(folder.name), entry.removeprefix(prefix).decode()


def _marked(state: Path) -> Iterator[Running]:
    for pid, rest in carrying(f"{_MARK}={state}:"):
        try:
            leads = os.getsid(pid) == pid
        except (ProcessLookupError, PermissionError):
            continue  # as above
        name, _, fingerprint = rest.partition(":")
        yield Running(pid, name, fingerprint, leads)


def _lives(process: Running) -> bool:
    # A zombie has no environment left, so it does not count as living; a stranger with a reused pid does not carry the
    # mark.
    try:
        return _MARK.encode() in Path(f"/proc/{process.pid}/environ").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False


def _signal(process: Running, number: signal.Signals) -> None:
    if _lives(process):
        try:
            os.kill(process.pid, number)
        except ProcessLookupError:
            return  # it ended in between, which is what was wanted


def _tail(log: Path) -> str:
    return shell.last_lines(log.read_text(errors="replace")[-20_000:]) if log.exists() else "nothing, it wrote no log"
