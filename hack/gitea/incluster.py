"""Gitea in a cluster: installed, its administrator made through `kubectl exec`, everything else through its API.

Each step may be repeated, on a server that an earlier run has left too.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from hack.cluster import shell
from hack.demo.cluster import Kubectl, Object
from hack.gitea import forward, manifests
from hack.gitea.client import BOT_SCOPES, Client, Repository
from hack.gitea.errors import GiteaError

ADMIN = "root"
PROGRAM = ("gitea", "--config", manifests.INI)


@dataclass(frozen=True)
class Installation:
    """One server in the namespace of its kubectl."""

    kubectl: Kubectl
    server: manifests.Gitea

    def install(self) -> None:
        """Create or change its objects; the keys of an earlier installation stay. The caller waits for the rollout."""
        self.kubectl.apply(manifests.manifests(self.server, self._keys()))

    @contextmanager
    def administrator(self) -> Iterator[Client]:
        """A client of the administrator, who is made where there is none; its server must be ready.

        Raises GiteaError where that fails.
        """
        password = self._keys().admin_password
        with forward.forwarded(self.kubectl.command, self.server) as url:
            known = Client(url, ADMIN, password=password)
            if known.send("GET", "/user").status_code == 401:
                self._create_administrator(password)
            yield known

    def scale(self, replicas: int) -> None:
        """Stop the server (0) or start it again (1), and wait until that is so."""
        name = f"deployment/{self.server.name}"
        self.kubectl.run("scale", name, f"--replicas={replicas}")
        if replicas:
            self.kubectl.run("rollout", "status", name, "--timeout=360s")
        else:
            selector = ",".join(f"{key}={value}" for key, value in self.server.labels.items())
            self.kubectl.run("wait", "--for=delete", "pod", f"--selector={selector}", "--timeout=360s")

    def _keys(self) -> manifests.Keys:
        found = self.kubectl.find("secret", self.server.name)
        if found is not None:
            return manifests.keys_of(found, lambda text: base64.b64decode(text).decode())
        return manifests.Keys(*(secrets.token_hex(32) for _ in range(3)))

    def _create_administrator(self, password: str) -> None:
        create = ["admin", "user", "create", "--admin", "--must-change-password=false"]
        who = [f"--username={ADMIN}", f"--email={ADMIN}@gitea.example", f"--password={password}"]
        done = shell.attempt(
            [
                *self.kubectl.command, f"--namespace={self.server.namespace}", "exec", f"deployment/{self.server.name}",
                "--", *PROGRAM, *create, *who,
            ]
        )  # fmt: skip
        if done.returncode != 0:
            raise GiteaError(
                f"Gitea in namespace {self.server.namespace} did not create its administrator: "
                f"{shell.last_lines(done.stderr or done.stdout)}"
            )


def bot(admin: Client, name: str, repository: Repository, permission: str = "write") -> Client:
    """A user with a permission on a repository, and a new token of no more than the operator needs."""
    if admin.send("GET", f"/users/{name}").status_code == 404:
        made = admin.create_user(name)
    else:
        password = secrets.token_hex(12)
        admin.ask("PATCH", f"/admin/users/{name}", {"password": password, "login_name": name, "source_id": 0})
        made = Client(admin.url, name, password=password)
    repository.by(admin).invite(name, permission)
    return made.with_token(*BOT_SCOPES)


def credentials(namespace: str, name: str, user: Client) -> Object:
    """One Secret for both uses of a token: `credentials` of a Repository (git), and `forge.gitea.token` (key token)."""
    data = {"username": user.user, "password": user.token, "token": user.token}
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "stringData": data}
