"""kubectl with the demo's cluster and namespace filled in; objects go in and come out as plain JSON."""

from __future__ import annotations

import dataclasses
import json
import shlex
import subprocess
import threading
from typing import IO, TYPE_CHECKING, Any

from hack.cluster import shell

if TYPE_CHECKING:
    import queue
    from collections.abc import Iterator, Sequence

Object = dict[str, Any]
READ_BYTES = 65536


@dataclasses.dataclass(frozen=True)
class Kubectl:
    """`command`: the beginning of every command line; raises ClusterError with kubectl's own words when one fails."""

    command: Sequence[str]
    namespace: str

    def line(self, *arguments: str) -> str:
        """Return a command line that works as pasted."""
        return shlex.join([*self.command, f"--namespace={self.namespace}", *arguments])

    def run(self, *arguments: str, stdin: str = "") -> str:
        """Run kubectl and return what it printed."""
        return shell.run([*self.command, f"--namespace={self.namespace}", *arguments], stdin=stdin)

    def apply(self, objects: Sequence[Object]) -> None:
        """Create or change objects; repeating it changes nothing."""
        listed = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.run(
            "apply", "--server-side", "--force-conflicts", "--field-manager=demo", "-f", "-", stdin=json.dumps(listed)
        )

    def create(self, body: Object) -> None:
        """Create an object that must not be there yet."""
        self.run("create", "-f", "-", stdin=json.dumps(body))

    def find(self, kind: str, name: str) -> Object | None:
        """Return an object, or None where there is none."""
        text = self.run("get", kind, name, "--ignore-not-found", "-o", "json")
        return json.loads(text) if text.strip() else None

    def items(self, kind: str) -> list[Object]:
        """Return all objects of a kind in the namespace."""
        listed: list[Object] = json.loads(self.run("get", kind, "-o", "json"))["items"]
        return listed


class Watch:
    """Every version of one object, put on a queue as the API server sends it; None when kubectl's watch has ended."""

    def __init__(self, kubectl: Kubectl, kind: str, name: str, into: queue.Queue[Object | None]) -> None:
        command = [*kubectl.command, f"--namespace={kubectl.namespace}", "get", kind, name, "--watch", "-o", "json"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self._into = into
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def stop(self) -> str:
        """End the watch; return what kubectl complained about, if it did."""
        self._process.terminate()
        self._reader.join()
        with self._process as ended:
            assert ended.stderr is not None  # noqa: S101 - Popen was asked for a pipe
            return ended.stderr.read().decode(errors="replace").strip()

    def _read(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - Popen was asked for a pipe
        for body in documents(self._process.stdout):
            self._into.put(body)
        self._into.put(None)


def documents(stream: IO[bytes]) -> Iterator[Object]:
    """Yield the JSON objects that kubectl prints one after the other, each as soon as it is complete."""
    decoder, text = json.JSONDecoder(), b""
    while block := stream.read1(READ_BYTES):  # type: ignore[attr-defined]  # a BufferedReader
        text = (text + block).lstrip()
        while text:
            try:
                # A block may end inside a character or an object; both are complete with a later one.
                body, end = decoder.raw_decode(text.decode())
            except ValueError:
                break
            yield body
            text = text[len(text.decode()[:end].encode()) :].lstrip()
