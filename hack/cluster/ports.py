"""A port of this machine for a server that binds it later, and binds it again whenever it is started again.

Of the ports that the kernel gives to connections, and to whoever asks for any, one may be taken in between. So one is
either held meanwhile, or is none of those.
"""

from __future__ import annotations

import contextlib
import random
import socket

from hack.cluster.errors import ClusterError

PORTS = range(20000, 30000)
"""The kernel gives none of them to anybody, and Kubernetes has its node ports above them."""


def held() -> socket.socket:
    """Of 127.0.0.1: bound until this is closed, and not listened at, which keeps out whoever asks for any port.

    A server that sets SO_REUSEADDR, as most do, may listen there all the same.
    """
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    return holder


def number(holder: socket.socket) -> int:
    """The port that is held."""
    return int(holder.getsockname()[1])


def free() -> int:
    """One that nobody listens on now, at any address, for who cannot hold it. Raises ClusterError without any."""
    for port in random.sample(PORTS, 100):
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("", port))
            return port
    raise ClusterError(f"A hundred ports of {PORTS.start} to {PORTS.stop} are all taken: stop some servers.")
