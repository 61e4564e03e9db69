"""Addresses outside the cluster that answer, the metadata address among them, for the pods of the local cluster.

This machine may have a metadata service of its own, and needs it: so no interface gets the address. What comes from the
cluster's bridge for one of the addresses is routed to this machine by a table of its own; nobody else's packets are.

As a program (root's): routes, listens, prints a line once it does, and puts everything back when its stdin ends,
which it does however the test ends.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

from hack.cluster import elevation, network
from hack.cluster.local import LocalCluster
from hack.cluster.model import Cluster

METADATA = "169.254.169.254"
ADDRESSES = {"an address outside": "198.51.100.7", "the metadata address": METADATA}
"""The first is of a network that exists in documentation alone (RFC 5737)."""
PORTS = {"an address outside": 443, "the metadata address": 80}
DNS = 53
SAYS = "outside"
_TABLE = "5371"
_ROOT = pathlib.Path(__file__).parent.parent.parent


def refusal(cluster: Cluster) -> str | None:
    """Why this cluster cannot have them; None if it can."""
    return None if isinstance(cluster, LocalCluster) else "only the local cluster's node is this machine, to listen on"


def targets() -> dict[str, dict[str, object]]:
    """What answers while `listening`, for reach.py."""
    found: dict[str, dict[str, object]] = {}
    for name, host in ADDRESSES.items():
        found[name] = {"how": "tcp", "host": host, "port": PORTS[name], "says": SAYS}
        for how in ("tcp", "udp"):
            found[f"{name}, {how} {DNS}"] = {"how": how, "host": host, "port": DNS, "says": SAYS}
    return found


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """Let the addresses answer."""
    prefix = () if elevation.is_root() else ("sudo", "-n", "env", f"PATH={os.environ['PATH']}")
    command = [*prefix, sys.executable, "-m", "tests.e2e.outside"]
    with subprocess.Popen(command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "listening\n", "its error stands above"
        yield
        process.stdin.close()
    assert process.returncode == 0, "it could not put everything back: its error stands above"


def main() -> int:
    """Listen until stdin ends."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(1))
    with contextlib.ExitStack() as stack:
        for address in ADDRESSES.values():
            stack.enter_context(_routed(address))
        selector = stack.enter_context(selectors.DefaultSelector())
        selector.register(sys.stdin, selectors.EVENT_READ)
        for name, address in ADDRESSES.items():
            for kind, port in (
                (socket.SOCK_STREAM, PORTS[name]),
                (socket.SOCK_STREAM, DNS),
                (socket.SOCK_DGRAM, DNS),
            ):
                selector.register(stack.enter_context(_listener(kind, address, port)), selectors.EVENT_READ)
        print("listening", flush=True)
        while True:
            for key, _ in selector.select():
                if not isinstance(key.fileobj, socket.socket):
                    return 0
                _answer(key.fileobj)


@contextlib.contextmanager
def _routed(address: str) -> Iterator[None]:
    route = ["local", address, "dev", "lo", "table", _TABLE]
    rule = ["priority", _TABLE, "iif", network.BRIDGE, "to", address, "lookup", _TABLE]
    _ip("route", "replace", *route)
    # Of a test that was killed together with this program.
    while subprocess.run(["ip", "rule", "delete", *rule], capture_output=True, check=False).returncode == 0:
        pass
    _ip("rule", "add", *rule)
    try:
        yield
    finally:
        _ip("rule", "delete", *rule)
        _ip("route", "delete", *route)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def _listener(kind: socket.SocketKind, address: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, kind)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # The address is no interface's: without this it could neither be bound nor answered from.
    listener.setsockopt(socket.SOL_IP, socket.IP_TRANSPARENT, 1)
    listener.bind((address, port))
    if kind is socket.SOCK_STREAM:
        listener.listen()
    return listener


def _answer(listener: socket.socket) -> None:
    if listener.type is socket.SOCK_DGRAM:
        _, sender = listener.recvfrom(64)
        listener.sendto(SAYS.encode(), sender)
        return
    connection, _ = listener.accept()
    with connection, contextlib.suppress(OSError):
        connection.send(SAYS.encode())


if __name__ == "__main__":
    sys.exit(main())
