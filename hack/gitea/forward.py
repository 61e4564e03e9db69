"""A port of this machine that leads to Gitea in a cluster, also after its pod was replaced by another one.

`kubectl port-forward` leads to one pod and ends with it. Here it is started again, on the same port, for as long as it
is wanted; while there is no pod, connections to the port are refused, as a server that is away refuses them.
"""

from __future__ import annotations

import contextlib
import subprocess
import threading
from collections.abc import Iterator, Sequence

from hack.cluster import ports
from hack.gitea.errors import GiteaError
from hack.gitea.manifests import Gitea

FIRST_SECONDS = 30.0
PAUSE_SECONDS = 0.3


class _Forward:
    """The thread that keeps one forwarding alive."""

    def __init__(self, command: Sequence[str], port: int) -> None:
        self.port = port
        self._command = list(command)
        self._over = threading.Event()
        self._ready = threading.Event()
        self._said = ""
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._keep, daemon=True)

    def start(self) -> None:
        self._thread.start()
        if not self._ready.wait(FIRST_SECONDS):
            self.stop()
            raise GiteaError(f"`{' '.join(self._command)}` leads nowhere: {self._said or 'it said nothing'}")

    def stop(self) -> None:
        with self._lock:
            self._over.set()
            if self._process is not None:
                self._process.terminate()
        self._thread.join()

    def _keep(self) -> None:
        while not self._over.is_set():
            with self._lock:
                if self._over.is_set():
                    return
                self._process = subprocess.Popen(
                    self._command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
                )
            with self._process as process:
                for line in process.stdout or ():
                    self._said = line.strip()
                    if line.startswith("Forwarding from"):
                        self._ready.set()
                    elif "lost connection" in line or "error forwarding" in line:
                        # It would go on listening, and lead to a pod that is gone.
                        process.terminate()
            self._over.wait(PAUSE_SECONDS)


@contextlib.contextmanager
def forwarded(kubectl: Sequence[str], server: Gitea) -> Iterator[str]:
    """Yield the server's address on this machine, without a slash at the end; `kubectl`: how its command line begins.

    Raises GiteaError when nothing can be forwarded.
    """
    port = ports.free()
    where = ["port-forward", f"--namespace={server.namespace}", "--address=127.0.0.1", f"service/{server.name}"]
    forward = _Forward([*kubectl, *where, f"{port}:80"], port)
    forward.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        forward.stop()
