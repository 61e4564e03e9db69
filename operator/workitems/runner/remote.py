"""Everything about reaching the remote: which credentials are mounted, and how git is told without seeing them.

The Secret holds either `username` and `password` (http, https) or `ssh-privatekey` and `known_hosts` (ssh).
"""

from __future__ import annotations

import os
import shlex
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from workitems.runner import credential, problems
from workitems.runner.git import Git, environment
from workitems.runner.places import Patience, Places

KEY, KNOWN_HOSTS = "ssh-privatekey", "known_hosts"
SHORTEST_SECRET = 4

T = TypeVar("T")


def connect(places: Places, url: str, patience: Patience) -> Git:
    """Make git ready for this remote. Raises RunProblemError where an ssh key comes without known hosts."""
    settings: dict[str, str] = {}
    variables: dict[str, str] = {}
    hidden: list[str] = []
    if places.ca_file.exists():
        settings["http.sslCAInfo"] = str(places.ca_file)
    if (places.credentials / credential.PASSWORD).exists():
        secret = (places.credentials / credential.PASSWORD).read_text(encoding="utf-8").strip("\r\n")
        hidden = [form for form in (secret, urllib.parse.quote(secret, safe="")) if len(form) >= SHORTEST_SECRET]
        parts = urllib.parse.urlsplit(url)
        # Bound to the address by git itself: a redirect to another host gets nothing.
        settings[f"credential.{parts.scheme}://{parts.netloc}.helper"] = credential.helper(places.credentials)
    if (places.credentials / KEY).exists():
        variables["GIT_SSH_COMMAND"] = _ssh(places.credentials, url)
    protocols = "http:https:ssh:file" if places.allow_file else "http:https:ssh"
    return Git(environment(settings, protocols, **variables), tuple(hidden), seconds=patience.local)


def described(places: Places, url: str) -> problems.Remote:
    """The remote as error messages name it."""
    given = any((places.credentials / name).exists() for name in (credential.PASSWORD, KEY))
    return problems.Remote(url, credentials=given)


def _ssh(credentials: Path, url: str) -> str:
    hosts = credentials / KNOWN_HOSTS
    if not hosts.exists():
        raise problems.RunProblemError(
            "HostKeyUnknown",
            f"the credentials Secret has {KEY} but no {KNOWN_HOSTS}: without it nobody knows that {url} is what it "
            f"says it is; add the server's line (ssh-keyscan prints it)",
        )
    options = (
        "BatchMode=yes",
        "StrictHostKeyChecking=yes",
        f"UserKnownHostsFile={hosts}",
        "GlobalKnownHostsFile=/dev/null",
        "IdentitiesOnly=yes",
        "IdentityAgent=none",
        "ConnectTimeout=20",
        "ServerAliveInterval=15",
    )
    arguments = ["ssh", "-F", "/dev/null", "-i", _private(credentials / KEY)]
    for option in options:
        arguments += ["-o", option]
    return shlex.join(arguments)


def _private(key: Path) -> str:
    """A path of the key that ssh accepts.

    A Secret's file is readable by its group, and often lacks the last line's end: ssh refuses both. A copy in memory
    has neither fault, needs no writable folder, and is gone with this process.
    """
    text = key.read_text(encoding="utf-8").replace("\r\n", "\n").strip() + "\n"
    descriptor = os.memfd_create("key")
    os.fchmod(descriptor, 0o600)
    os.write(descriptor, text.encode())
    return f"/proc/{os.getpid()}/fd/{descriptor}"  # ssh closes what it inherits, so it opens it from here


def persist(action: Callable[[], T], seconds: float, first_delay: float, sleep: Callable[[float], bool]) -> T:
    """Repeat an action while its problem says that waiting may help, for about so many seconds, the tries included.

    `sleep` returns True when there is no more time (the pod is being deleted). Raises the last RunProblemError.
    """
    delay, spent = first_delay, 0.0
    while True:
        began = time.monotonic()
        try:
            return action()
        except problems.RunProblemError as error:
            spent += time.monotonic() - began
            if not error.problem.retry or spent + delay > seconds or sleep(delay):
                raise
            spent, delay = spent + delay, min(delay * 2, 16)
