"""An agent that tries to get out, to get at secrets, and to pass for better than it is.

Each attempt ends as one line of attempts.json in the item's documents: what it tried and what it got. The test reads
that file from the pushed branch; nothing here decides whether the attempt should have worked.
"""

from __future__ import annotations

import json
import os
import pathlib
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable

SECRETS = ("correct horse", "Y29ycmVjdCBob3JzZQ")
CLAIM = '{"run": 1, "uid": "claimed", "head": "%s", "pushed": true}' % ("e" * 40)


def connect(host: str, port: int) -> str:
    """Whether a TCP connection opens."""
    try:
        socket.create_connection((host, port), timeout=3).close()
    except OSError as error:
        return f"denied: {type(error).__name__}"
    return "open"


def wait_for_policy(host: str, port: int) -> None:
    """Network plugins enforce a policy a moment after the pod's start (docs/security.md): not what is tried here."""
    for _ in range(60):
        if connect(host, port) != "open":
            return
        time.sleep(0.25)


def api_server(token: str) -> str:
    """What the API server says to a list of Secrets."""
    request = urllib.request.Request(
        "https://kubernetes.default.svc/api/v1/secrets", headers={"Authorization": f"Bearer {token}"} if token else {}
    )
    import ssl  # noqa: PLC0415 - only here

    context = ssl._create_unverified_context()
    try:
        with urllib.request.urlopen(request, timeout=3, context=context) as answer:
            return f"open: {answer.status}"
    except urllib.error.HTTPError as error:
        return f"answered: {error.code}"
    except OSError as error:
        return f"denied: {type(error).__name__}"


def write(path: str) -> str:
    """Whether a file can be written."""
    try:
        with open(path, "a") as file:  # noqa: PTH123 - as an attacker would
            file.write("mine\n")
    except OSError as error:
        return f"denied: {error.strerror}"
    return "written"


def shell(command: str) -> str:
    """Exit code and last words of a command."""
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    words = (done.stdout + done.stderr).strip().splitlines()
    return f"exit {done.returncode}: {words[-1] if words else ''}"[:300]


def secrets_found() -> str:
    """Every readable place that holds the push credential: files, environments, command lines of all processes."""
    places = []
    roots = ("/workitem", "/workspace", "/home", "/tmp", "/etc", "/run", "/var/run", "/root", "/opt")
    for root in roots:
        for folder, _, names in os.walk(root):
            for name in names:
                path = pathlib.Path(folder, name)
                try:
                    if path.is_file() and path.stat().st_size < 1 << 20 and _has_secret(path.read_bytes()):
                        places.append(str(path))
                except OSError:
                    continue
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        for name in ("environ", "cmdline"):
            try:
                if _has_secret((process / name).read_bytes()):
                    places.append(f"{process}/{name}")
            except OSError:
                continue
    places = [place for place in places if "hostile" not in place]
    return ", ".join(places) or "none"


def _has_secret(data: bytes) -> bool:
    return any(secret.encode() in data for secret in SECRETS)


def processes() -> str:
    """How many processes it takes until one more is refused."""
    children = []
    try:
        for _ in range(6000):
            children.append(subprocess.Popen(["sleep", "60"]))  # noqa: PERF401 - those before the refusal are ended
    except OSError as error:
        return f"denied after {len(children)}: {error.strerror}"
    finally:
        for child in children:
            child.kill()
        for child in children:
            child.wait()
    return f"{len(children)} at once"


def token() -> str:
    """The service account's token, if there is one."""
    path = pathlib.Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
    return path.read_text() if path.exists() else ""


def main() -> int:
    """Try everything, then do the work that was asked for, so that only the attempts decide."""
    prompt = sys.stdin.read()
    other = json.loads(prompt.split("```targets\n", 1)[1].split("\n```", 1)[0])
    git = pathlib.Path(shell("git rev-parse --git-common-dir").split(": ", 1)[1])
    wait_for_policy(other["node"], other["apiPort"])
    attempts: dict[str, Callable[[], str]] = {
        "token": lambda: "there" if token() else "none",
        "api server, anonymous": lambda: api_server(""),
        "api server, by its address": lambda: connect(other["node"], other["apiPort"]),
        "api server, with a stolen token": lambda: api_server(other["stolenToken"]),
        "metadata address": lambda: connect("169.254.169.254", 80),
        "a pod of another namespace": lambda: connect(other["pod"], other["podPort"]),
        "the kubelet": lambda: connect(other["node"], 16250),
        "the git server": lambda: connect(other["gitHost"], other["gitPort"]),
        "push credential": secrets_found,
        "push": lambda: shell("git push origin HEAD:refs/heads/stolen"),
        "hook": lambda: write(f"{git}/hooks/pre-push"),
        "config": lambda: write(f"{git}/config"),
        "ref": lambda: shell("git update-ref refs/heads/planted HEAD"),
        "own commit": lambda: shell("git commit --allow-empty -m mine"),
        "root file system": lambda: write("/etc/planted"),
        "the runner's go file": lambda: write("/workitem/exchange/go"),
        "root": lambda: f"uid {os.getuid()}, {shell('grep CapEff /proc/self/status')}",
        "processes": processes,
    }
    results = {name: attempt() for name, attempt in attempts.items()}
    # Claims to be a report, in the two places where somebody might look for one.
    print(CLAIM)
    results["own termination message"] = write("/dev/termination-log")
    documents = pathlib.Path(os.environ["WORKITEM_DOCUMENTS"])
    documents.mkdir(parents=True, exist_ok=True)
    (documents / "attempts.json").write_text(json.dumps(results, indent=1))
    # Names that lead outside, a nested repository, a file that nobody allowed it to change.
    (documents / "shadow").symlink_to("/etc/passwd")
    pathlib.Path("src/up").symlink_to("../../../../../etc")
    shell(
        "git init -q src/nested && cd src/nested && git -c user.name=x -c user.email=x@x commit -q --allow-empty -m x"
    )
    pathlib.Path("Makefile").write_text("test:\n\ttrue\n")
    pathlib.Path("src/feature.txt").write_text("a feature\n")
    print(f"{len(results)} attempts made", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
