"""Runs git so that nothing it finds can run anything else, and nothing it prints can show a secret.

A tree that an agent has written to is data, yet git would take commands from it in many places: hooks, filters,
fsmonitor, submodules, a `.git` file that points elsewhere. All of these need configuration to become a program, so
every call gets its whole configuration from here: an environment made from nothing, settings that outrank the
repository's own files, explicit `--git-dir` and `--work-tree`, and a limit in seconds.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from workitems import plain
from workitems.runner import problems

log = logging.getLogger("runner")

CHUNK_BYTES = 64 * 1024
# Of the pod's environment only what a network needs to be reached.
PASSED_ON = (
    "PATH",
    "TMPDIR",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    *(
        name
        for variable in ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
        for name in (variable, variable.upper())
    ),
)

SETTINGS = {
    "safe.directory": "*",  # the kubelet creates the mount points as root
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.untrackedCache": "false",
    "core.attributesFile": "/dev/null",
    "core.excludesFile": "/dev/null",
    "core.autocrlf": "false",
    "core.symlinks": "true",
    "core.fileMode": "true",
    "core.logAllRefUpdates": "false",
    "core.askPass": "",
    "credential.helper": "",
    "gc.auto": "0",
    "gc.autoDetach": "false",
    "maintenance.auto": "false",
    "submodule.recurse": "false",
    "fetch.recurseSubmodules": "false",
    "fetch.writeCommitGraph": "false",
    "push.recurseSubmodules": "no",
    "push.gpgSign": "false",
    "push.followTags": "false",
    "status.renames": "false",
    "http.lowSpeedLimit": "1000",  # bytes a second: a connection that hangs is an answer that does not come
    "http.lowSpeedTime": "60",
    "init.defaultBranch": "main",
    "advice.detachedHead": "false",
}
_USER_INFO = re.compile(r"(?<=://)[^/@\s]+@")


@dataclasses.dataclass(frozen=True)
class Output:
    """How a git command ended."""

    code: int
    stdout: bytes
    stderr: str

    @property
    def text(self) -> str:
        """Its output without the last line's end, for commands that print names and hashes."""
        return os.fsdecode(self.stdout).strip("\n")


@dataclasses.dataclass(frozen=True)
class Git:
    """git with a fixed environment, and with an explicit repository and tree where `at` was called."""

    environment: Mapping[str, str]
    hidden: tuple[str, ...] = ()
    where: tuple[str, ...] = ()
    seconds: float = 600

    def at(self, git_dir: Path, tree: Path | None = None) -> Git:
        """The same git for one repository, and for one work tree: never found by looking around."""
        where = [f"--git-dir={git_dir}", *([f"--work-tree={tree}"] if tree else [])]
        return dataclasses.replace(self, where=tuple(where))

    def with_environment(self, **variables: str) -> Git:
        """The same git with more environment variables, such as a commit's author."""
        return dataclasses.replace(self, environment={**self.environment, **variables})

    def run(self, *arguments: str, stdin: bytes = b"", seconds: float | None = None) -> Output:
        """Run a command to its end. Raises GitError if it fails, GitTimeoutError if it takes too long."""
        output = self.attempt(*arguments, stdin=stdin, seconds=seconds)
        if output.code != 0:
            raise problems.GitError(self._shown(arguments), output.code, output.stderr)
        return output

    def attempt(self, *arguments: str, stdin: bytes = b"", seconds: float | None = None) -> Output:
        """Run a command whose failure is an answer too. Raises GitTimeoutError."""
        shown, limit, started = self._shown(arguments), seconds or self.seconds, time.monotonic()
        process = self._start(arguments)
        try:
            stdout, stderr = process.communicate(stdin, timeout=limit)
        except subprocess.TimeoutExpired:
            raise problems.GitTimeoutError(shown, limit) from None
        finally:
            _end(process)
        printed = self.clean(stderr.decode(errors="replace"))
        log.info("git %s: %s (%.2f s)", shown, process.returncode, time.monotonic() - started)
        for line in printed.splitlines()[-20:]:
            if line.strip():
                log.info("  %s", plain.readable(line, 500))
        return Output(process.returncode, stdout, printed)

    @contextlib.contextmanager
    def reading(self, *arguments: str) -> Iterator[IO[bytes]]:
        """The output of a command as it comes. Leaving early ends the command; a failed command is a GitError."""
        shown, process = self._shown(arguments), self._start(arguments)
        assert process.stdout is not None  # noqa: S101 - Popen was asked for a pipe
        assert process.stderr is not None  # noqa: S101 - see above
        assert process.stdin is not None  # noqa: S101 - see above
        process.stdin.close()
        timer = threading.Timer(self.seconds, _kill, [process])
        timer.start()
        try:
            yield process.stdout
            finished = not process.stdout.read(1)
            # A command that streams its result prints at most a few lines here: a full pipe cannot block it.
            stderr = process.stderr.read(CHUNK_BYTES) if finished else b""
            if finished and process.wait() != 0:
                raise problems.GitError(shown, process.returncode, self.clean(stderr.decode(errors="replace")))
        finally:
            timer.cancel()
            _end(process)

    def clean(self, text: str) -> str:
        """Text without secrets: neither the ones we know nor any user part of an address."""
        for secret in self.hidden:
            text = text.replace(secret, "***")
        return _USER_INFO.sub("***@", text)

    def _shown(self, arguments: tuple[str, ...]) -> str:
        return plain.readable(self.clean(" ".join(arguments)), 300)

    def _start(self, arguments: tuple[str, ...]) -> subprocess.Popen[bytes]:
        # A session of its own: git's helpers (git-remote-https, ssh, index-pack) must end together with it.
        return subprocess.Popen(  # noqa: S603 - a list, never a shell
            ["git", *self.where, *arguments],  # noqa: S607 - the image's git
            env=dict(self.environment),
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
        os.killpg(process.pid, signal.SIGKILL)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of a command, reap it, and close its pipes."""
    if process.poll() is None:
        _kill(process)
        process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            with contextlib.suppress(BrokenPipeError):  # unsent input of a command that has ended
                stream.close()


def environment(settings: Mapping[str, str], protocols: str, **variables: str) -> dict[str, str]:
    """The whole environment of git. `protocols` is a list as in GIT_ALLOW_PROTOCOL: `http:https:ssh`."""
    every = {**SETTINGS, **settings}
    numbered: dict[str, str] = {"GIT_CONFIG_COUNT": str(len(every))}
    for index, (key, value) in enumerate(every.items()):
        numbered[f"GIT_CONFIG_KEY_{index}"] = key
        numbered[f"GIT_CONFIG_VALUE_{index}"] = value
    return {
        **{name: os.environ[name] for name in PASSED_ON if name in os.environ},
        "HOME": "/nonexistent",  # no .netrc, no .ssh, no .config/git
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_LITERAL_PATHSPECS": "1",
        "GIT_ALLOW_PROTOCOL": protocols,
        "GIT_PROTOCOL_FROM_USER": "1",
        **numbered,
        **variables,
    }
