"""What people and CI systems do on a Gitea, for tests and the demo: users, tokens, repositories, commits, statuses.

Not the operator's client, on purpose: a test that sets up and checks with the code under test proves little. Every call
is one request (a merge may take several), and a refusal is an error.
"""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from hack.gitea.errors import GiteaError

BOT_SCOPES = ("write:repository",)
"""All that the operator needs: for pull requests, reviews, merges and webhooks."""
TIMEOUT_SECONDS = 60.0
PAGE = 50
TRIES = 60
PAUSE_SECONDS = 0.5


@dataclass(frozen=True)
class Client:
    """One user of one server; `token` and `password` are theirs, `url` ends without a slash."""

    url: str
    user: str
    token: str = field(default="", repr=False)
    password: str = field(default="", repr=False)

    def ask(self, method: str, path: str, body: Any = None, **query: str | int) -> Any:
        """Send one request under /api/v1; return its answer's JSON, None where it has none.

        Raises GiteaError on any refusal, and where the server cannot be reached.
        """
        answer = self.send(method, path, body, **query)
        if answer.is_error:
            raise GiteaError(f"{method} {path} as {self.user}: {answer.status_code} {answer.text[:400]}")
        return answer.json() if answer.content else None

    def send(self, method: str, path: str, body: Any = None, **query: str | int) -> httpx.Response:
        """Send one request and return the answer whatever it is. Raises GiteaError where there is none."""
        headers = {"Authorization": f"token {self.token}"} if self.token else {}
        auth = None if self.token else httpx.BasicAuth(self.user, self.password)
        try:
            # A connection of its own each time: the server may have been stopped and started since the last one.
            return httpx.request(
                method,
                f"{self.url}/api/v1{path}",
                json=body,
                params=query,
                headers=headers,
                auth=auth,
                timeout=TIMEOUT_SECONDS,
                trust_env=False,
            )
        except httpx.TransportError as error:
            raise GiteaError(f"{method} {path} as {self.user}: no answer from {self.url}: {error!r}") from error

    def all(self, path: str, **query: str | int) -> list[Any]:
        """Return a listing's pages together."""
        found: list[Any] = []
        for page in range(1, 1000):
            listed = self.ask("GET", path, page=page, limit=PAGE, **query) or []  # Gitea says null for none
            found += listed
            if len(listed) < PAGE:
                break
        return found

    def create_user(self, name: str, *, admin: bool = False) -> Client:
        """Create a user (this one must be an administrator) and return a client of theirs."""
        password = os.urandom(12).hex()
        body = {
            "username": name,
            "email": f"{name}@gitea.example",
            "password": password,
            "must_change_password": False,
        }
        self.ask("POST", "/admin/users", body)
        if admin:
            self.ask("PATCH", f"/admin/users/{name}", {"admin": True, "login_name": name, "source_id": 0})
        return Client(self.url, name, password=password)

    def with_token(self, *scopes: str, name: str = "") -> Client:
        """Return a client of the same user with a new token of these scopes; this one needs the password."""
        title = name or os.urandom(4).hex()
        made = Client(self.url, self.user, password=self.password).ask(
            "POST", f"/users/{self.user}/tokens", {"name": title, "scopes": list(scopes)}
        )
        return Client(self.url, self.user, token=made["sha1"], password=self.password)

    def create_repository(self, name: str, content: Path | bytes | None = None) -> Repository:
        """Create a private repository of this user's.

        `content`: a folder, a git bundle, or nothing for one commit with a README.
        """
        self.ask("POST", "/user/repos", {"name": name, "private": True, "auto_init": content is None})
        made = Repository(self, self.user, name)
        if content is not None:
            made.push(content)
        return made

    def repository(self, owner: str, name: str) -> Repository:
        """A repository that is there, as this user."""
        return Repository(self, owner, name)


@dataclass(frozen=True)
class Repository:
    """One repository, as one user."""

    client: Client
    owner: str
    name: str

    @property
    def url(self) -> str:
        """The address for git, without credentials."""
        return f"{self.client.url}/{self.owner}/{self.name}.git"

    def ask(self, method: str, path: str = "", body: Any = None, **query: str | int) -> Any:
        """Send a request under this repository. Raises GiteaError."""
        return self.client.ask(method, f"/repos/{self.owner}/{self.name}{path}", body, **query)

    def send(self, method: str, path: str = "", body: Any = None, **query: str | int) -> httpx.Response:
        """Send a request under this repository and return the answer whatever it is."""
        return self.client.send(method, f"/repos/{self.owner}/{self.name}{path}", body, **query)

    def all(self, path: str, **query: str | int) -> list[Any]:
        """Return all pages of a listing under this repository."""
        return self.client.all(f"/repos/{self.owner}/{self.name}{path}", **query)

    def by(self, client: Client) -> Repository:
        """The same repository as another user."""
        return Repository(client, self.owner, self.name)

    def invite(self, user: str, permission: str = "write") -> None:
        """Make somebody a collaborator: read, write or admin."""
        self.ask("PUT", f"/collaborators/{user}", {"permission": permission})

    def push(self, content: Path | bytes) -> None:
        """Push every branch of a git bundle, or a folder as one commit on main."""
        from hack.gitserver import bundle  # noqa: PLC0415 - a client that pushes nothing needs no git

        data = bundle.bundle(content) if isinstance(content, Path) else content
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch) / "content.bundle"
            file.write_bytes(data)
            self.git(Path(scratch), "clone", "--quiet", "--mirror", str(file), "mirror")
            self.git(Path(scratch) / "mirror", "push", "--quiet", self.url, "refs/heads/*:refs/heads/*")
        # Gitea takes note of a push a moment later, and calls the repository empty until then.
        for _ in range(TRIES):
            if not self.ask("GET")["empty"]:
                return
            time.sleep(PAUSE_SECONDS)
        raise GiteaError(f"{self.url} took a push and calls itself empty all the same")

    def restore(self, content: Path, message: str) -> bool:
        """Make main a folder's content again, by a commit on top; False where it is that already."""
        with tempfile.TemporaryDirectory() as scratch:
            tree = Path(scratch) / "tree"
            self.git(Path(scratch), "clone", "--quiet", "--branch=main", self.url, str(tree))
            self.git(tree, "rm", "-r", "--quiet", ".")
            shutil.copytree(content, tree, dirs_exist_ok=True)
            self.git(tree, "add", "--all")
            if not self.git(tree, "status", "--porcelain"):
                return False
            self.git(tree, "commit", "--quiet", "--message", message)
            self.git(tree, "push", "--quiet", self.url, "HEAD:refs/heads/main")
            return True

    def git(self, folder: Path, *arguments: str) -> str:
        """Run git in a folder as this user, for pushes that REST cannot make. Raises GiteaError when it fails."""
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            # By environment: a password in an argument would be everybody's to read.
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "http.extraHeader",
            "GIT_CONFIG_VALUE_0": f"Authorization: Basic {self._basic()}",
            **{f"GIT_{who}_NAME": self.client.user for who in ("AUTHOR", "COMMITTER")},
            **{f"GIT_{who}_EMAIL": f"{self.client.user}@gitea.example" for who in ("AUTHOR", "COMMITTER")},
        }
        done = subprocess.run(
            ["git", *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise GiteaError(f"git {' '.join(arguments)} as {self.client.user}: {done.stderr.strip()}")
        return done.stdout

    def _basic(self) -> str:
        secret = self.client.token or self.client.password
        return base64.b64encode(f"{self.client.user}:{secret}".encode()).decode()

    def head(self, branch: str = "main") -> str:
        """The commit of a branch."""
        return str(self.ask("GET", f"/branches/{branch}")["commit"]["id"])

    def has(self, branch: str) -> bool:
        """Whether there is such a branch, asked of git: Gitea's own list of branches lags behind a push."""
        answer = self.send("GET", f"/git/refs/heads/{branch}")
        # All that begin with the name, one alone as an object.
        found = answer.json() if answer.status_code == 200 else []
        return f"refs/heads/{branch}" in {ref["ref"] for ref in (found if isinstance(found, list) else [found])}

    def create_branch(self, name: str, base: str = "main") -> None:
        """A branch where another one (or a commit) is."""
        self.ask("POST", "/branches", {"new_branch_name": name, "old_ref_name": base})

    def commit(self, branch: str, path: str, text: str, message: str = "By hand") -> str:
        """One more commit on a branch, which writes one file; its id. The branch is made from main if it is new."""
        body: dict[str, Any] = {"content": base64.b64encode(text.encode()).decode(), "message": message}
        body |= {"branch": branch} if self.has(branch) else {"branch": "main", "new_branch": branch}
        there = self.send("GET", f"/contents/{path}", ref=body["branch"])
        if there.status_code == 200:
            body["sha"] = there.json()["sha"]
        written = self.ask("POST" if "sha" not in body else "PUT", f"/contents/{path}", body)
        return str(written["commit"]["sha"])

    def read(self, path: str, ref: str = "main") -> str:
        """A file's text."""
        return base64.b64decode(self.ask("GET", f"/contents/{path}", ref=ref)["content"]).decode()

    def files(self, ref: str = "main") -> set[str]:
        """The paths of all files."""
        tree = self.ask("GET", f"/git/trees/{ref}", recursive="true", per_page=1000)["tree"]
        return {entry["path"] for entry in tree if entry["type"] == "blob"}

    def subjects(self, branch: str) -> list[str]:
        """The first lines of a branch's commit messages, newest first."""
        listed = self.all("/commits", sha=branch, stat="false", verification="false", files="false")
        return [entry["commit"]["message"].splitlines()[0] for entry in listed]

    def report(self, commit: str, context: str, state: str, target_url: str = "") -> None:
        """A commit status, as a CI system sends it: pending, success, failure, error, warning or skipped."""
        body = {"context": context, "state": state, "description": f"{context} is {state}", "target_url": target_url}
        self.ask("POST", f"/statuses/{commit}", body)

    def pull_requests(self, state: str = "all") -> list[dict[str, Any]]:
        """All pull requests, newest first."""
        return self.all("/pulls", state=state)

    def open_pull_request(self, head: str, base: str = "main", title: str = "By hand") -> dict[str, Any]:
        """Open a pull request, as a person does."""
        return dict(self.ask("POST", "/pulls", {"head": head, "base": base, "title": title}))

    def merge(self, number: int, method: str = "merge") -> None:
        """Merge a pull request, as a person does, who is asked to try again while Gitea still looks for conflicts."""
        for _ in range(TRIES):
            answer = self.send("POST", f"/pulls/{number}/merge", {"Do": method})
            if answer.status_code != 405 or "try again later" not in answer.text:
                break
            time.sleep(PAUSE_SECONDS)
        if answer.is_error:
            raise GiteaError(f"merging pull request {number} as {self.client.user}: {answer.text[:400]}")

    def protect(self, branch: str = "main", **rules: Any) -> None:
        """Protect a branch; `rules` as the API names them, e.g. required_approvals=1."""
        self.ask("POST", "/branch_protections", {"rule_name": branch, **rules})

    def webhooks(self) -> list[dict[str, Any]]:
        """All webhooks of the repository."""
        return self.all("/hooks")
