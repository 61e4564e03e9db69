"""What an end-to-end test needs of a cluster: a namespace, a repository on a real git server, items, and patience.

Waiting is watching: a test sleeps on the API server's watch until the item is what it waits for, or says what the
item was instead, with the operator's last words.
"""

from __future__ import annotations

import json
import pathlib
import subprocess
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pykube
import yaml

from hack.cluster.model import Cluster
from hack.gitserver.manifests import GitServer, url
from tests.e2e.operator_process import OperatorProcess

JSON = dict[str, Any]
CONTRACT = pathlib.Path(__file__).parent.parent / "contract"
AGENT = pathlib.Path(__file__).with_name("script_agent.py")
PATIENCE_SECONDS = 240

WorkItem = pykube.object_factory
"""Made by `Lab` for the API group; pykube knows no custom resources by itself."""


@dataclass
class Git:
    """The git server's side of a repository, seen from inside its pod."""

    kubectl: list[str]
    server: GitServer
    repository: str

    def __call__(self, *arguments: str) -> str:
        """Run git in the bare repository."""
        folder = f"/srv/git/{self.repository}.git"
        return self.shell(["git", "-C", folder, *arguments])

    def shell(self, command: list[str], stdin: str | None = None) -> str:
        """Run a command in the server's pod."""
        where = ["exec", "-i", "-n", self.server.namespace, f"deploy/{self.server.name}", "--"]
        done = subprocess.run(
            [*self.kubectl, *where, *command], capture_output=True, text=True, input=stdin, check=False
        )
        assert done.returncode == 0, f"{command} in the git server: {done.stderr}"
        return done.stdout

    def show(self, branch: str, path: str) -> str:
        """A file of a branch."""
        return self("show", f"{branch}:{path}")

    def files(self, branch: str) -> set[str]:
        """Names of all files of a branch."""
        return set(self("ls-tree", "-r", "--name-only", branch).splitlines())

    def subjects(self, branch: str, base: str = "main") -> list[str]:
        """Subjects of the commits of a branch since its base, oldest first."""
        return self("log", "--reverse", "--format=%s", f"{base}..{branch}").splitlines()

    def commit(self, branch: str, path: str, text: str, message: str = "By hand") -> str:
        """A person's push: one more commit on a branch, and its id."""
        script = (
            'set -e; d=$(mktemp -d); git clone -q -b "$2" "$1" "$d"; cd "$d"; mkdir -p "$(dirname "$3")"; cat > "$3"; '
            'git add -A; git -c user.name=Person -c user.email=person@example.com commit -q -m "$4"; git push -q; '
            "git rev-parse HEAD"
        )
        folder = f"/srv/git/{self.repository}.git"
        return self.shell(["sh", "-c", script, "sh", folder, branch, path, message], stdin=text).strip()

    def pushes(self) -> list[JSON]:
        """Every ref update that the server accepted for this repository."""
        lines = self.shell(["cat", "/srv/git/pushes.jsonl"]).splitlines()
        return [push for push in map(json.loads, lines) if self.repository in push["repository"]]


@dataclass
class Lab:
    """One namespace of one test."""

    cluster: Cluster
    api: pykube.HTTPClient
    namespace: str
    git_server: GitServer
    operator: OperatorProcess
    created: list[JSON] = field(default_factory=list)

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        """Run kubectl in the test's namespace; its output."""
        command = [*self.cluster.kubectl, "-n", self.namespace, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, input=stdin, check=False)
        assert not check or done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout if check else done.stdout + done.stderr

    def apply(self, *manifests: JSON) -> None:
        """Server-side apply."""
        self.kubectl("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump_all(manifests))

    def repository(self, name: str = "shop", **spec: Any) -> Git:
        """A Repository object, and a fresh repository on the git server behind it."""
        git = Git(self.cluster.kubectl, self.git_server, f"{name}-{uuid.uuid4().hex[:8]}")
        folder = f"/srv/git/{git.repository}.git"
        git.shell(["cp", "-r", "/srv/git/seed.git", folder])
        # The hook that logs pushes names its repository.
        git.shell(["sed", "-i", f"s/seed.git/{git.repository}.git/", f"{folder}/hooks/post-receive"])
        default: JSON = {
            "url": url(self.git_server, git.repository),
            "credentials": {"secretName": self.git_server.secret_name},
            "worktree": {"emptyDir": {}},
        }
        self.apply(_object("Repository", name, {**default, **spec}))
        return git

    def pipeline(self, name: str = "default", change: Callable[[JSON], None] | None = None) -> None:
        """The contract's default Pipeline with the scripted agent; `change` edits its spec in place."""
        spec = default_pipeline()
        if change is not None:
            change(spec)
        self.apply(_object("Pipeline", name, spec))

    def item(self, name: str, script: JSON | None = None, **spec: Any) -> str:
        """Create a WorkItem whose agents follow `script`; its name."""
        description = spec.pop("description", "Do it.")
        if script is not None:
            description += f"\n\n```script\n{json.dumps(script)}\n```\n"
        body = {"repository": "shop", "title": f"Item {name}", "description": description, **spec}
        self.apply(_object("WorkItem", name, body))
        return name

    def decide(self, item: str, comment: str = "", **action: JSON) -> str:
        """Say something to an item; the Decision's name."""
        name = f"{item}-{next(iter(action)).lower()}-{uuid.uuid4().hex[:6]}"
        self.apply(_object("Decision", name, {"workItem": item, "by": "team-lead", "comment": comment, **action}))
        return name

    def approve(self, item: str) -> None:
        """Wait until the analysis waits for approval and approve it."""
        status = self.wait_phase(item, "InReview")
        self.decide(item, approve={"gate": "analysis-approved", "commit": status["head"]})

    def get(self, kind: str, name: str) -> JSON:
        """One object as JSON."""
        return dict(json.loads(self.kubectl("get", kind, name, "-o", "json")))

    def status(self, item: str) -> JSON:
        """An item's status now."""
        return dict(self.get("workitem", item).get("status") or {})

    def wait_phase(self, item: str, phase: str, seconds: float = PATIENCE_SECONDS) -> JSON:
        """Wait until an item is in a phase; its status then."""
        return self.wait(item, lambda status: status.get("phase") == phase, f"phase {phase}", seconds)

    def wait(
        self, item: str, true: Callable[[JSON], bool], what: str = "that", seconds: float = PATIENCE_SECONDS
    ) -> JSON:
        """Wait until an item's status is as wanted; the status then."""
        return dict(self.watch("WorkItem", item, lambda body: true(body.get("status") or {}), what, seconds)["status"])

    def watch(self, kind: str, name: str, true: Callable[[JSON], bool], what: str, seconds: float) -> JSON:
        """Wait on the API server's watch until one of our objects is as wanted; the object then."""
        deadline = time.monotonic() + seconds
        factory = pykube.object_factory(self.api, "workitems.dev/v1alpha1", kind)
        query = factory.objects(self.api, namespace=self.namespace).filter(field_selector={"metadata.name": name})
        body: JSON = {}
        while time.monotonic() < deadline:
            found = query.get_or_none(name=name)
            if found is not None:
                body = dict(found.obj)
                if true(body):
                    return body
            since = body.get("metadata", {}).get("resourceVersion", "0")
            left = max(int(deadline - time.monotonic()), 1)
            for event in query.watch(since=since, params={"timeoutSeconds": min(left, 20)}):
                if event.type == "ERROR":
                    break
                body = dict(event.object.obj)
                if true(body):
                    return body
        status = json.dumps(body.get("status"), indent=1)
        raise AssertionError(f"{kind} {name} did not reach {what} in {seconds} s:\n{status}\n{self.operator.tail()}")


def _object(kind: str, name: str, spec: JSON) -> JSON:
    return {"apiVersion": "workitems.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def default_pipeline() -> JSON:
    """The spec of the contract's default Pipeline, with the scripted agent in place of Claude Code."""
    spec: JSON = yaml.safe_load((CONTRACT / "pipeline-default.yaml").read_text())["spec"]
    spec["agentDefaults"] = {
        "command": ["python3", "/agents/script_agent.py"],
        "commitPaths": ["docs/"],
        "timeout": "5m",
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "256Mi"}},
        "volumes": [{"name": "agents", "configMap": {"name": "script-agent"}}],
        "volumeMounts": [{"name": "agents", "mountPath": "/agents", "readOnly": True}],
    }
    for agent in spec["agents"].values():
        agent.pop("claudeCode", None)
        agent.pop("systemPromptFile", None)
    return spec


def agent_config_map() -> JSON:
    """The scripted agent as a ConfigMap."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "script-agent"},
        "data": {"script_agent.py": AGENT.read_text()},
    }
