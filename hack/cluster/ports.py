"""A port of this machine for a server that binds it later, and binds it again whenever it is started again.

Of the ports that the kernel gives to connections, and to whoever asks for any, one may be taken in between: these are
none of them, and no node ports of Kubernetes.
"""

from __future__ import annotations

import contextlib
import random
import socket

from hack.cluster.errors import ClusterError

PORTS = range(20000, 30000)


def free() -> int:
    """One that nobody listens on now, at any address. Raises ClusterError where there is none."""
    for port in random.sample(PORTS, 100):
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("", port))
            return port
    raise ClusterError(f"A hundred ports of {PORTS.start} to {PORTS.stop} are all taken: too many servers run here.")
