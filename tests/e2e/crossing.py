"""Stands between the operator and Gitea, so that a test can choose the moment at which the operator dies.

Everything is passed on to the real server as it is. A crossing that is armed for a request lets the server carry it
out, kills the operator before it can read the answer, and starts another one: what is in doubt afterwards is exactly
what a kill between a request and the status write leaves in doubt.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

from tests.e2e.operator_process import OperatorProcess

HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "content-encoding", "host"}


@dataclass
class Crossing:
    """`operator` is what is killed and started; `upstream` is the server's address on this machine."""

    upstream: str
    operator: OperatorProcess
    address: str = ""
    requests: list[str] = field(default_factory=list)
    """Method, path and status of everything that was to change something, in order."""
    killed: list[str] = field(default_factory=list)
    """At which requests the operator died."""
    _armed: list[tuple[str, str]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _next: concurrent.futures.Future[None] | None = None
    """The operator that follows one that was killed."""
    _starter: concurrent.futures.ThreadPoolExecutor = field(
        default_factory=lambda: concurrent.futures.ThreadPoolExecutor(1)
    )

    def die_after(self, *requests: str, said: str = "") -> None:
        """Kill the operator once after each of these was carried out, by pattern: r"POST .*/pulls".

        `said`: only if these words are in the answer. Of several that fit, the first one that was asked for counts.
        """
        with self._lock:
            self._armed += [(request, said) for request in requests]

    def all_died(self) -> None:
        """Every request that was to kill the operator has come by, and the next operator is there."""
        assert self._armed == [], f"never came by; what did: {self.requests}"
        if self._next is not None:
            self._next.result()

    def forward(self, method: str, path: str, headers: dict[str, str], body: bytes) -> httpx.Response | None:
        """Pass a request on; None: nobody is left to get the answer."""
        answer = httpx.request(
            method, f"{self.upstream}{path}", headers=headers, content=body, timeout=60, trust_env=False
        )
        asked = f"{method} {path.partition('?')[0]}"
        with self._lock:
            if method != "GET":
                self.requests.append(f"{asked} {answer.status_code}")
            hit = next((w for w in self._armed if re.fullmatch(w[0], asked) and w[1] in answer.text), None)
            if hit is None or answer.is_error:
                return answer
            self._armed.remove(hit)
            self.killed.append(asked)
            # The next one may ask before anybody has seen that it is there; what it asks for may never come again.
            if self._next is not None:
                self._next.result()
            # Dead before the connection closes: a living one would see an error, and could act on it.
            self.operator.kill()
            self._next = self._starter.submit(self.operator.start)
        return None


@contextlib.contextmanager
def crossing(upstream: str, operator: OperatorProcess) -> Iterator[Crossing]:
    """Serve on a free port of 127.0.0.1 until the block ends."""
    between = Crossing(upstream, operator)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP}
            try:
                answer = between.forward(self.command, self.path, headers, body)
            except httpx.TransportError:
                # As a server that is away: no answer at all.
                answer = None
            if answer is None:
                self.close_connection = True
                return
            self.send_response(answer.status_code)
            for name, value in answer.headers.items():
                if name.lower() not in HOP:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.content)))
            # Whoever asked may be dead by now.
            with contextlib.suppress(ConnectionError):
                self.end_headers()
                self.wfile.write(answer.content)

        do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _pass  # noqa: N815 - the base class' names

        def log_message(self, *_: object) -> None:
            """Nothing: the test says what matters."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        between.address = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield between
        finally:
            server.shutdown()
            thread.join()
