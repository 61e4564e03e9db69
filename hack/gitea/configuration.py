"""Gitea's own configuration file for a server that nobody but tests and the demo use, wherever it runs.

Everything that would reach for the internet, wait for mail or take minutes in the background is off. What the operator
depends on (pull requests, statuses, protection, webhooks, queues that survive a restart) is as Gitea ships it.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Configuration:
    """One server. Paths are the server's own; `hooks`: hosts and networks that its webhooks may reach."""

    root_url: str
    data: str
    static: str
    address: str
    port: int
    hooks: tuple[str, ...] = ("loopback",)
    secret_key: str = field(default_factory=lambda: secrets.token_hex(32))
    internal_token: str = field(default_factory=lambda: secrets.token_hex(32))


def _jwt_secret(key: str) -> str:
    """Gitea's third key, which it would else make up and write into the file."""
    return base64.urlsafe_b64encode(hashlib.sha256(f"jwt {key}".encode()).digest()).decode().rstrip("=")


def ini(wanted: Configuration) -> str:
    """Return the file's text; Gitea need not write to it. It holds the server's keys."""
    return f"""\
APP_NAME = Forge
RUN_MODE = prod
WORK_PATH = {wanted.data}
I_AM_BEING_UNSAFE_RUNNING_AS_ROOT = true

[server]
PROTOCOL = http
HTTP_ADDR = {wanted.address}
HTTP_PORT = {wanted.port}
ROOT_URL = {wanted.root_url}
LOCAL_ROOT_URL = http://127.0.0.1:{wanted.port}/
APP_DATA_PATH = {wanted.data}/data
STATIC_ROOT_PATH = {wanted.static}
DISABLE_SSH = true
LFS_START_SERVER = false
OFFLINE_MODE = true

[database]
DB_TYPE = sqlite3
PATH = {wanted.data}/data/gitea.db
SQLITE_JOURNAL_MODE = WAL

[repository]
ROOT = {wanted.data}/repositories
DEFAULT_BRANCH = main
DEFAULT_PRIVATE = private

[security]
INSTALL_LOCK = true
SECRET_KEY = {wanted.secret_key}
INTERNAL_TOKEN = {wanted.internal_token}
PASSWORD_HASH_ALGO = pbkdf2_v1
PASSWORD_COMPLEXITY = off

[service]
DISABLE_REGISTRATION = true

[webhook]
ALLOWED_HOST_LIST = {", ".join(wanted.hooks)}

[log]
MODE = console
LEVEL = Warn

[indexer]
ISSUE_INDEXER_TYPE = db

[session]
PROVIDER = memory

[oauth2]
ENABLED = false
JWT_SECRET = {_jwt_secret(wanted.secret_key)}

[actions]
ENABLED = false

[packages]
ENABLED = false

[federation]
ENABLED = false

[mirror]
ENABLED = false

[migrations]
ALLOW_LOCALNETWORKS = false

[cron.update_checker]
ENABLED = false
"""
