"""Running other programs and telling the person what happens.

Progress goes to stderr, because `env` and `images` print to stdout what other programs read. A program that fails
becomes one sentence with its own last lines; one that is missing becomes a sentence that names it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from hack.cluster.errors import ClusterError

_STARTED = time.monotonic()


def say(message: str) -> None:
    """One line of progress, with the seconds since this command started."""
    print(f"[{time.monotonic() - _STARTED:6.1f}s] {message}", file=sys.stderr, flush=True)


def run(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: str = "",
) -> str:
    """Run a program to its end and return its stdout; `env` is added to the environment.

    Raises ClusterError when it fails.
    """
    done = attempt(argv, cwd=cwd, env=env, stdin=stdin)
    if done.returncode != 0:
        command = " ".join(str(word) for word in argv)
        raise ClusterError(
            f"The command `{command}` failed with exit code {done.returncode}: {last_lines(done.stderr or done.stdout)}"
        )
    return done.stdout


def attempt(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: str = "",
) -> subprocess.CompletedProcess[str]:
    """Run a program whose failure is an answer too. Raises ClusterError only when there is no such program."""
    try:
        return subprocess.run(
            [str(word) for word in argv],
            cwd=cwd,
            env={**os.environ, **(env or {})},
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except FileNotFoundError as error:
        raise ClusterError(
            f"The program `{argv[0]}` is not on this machine; install it and run the command again."
        ) from error


def stream(argv: Sequence[str | Path], *, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> None:
    """Run a long program whose own output is the progress; it goes to stderr. Raises ClusterError when it fails."""
    words = [str(word) for word in argv]
    try:
        code = subprocess.run(
            words, cwd=cwd, env={**os.environ, **(env or {})}, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False
        ).returncode
    except FileNotFoundError as error:
        raise ClusterError(
            f"The program `{words[0]}` is not on this machine; install it and run the command again."
        ) from error
    if code != 0:
        raise ClusterError(
            f"The command `{' '.join(words)}` failed with exit code {code}; the reason stands in its output above."
        )


def last_lines(text: str, count: int = 8) -> str:
    """The end of a program's output, for an error message."""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    return " | ".join(lines[-count:]) or "it printed nothing"


def find(program: str) -> Path | None:
    """Where a program is, looking also in the folders for root's programs, which a user's PATH often lacks."""
    path = os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin"
    found = shutil.which(program, path=path)
    return Path(found) if found else None


def write_atomically(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a file so that a kill leaves either the old one or the new one.

    It is never readable by more people than `mode` says.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        file.write(text)
    partial.replace(path)


@contextmanager
def locked(path: Path, busy: str) -> Iterator[None]:
    """Hold a lock that the kernel releases however this process ends; `busy` is said once when another one holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(busy)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
