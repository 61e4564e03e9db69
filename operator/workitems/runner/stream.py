"""Reads what an agent prints while it works: kept raw on the volume, rendered for the container's log, and understood.

The agent's image may hold nothing but the CLI and a shell, so it is the runner that reads: the agent's output is a FIFO
of the exchange, and what a person should see goes back by a second one, which the entry copies to its own output. Both
are open on this side before the agent may start, so neither side ever waits for the other to open. Of an endless output
the head is kept, a line may be cut, and a log that nobody takes any more holds nothing up.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import os
import re
import select
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

from workitems.agents.output import Ending, Reader
from workitems.protocol import LOG_FIFO, OUTPUT_FIFO

log = logging.getLogger("runner")

KEPT_BYTES = 64 * 1024 * 1024
"""Of one run's raw output."""
KEPT_IN_ALL_BYTES = 256 * 1024 * 1024
"""Of all earlier runs of an item; the oldest go first."""
LINE_BYTES = 8 * 1024 * 1024
"""A longer line is kept raw and not read."""
LOG_BYTES = 32 * 1024 * 1024
"""Of the readable log of one run; after it only the last lines."""
BLOCK_BYTES = 64 * 1024
LAST_LINES = 20
STUCK_SECONDS = 10
"""After it a log that nobody reads is given up."""

_NAME = re.compile(r"run-(\d+)\.jsonl")


class Stream:
    """The output of one run's agent."""

    def __init__(self, exchange: Path, kept: Path, reader: Reader) -> None:
        """Take the exchange, the file that the raw output goes to, and who understands it."""
        self._exchange, self._kept, self._reader = exchange, kept, reader
        self._thread = threading.Thread(target=self._run, name="stream", daemon=True)
        self._source = self._sink = -1
        self._defect: BaseException | None = None

    def open(self) -> None:
        """Make the FIFOs, before the agent may start, and wait for its output. Raises OSError."""
        self._source = self._fifo(OUTPUT_FIFO, os.O_RDONLY)
        # Both ways, or the opening would wait for the agent's container.
        self._sink = self._fifo(LOG_FIFO, os.O_RDWR)
        self._thread.start()

    def ending(self, patience_seconds: float) -> Ending:
        """What the output said, once the agent's container has ended; after `patience_seconds`, what it said so far.

        Raises whatever was wrong with the reading, which is a defect of ours.
        """
        self._thread.join(patience_seconds)
        if self._thread.is_alive():
            log.warning("the agent's output has not ended: somebody still holds it open")
        if self._defect is not None:
            raise self._defect
        return self._reader.end()

    def _fifo(self, name: str, mode: int) -> int:
        path = self._exchange / name
        os.mkfifo(path)
        path.chmod(0o666)  # the other container may run as another user of the same group
        return os.open(path, mode | os.O_NONBLOCK | os.O_CLOEXEC)

    def _run(self) -> None:
        try:
            self._copy()
        except Exception as error:  # noqa: BLE001 - raised again by whoever waits for the end
            self._defect = error
        finally:
            os.close(self._source)
            os.close(self._sink)

    def _copy(self) -> None:
        shown = _Log(self._sink)
        with _Kept(self._kept) as kept:
            line = b""
            for line in _lines(self._source, kept.write):
                shown.write(self._reader.feed(line.decode(errors="replace")))
            kept.finish(line)
        shown.finish()


def _lines(source: int, keep: Callable[[bytes], None]) -> Iterator[bytes]:
    """The lines of a FIFO until its last writer is gone; every block goes to `keep` as it comes."""
    poll = select.poll()
    poll.register(source, select.POLLIN)
    parts: list[bytes] = []
    size = 0
    while True:
        poll.poll()
        # Before the first writer there is nothing to wake us; after the last one reading gives nothing.
        block = os.read(source, BLOCK_BYTES)
        keep(block)
        *complete, rest = block.split(b"\n")
        for end in complete:
            yield _whole(parts, size, end)
            parts, size = [], 0
        size += len(rest)
        if size <= LINE_BYTES:
            parts.append(rest)
        if not block:
            break
    if size:
        yield _whole(parts, size, b"")


def _whole(parts: list[bytes], size: int, end: bytes) -> bytes:
    if size + len(end) > LINE_BYTES:
        return b"[a line of %d bytes]" % (size + len(end))
    return b"".join((*parts, end))


class _Kept:
    """The raw output as a file; a volume that is full is no failure of the run."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None
        self._left = KEPT_BYTES
        self._cut = 0

    def __enter__(self) -> Self:
        with self._tolerant():
            self._path.parent.mkdir(parents=True, exist_ok=True)
            _make_room(self._path.parent)
            # The work itself has the better right to what is left of a small volume.
            space = os.statvfs(self._path.parent)
            self._left = min(KEPT_BYTES, space.f_bavail * space.f_frsize // 10)
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            self._file = os.open(self._path, flags, 0o640)
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            os.close(self._file)

    def write(self, block: bytes) -> None:
        head = block[: self._left]
        self._left -= len(head)
        self._cut += len(block) - len(head)
        self._write(head)

    def finish(self, last: bytes) -> None:
        """The last line in any case: it is the result."""
        if self._cut:
            self._write(b'\n{"type": "workitem_cut", "bytes": %d}\n%s\n' % (self._cut, last))

    def _write(self, block: bytes) -> None:
        with self._tolerant():
            while block and self._file is not None:
                block = block[os.write(self._file, block) :]

    @contextlib.contextmanager
    def _tolerant(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            log.warning("the agent's raw output is not kept any further: %s", error)
            if self._file is not None:
                os.close(self._file)
            self._file = None


def _make_room(folder: Path) -> None:
    """Remove the oldest raw outputs, where the item's are more than may be kept."""
    numbers = ((_NAME.fullmatch(path.name), path) for path in folder.iterdir())
    found = sorted(((int(name.group(1)), path) for name, path in numbers if name), reverse=True)
    size = 0
    for _, path in found:
        size += path.lstat().st_size
        if size > KEPT_IN_ALL_BYTES:
            path.unlink()


class _Log:
    """The readable lines, for the agent's container to print."""

    def __init__(self, sink: int) -> None:
        self._sink = sink
        self._poll = select.poll()
        self._poll.register(sink, select.POLLOUT)
        self._left = LOG_BYTES
        self._later: collections.deque[str] = collections.deque(maxlen=LAST_LINES)
        self._given_up = False

    def write(self, lines: list[str]) -> None:
        for line in lines:
            block = f"{line}\n".encode(errors="replace")
            self._left -= len(block)
            if self._left >= 0:
                self._send(block)
            else:
                self._later.append(line)

    def finish(self) -> None:
        if self._later:
            self._left = 1024 * 1024
            self.write([f"… more than {LOG_BYTES} bytes; the last lines:", *self._later])

    def _send(self, block: bytes) -> None:
        while block and not self._given_up:
            try:
                block = block[os.write(self._sink, block) :]
            except BlockingIOError:
                self._given_up = not self._poll.poll(STUCK_SECONDS * 1000)
                if self._given_up:
                    log.warning("nobody takes the agent's readable log any more: the rest of it is left out")
