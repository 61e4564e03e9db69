"""What answers on the network: the attempt, in an agent's pod, and its control, in a pod without policy.

stdin: a JSON object, name -> {"how": "tcp" | "udp" | "api", "host", "port", and "says", what a listener of the test
says, or "token"}. stdout: name -> "open…", "answered: CODE" or "denied: WHY". It needs nothing but Python.
"""

from __future__ import annotations

import concurrent.futures
import json
import socket
import ssl
import sys
import urllib.error
import urllib.request
from typing import Any

SECONDS = 15


def attempt(target: dict[str, Any]) -> str:
    """Try one address."""
    try:
        return {"tcp": _tcp, "udp": _udp, "api": _api}[target["how"]](target)
    except urllib.error.HTTPError as error:
        return f"answered: {error.code}"
    except OSError as error:
        return f"denied: {type(error).__name__}"


def _tcp(target: dict[str, Any]) -> str:
    with socket.create_connection((target["host"], target["port"]), timeout=SECONDS) as connection:
        said = connection.recv(64).decode() if "says" in target else ""
    return "open" if said == target.get("says", "") else f"open, but it says {said!r}"


def _udp(target: dict[str, Any]) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.settimeout(SECONDS)
        sender.connect((target["host"], target["port"]))
        sender.send(b"?")
        said = sender.recv(64).decode()
    return "open" if said == target["says"] else f"open, but it says {said!r}"


def _api(target: dict[str, Any]) -> str:
    """Ask the API server for all Secrets."""
    headers = {"Authorization": f"Bearer {target['token']}"} if target.get("token") else {}
    request = urllib.request.Request(f"https://{target['host']}:{target['port']}/api/v1/secrets", headers=headers)
    context = ssl._create_unverified_context()
    with urllib.request.urlopen(request, timeout=SECONDS, context=context) as answer:
        return f"open: {answer.status}"


def main() -> int:
    """Try all of them at once."""
    targets: dict[str, dict[str, Any]] = json.load(sys.stdin)
    with concurrent.futures.ThreadPoolExecutor(len(targets)) as pool:
        json.dump(dict(zip(targets, pool.map(attempt, targets.values()), strict=True)), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
