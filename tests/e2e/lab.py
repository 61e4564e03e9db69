"""What an end-to-end test needs of a cluster: a namespace, a repository on a real git server, items, and patience.

Waiting is watching: a test sleeps on the API server's watch until the item is what it waits for, or says what the
item was instead, with the operator's last words.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
import shlex
import subprocess
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pykube
import yaml

from hack.cluster.model import Cluster
from hack.gitserver.manifests import GitServer, url
from tests.e2e.operator_process import OperatorProcess

JSON = dict[str, Any]
CONTRACT = pathlib.Path(__file__).parent.parent / "contract"
AGENT = pathlib.Path(__file__).with_name("script_agent.py")
TEAM_LEAD = ("--as=team-lead", "--as-group=system:masters")
"""Who decides in these tests, with every right: nobody may decide in the name of another."""
PATIENCE_SECONDS = 360
WATCH_SECONDS = 8
"""Below pykube's own timeout for a read, READ_SECONDS: an item may be silent for longer."""
READ_SECONDS = 60
"""A machine that is busy may let an answer wait."""
PATIENTLY = f"--timeout={PATIENCE_SECONDS}s"
"""Of `kubectl wait` and its like."""
UNTIL_TOLD = "until [ -e /tmp/told ]; do sleep 0.2; done"
"""What an agent's step or a gate's command runs to be in the middle of its work until `Lab.tell`, however slow the test
is: no sleep is long enough for what a test does meanwhile."""

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

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        """Run kubectl in the test's namespace; its output."""
        command = [*self.cluster.kubectl, "-n", self.namespace, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, input=stdin, check=False)
        assert not check or done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout if check else done.stdout + done.stderr

    def apply(self, *manifests: JSON, user: tuple[str, ...] = ()) -> None:
        """Server-side apply, as somebody else where `user` has kubectl's flags for that."""
        self.kubectl("apply", "--server-side", "-f", "-", *user, stdin=yaml.safe_dump_all(manifests))

    def repository(self, name: str = "shop", host: str | None = None, **spec: Any) -> Git:
        """A Repository object, and a fresh repository on the git server behind it (under its Service `host`)."""
        git = Git(self.cluster.kubectl, self.git_server, f"{name}-{uuid.uuid4().hex[:8]}")
        folder = f"/srv/git/{git.repository}.git"
        git.shell(["cp", "-r", "/srv/git/seed.git", folder])
        # The hook that logs pushes names its repository.
        git.shell(["sed", "-i", f"s/seed.git/{git.repository}.git/", f"{folder}/hooks/post-receive"])
        default: JSON = {
            "url": url(dataclasses.replace(self.git_server, name=host or self.git_server.name), git.repository),
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
        spec = {"workItem": item, "by": "team-lead", "comment": comment, **action}
        self.apply(_object("Decision", name, spec), user=TEAM_LEAD)
        return name

    def acknowledged(self, decision: str) -> JSON:
        """Wait until a Decision was told what became of it; its status."""
        body = self.watch("Decision", decision, lambda d: bool(_status(d).get("result")), "a result", PATIENCE_SECONDS)
        return dict(body["status"])

    def retry(self, item: str) -> None:
        """Retry a Blocked item."""
        assert self.acknowledged(self.decide(item, retry={}))["result"] == "Accepted"

    def suspend(self, item: str, value: bool = True) -> None:
        """Set spec.suspend."""
        self.kubectl("patch", "workitem", item, "--type=merge", "-p", json.dumps({"spec": {"suspend": value}}))

    def running(self, item: str, stage: str, seconds: float = PATIENCE_SECONDS) -> JSON:
        """Wait until the agent of a stage is at work; its pod."""
        status = self.wait(item, lambda s: (s.get("run") or {}).get("stage") == stage, f"a run of {stage}", seconds)
        selector = f"batch.kubernetes.io/job-name={status['run']['job']}"
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            log = self.kubectl("logs", "-l", selector, "-c", "agent", check=False)
            if f"stage {stage}," in log:
                return dict(json.loads(self.kubectl("get", "pod", "-l", selector, "-o", "json"))["items"][0])
            time.sleep(0.3)
        raise AssertionError(f"the agent of {item} did not start in {stage}: {self.status(item)}")

    def tell(self, job: str) -> None:
        """Let the agent, or the gate's command, of a Job go on from UNTIL_TOLD."""
        # Its container may not be there yet.
        touch = (*self.cluster.kubectl, "-n", self.namespace, "exec", f"job/{job}", "-c", "agent", "--")

        ended = "jsonpath={.items[*].status.containerStatuses[?(@.name=='agent')].state.terminated.exitCode}"
        look = ("get", "pods", "-l", f"batch.kubernetes.io/job-name={job}", "-o", ended)

        def told() -> bool:
            done = subprocess.run([*touch, "touch", "/tmp/told"], capture_output=True, check=False)
            # What was told may end before the telling does, and nobody can be told after that.
            return done.returncode == 0 or self.kubectl(*look) != ""

        until(told, f"{job} told")

    def paste(self, command: str, **words: str) -> str:
        """Run a command that a message offered in a person's shell; `words` replace its placeholders."""
        for placeholder, word in {"YOU": "team-lead", **words}.items():
            command = re.sub(rf"\b{placeholder}\b", word, command)
        shell = f'kubectl() {{ command {shlex.join([*self.cluster.kubectl, *TEAM_LEAD])} "$@"; }}; {command}'
        done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

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
            # From then on every version is seen, also those between two watches: what is waited for may pass by.
            if not body and (found := query.get_or_none(name=name)) is not None:
                body = dict(found.obj)
                if true(body):
                    return body
            since = body.get("metadata", {}).get("resourceVersion", "0")
            left = max(int(deadline - time.monotonic()), 1)
            try:
                for event in query.watch(since=since, params={"timeoutSeconds": min(left, WATCH_SECONDS)}):
                    if event.type == "ERROR":
                        body = {}
                        break
                    body = dict(event.object.obj)
                    if true(body):
                        return body
            except pykube.exceptions.HTTPError as error:
                # An API server that has just started asks for a second before it gives a watch, or knows no past.
                if error.code not in (410, 429):
                    raise
                body = {}
                time.sleep(0.3)
        status = json.dumps(body.get("status"), indent=1)
        raise AssertionError(f"{kind} {name} did not reach {what} in {seconds} s:\n{status}\n{self.operator.tail()}")


def until(true: Callable[[], bool], what: str, seconds: float = PATIENCE_SECONDS) -> None:
    """Wait for what has no watch: look now and then."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not {what} in {seconds} s"
        time.sleep(0.3)


def job_of(pod: JSON) -> str:
    """The name of the Job of a pod."""
    return str(pod["metadata"]["labels"]["batch.kubernetes.io/job-name"])


def condition(status: JSON, kind: str = "Ready") -> JSON:
    """One condition of an item's status."""
    return next(entry for entry in status["conditions"] if entry["type"] == kind)


def said(status: JSON) -> tuple[str, str]:
    """Reason and message of the Ready condition."""
    ready = condition(status)
    return ready["reason"], ready["message"]


_WORDS = r"(?: [\w/=-]+(?:[.][\w/=-]+)*)+"
_COMMAND = re.compile(
    r"kubectl -n \S+ (?:create -f - <<< '[^']*'|patch \S+ \S+ --type merge -p '[^']*'|(?:logs|describe)" + _WORDS + ")"
)


def commands(message: str) -> list[str]:
    """The commands that a message offers, in its order."""
    return list(_COMMAND.findall(message))


def only(*names: str, gates: tuple[str, ...] = ()) -> Callable[[JSON], None]:
    """A change of the default Pipeline: these stages, and of the gates that wait or take a Job only `gates`."""

    def change(spec: JSON) -> None:
        spec["stages"] = [stage for stage in spec["stages"] if stage["name"] in names]
        for stage in spec["stages"]:
            kept = [g for g in stage.get("gates", ()) if g["name"] in gates or not {"approval", "ci", "command"} & {*g}]
            for gate in kept:
                entries = [o for o in gate.get("onFailure", ()) if o.get("sendBackTo", names[0]) in names]
                gate.pop("onFailure", None)
                gate.update({"onFailure": entries} if entries else {})
            stage.pop("gates", None)
            stage.update({"gates": kept} if kept else {})
        spec["agents"] = {s["agent"]: spec["agents"][s["agent"]] for s in spec["stages"]}

    return change


def _status(body: JSON) -> JSON:
    return dict(body.get("status") or {})


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
