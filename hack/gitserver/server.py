"""Serves bare repositories over HTTP with `git http-backend`, which does the git part; this file does the HTTP part.

It is one file with nothing but the standard library because it travels into the cluster as a ConfigMap and runs in
any image that has python3 and git. Three things need care, and are why a plain CGI server will not do:

* Bodies stream both ways. A push of tens of megabytes is never held in memory, and git sends what exceeds its
  `http.postBuffer` with `Transfer-Encoding: chunked` and smaller requests gzipped.
* A client that goes away must not take the push with it half way: the backend's output is read to its end, so that
  the hook has written its line for every reference that moved.
* The log is what tests believe: one JSON line (time, repository, ref, old, new) per reference of a push, appended
  in one write by a `post-receive` hook, which is this file again.

    server.py serve --root /srv/git --seed /seed --credentials /credentials --log /srv/git/pushes.jsonl --port 8080
"""

from __future__ import annotations

import argparse
import base64
import binascii
import dataclasses
import datetime as dt
import hmac
import http.server
import json
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import urllib.parse
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNK_BYTES = 64 * 1024
CLIENT_TIMEOUT_SECONDS = 300
CLIENT_GONE = (ConnectionError, TimeoutError)

# Refuses what a forge refuses and offers what a forge offers (partial clones, any reachable commit); maintenance
# would run behind a test's back.
REPOSITORY_SETTINGS = {
    "gc.auto": "0",
    "receive.autogc": "false",
    "receive.fsckObjects": "true",
    "uploadpack.allowAnySHA1InWant": "true",
    "uploadpack.allowFilter": "true",
}


class BadRequestError(ValueError):
    """The request's body is not what its headers promise; the message says how."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Where things are: `credentials` holds the files `username` and `password`, `seed` the `<name>.bundle` files."""

    root: pathlib.Path
    seed: pathlib.Path
    credentials: pathlib.Path
    log: pathlib.Path


def seed(settings: Settings) -> None:
    """Make a bare repository of every bundle that has none yet: a restarted container keeps what was pushed."""
    settings.root.mkdir(parents=True, exist_ok=True)
    settings.log.touch()
    for bundle in sorted(settings.seed.glob("*.bundle")):
        repository = settings.root / f"{bundle.stem}.git"
        if repository.exists():
            continue
        # Renamed into place when complete, so that a kill in the middle leaves nothing that looks finished.
        unfinished = settings.root / f".{bundle.stem}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        settings_given = [f"--config={key}={value}" for key, value in REPOSITORY_SETTINGS.items()]
        subprocess.run(["git", "clone", "--quiet", "--bare", *settings_given, bundle, unfinished], check=True)
        _install_hook(unfinished, repository.name, settings.log)
        unfinished.rename(repository)


def _install_hook(repository: pathlib.Path, name: str, log: pathlib.Path) -> None:
    command = [sys.executable, str(pathlib.Path(__file__).resolve()), "record", "--repository", name, "--log", str(log)]
    hook = repository / "hooks" / "post-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\nexec {shlex.join(command)}\n")
    hook.chmod(0o755)


def record(repository: str, log: pathlib.Path, updates: IO[str]) -> None:
    """Append the reference updates that git hands to a post-receive hook: lines of `old new ref`."""
    time = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
    lines = ""
    for update in updates:
        old, new, ref = update.rstrip("\n").split(" ", 2)
        lines += json.dumps({"time": time, "repository": repository, "ref": ref, "old": old, "new": new}) + "\n"
    # One write on a descriptor opened for appending: two pushes at once never mix their lines.
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, lines.encode())
    finally:
        os.close(descriptor)


class Server(http.server.ThreadingHTTPServer):
    """One thread a connection. Port 0 takes a free one; `server_address` names it."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, settings: Settings, address: tuple[str, int]) -> None:
        self.settings = settings
        super().__init__(address, Handler)


class Handler(http.server.BaseHTTPRequestHandler):
    """One request: health, or authenticate and hand over to git."""

    protocol_version = "HTTP/1.1"  # chunked answers and connections that stay open need 1.1
    timeout = CLIENT_TIMEOUT_SECONDS
    server: Server

    def do_GET(self) -> None:
        """Answer the health probe, or what git reads."""
        if self.path == "/healthz":
            self._answer(200, "ok\n")
        else:
            self._git()

    def do_POST(self) -> None:
        """Carry a fetch or a push."""
        self._git()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is http.server's
        """Write the access log, without the probes of every few seconds."""
        if getattr(self, "path", "") != "/healthz":
            super().log_message(format, *args)

    def _git(self) -> None:
        user = self._user()
        if user is None:
            self.close_connection = True  # a body may follow that nobody is going to read
            self._answer(401, "wrong or missing user name or password\n")
            return
        pipe = subprocess.PIPE
        with subprocess.Popen(["git", "http-backend"], env=self._environment(user), stdin=pipe, stdout=pipe) as backend:
            # Git may answer before it has read everything; with one thread for both ways the two could wait for
            # each other for ever.
            feeder = threading.Thread(target=self._feed, args=(backend,), daemon=True)
            feeder.start()
            assert backend.stdout is not None  # noqa: S101 - Popen was asked for a pipe
            self._relay(backend.stdout)
            feeder.join()

    def _user(self) -> str | None:
        """Name the authenticated user, or None. The files are read each time: a mounted Secret may be rotated."""
        scheme, _, encoded = self.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return None
        try:
            given = base64.b64decode(encoded, validate=True)
        except binascii.Error:
            return None
        folder = self.server.settings.credentials
        username = (folder / "username").read_text().strip()
        password = (folder / "password").read_text().strip()
        return username if hmac.compare_digest(given, f"{username}:{password}".encode()) else None

    def _environment(self, user: str) -> dict[str, str]:
        """Build the environment of RFC 3875 that http-backend reads. REMOTE_USER is what allows a push."""
        url = urllib.parse.urlsplit(self.path)
        environment = {
            **os.environ,
            "GIT_PROJECT_ROOT": str(self.server.settings.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": urllib.parse.unquote(url.path),
            "QUERY_STRING": url.query,
            "REQUEST_METHOD": self.command,
            "REMOTE_USER": user,
            "REMOTE_ADDR": str(self.client_address[0]),
            "SERVER_PROTOCOL": self.request_version,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),  # gzip: git unpacks it itself
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }
        environment.pop("CONTENT_LENGTH", None)
        if "chunked" not in self.headers.get("Transfer-Encoding", "").lower():
            environment["CONTENT_LENGTH"] = self.headers.get("Content-Length", "0")
        return environment

    def _feed(self, backend: subprocess.Popen[bytes]) -> None:
        """Copy the request's body to the backend and close its input, whatever happens to either side."""
        assert backend.stdin is not None  # noqa: S101 - Popen was asked for a pipe
        try:
            with backend.stdin as sink:
                try:
                    for block in self._body():
                        sink.write(block)
                except ValueError as error:
                    # Ended before its input is closed: a broken body must not look like a complete one.
                    backend.terminate()
                    self.close_connection = True
                    self.log_error("body refused: %s", error)
        except OSError as error:
            # The backend has refused early, or the client is gone. Bytes may be left on the wire.
            self.close_connection = True
            self.log_error("body ended early: %s", error)

    def _body(self) -> Iterator[bytes]:
        """Yield the decoded body in blocks of at most CHUNK_BYTES."""
        if "chunked" not in self.headers.get("Transfer-Encoding", "").lower():
            yield from self._exactly(int(self.headers.get("Content-Length", "0")))
            return
        while size := int(self.rfile.readline(1024).split(b";")[0], 16):
            yield from self._exactly(size)
            if self.rfile.readline(3) != b"\r\n":
                raise BadRequestError("a chunk is longer than the length before it says")
        while self.rfile.readline(CHUNK_BYTES) not in (b"\r\n", b"\n", b""):
            pass  # trailers carry nothing for git

    def _exactly(self, size: int) -> Iterator[bytes]:
        while size > 0:
            block = self.rfile.read(min(size, CHUNK_BYTES))
            if not block:
                raise BadRequestError(f"the client left with {size} bytes still to come")
            size -= len(block)
            yield block

    def _relay(self, output: IO[bytes]) -> None:
        """Send the backend's CGI answer on. Reads to the end although the client may be gone: the hook must run."""
        status, headers = 200, []
        for line in iter(output.readline, b""):
            if not line.strip():
                break
            name, _, value = line.decode("latin-1").strip().partition(":")
            if name.lower() == "status":
                status = int(value.split()[0])
            else:
                headers.append((name, value.strip()))
        else:
            self.close_connection = True
            self._answer(500, "git http-backend ended without an answer; its reason is in this server's log\n")
            return
        try:
            self.send_response(status)
            for name, value in headers:
                self.send_header(name, value)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            while block := output.read1(CHUNK_BYTES):  # type: ignore[attr-defined]  # a BufferedReader
                self.wfile.write(b"%x\r\n%b\r\n" % (len(block), block))
            self.wfile.write(b"0\r\n\r\n")
        except CLIENT_GONE as error:
            self.close_connection = True
            self.log_error("the client left before its answer was complete: %s", error)
            while output.read(CHUNK_BYTES):
                pass

    def _answer(self, status: int, text: str) -> None:
        body = text.encode()
        try:
            self.send_response(status)
            if status == 401:
                self.send_header("WWW-Authenticate", 'Basic realm="git"')
            self.send_header("Content-Type", "text/plain; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            if self.close_connection:
                self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(body)
        except CLIENT_GONE:
            self.close_connection = True


def main() -> None:
    """Serve until told to stop, or record one push as git's hook."""
    parser = argparse.ArgumentParser(description="git over HTTP with basic auth and a log of every push")
    commands = parser.add_subparsers(dest="command", required=True)
    serve, hook = commands.add_parser("serve"), commands.add_parser("record")
    for name in ("--root", "--seed", "--credentials", "--log"):
        serve.add_argument(name, type=pathlib.Path, required=True)
    serve.add_argument("--port", type=int, default=8080)
    hook.add_argument("--repository", required=True)
    hook.add_argument("--log", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    if arguments.command == "record":
        record(arguments.repository, arguments.log, sys.stdin)
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # the first process of a container ignores it else
    settings = Settings(arguments.root, arguments.seed, arguments.credentials, arguments.log)
    seed(settings)
    Server(settings, ("", arguments.port)).serve_forever()


if __name__ == "__main__":
    main()
