"""A hostile agent on a real cluster: what it tries is denied or bounded, and the item's status says what was left out.

The namespace has the NetworkPolicy that the chart makes of a narrow `allow`. Every attempt on the network has a
control, the same program in a pod that no policy holds, so that a refused connection proves the policy and not a broken
network; and the search for the push credential must find what was planted for it. The branch is hostile too: from its
first commit it has symlinks to where the runner keeps its credential, and a submodule that would run a program.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from hack.cluster import helm, restricted, settings
from tests.e2e import outside
from tests.e2e.lab import JSON, PATIENTLY, Git, Lab, condition, only, said
from tests.e2e.session import GIT_NAMESPACE, OPERATOR_NAMESPACE, ROOT
from workitems import protocol

pytestmark = pytest.mark.e2e

CHART = ROOT / "charts" / "workitem-operator"
PROGRAMS = ("hostile_agent.py", "reach.py")
LISTENER_PORT = 8080
RUNTIME_CLASS = "workitems-e2e"
BRANCH, DOCUMENTS = "workitem/hostile", "docs/work-items/hostile"
REVIEW = f"{DOCUMENTS}/12-review.md"
GIT_SERVER = "the git server"
INSIDE = (
    "the API server's address",
    "the API server, anonymous",
    "the API server, with a stolen token",
    "the kubelet",
    "a pod of another namespace",
)
SUBMODULE = "5ca1ab1e" * 5
CREDENTIAL = "/workitem/credentials/password"
# In the tree /workspace/shop/trees/hostile. The review is the verdict's document, .task-dev.md is the agent's taskFile:
# the runner removes the one, writes the other, and reads documents into prompt and report.
LINKS = {
    "docs/credentials": CREDENTIAL,
    REVIEW: f"../../../../../../..{CREDENTIAL}",
    f"{DOCUMENTS}/13-notes.md": "/proc/self/environ",
    ".task-dev.md": "../../git/config",
    "src/everything": "/",
}
GITMODULES = """\
[submodule "sub"]
    path = src/sub
    url = ext::sh -c touch% /workspace/shop/git/hooks/planted
"""


def _pipeline(spec: JSON) -> None:
    only("development")(spec)
    agent = spec["agents"]["developer"]
    agent["command"] = ["python3", "/agents/hostile_agent.py"]
    agent["commitPaths"] = ["docs/", "src/"]
    agent["runtimeClassName"] = RUNTIME_CLASS
    # Enough for the processes it tries to start: it is their number that must be refused, not their memory.
    agent["resources"] = {"requests": {"cpu": "10m"}, "limits": {"memory": "4Gi"}}
    # Neither can hold, whatever the agent says of them.
    spec["stages"][0]["gates"] = [
        {"name": "tests-local", "command": {"run": ["test", "-e", "src/never-written.txt"]}},
        {"name": "review", "verdict": {"file": "12-review.md", "pass": ["APPROVED"], "fail": ["REQUEST_CHANGES"]}},
    ]


def _hostile_branch(git: Git) -> None:
    """Put symlinks and a submodule into the base branch, where every item's branch begins."""
    script = ['set -e; d=$(mktemp -d); git clone -q "$1" "$d"; cd "$d"; cat > .gitmodules; mkdir -p "$2"']
    script += [f"ln -s '{target}' '{path}'" for path, target in LINKS.items()]
    script += [
        f"git add -A; git update-index --add --cacheinfo 160000,{SUBMODULE},src/sub",
        "git -c user.name=Person -c user.email=person@example.com commit -q -m Links; git push -q",
    ]
    folder = f"/srv/git/{git.repository}.git"
    git.shell(["sh", "-c", "\n".join(script), "sh", folder, DOCUMENTS], stdin=GITMODULES)


@contextlib.contextmanager
def _listener(lab: Lab, image: str) -> Iterator[str]:
    """A pod of another namespace that listens; its address."""
    pod: JSON = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "listener", "namespace": GIT_NAMESPACE},
        "spec": {
            "automountServiceAccountToken": False,
            "securityContext": restricted.pod(),
            "containers": [
                {
                    "name": "listener",
                    "image": image,
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["python3", "-m", "http.server", "-d", "/tmp", str(LISTENER_PORT)],
                    "readinessProbe": {"tcpSocket": {"port": LISTENER_PORT}, "periodSeconds": 1},
                    "securityContext": restricted.container(),
                }
            ],
        },
    }
    where = ("-n", GIT_NAMESPACE)
    lab.kubectl(*where, "apply", "--server-side", "-f", "-", stdin=yaml.safe_dump(pod))
    try:
        lab.kubectl(*where, "wait", "--for=condition=Ready", "pod/listener", PATIENTLY)
        yield lab.kubectl(*where, "get", "pod", "listener", "-o", "jsonpath={.status.podIP}")
    finally:
        lab.kubectl(*where, "delete", "pod", "listener", "--wait=false")


@contextlib.contextmanager
def _runtime_class(lab: Lab) -> Iterator[None]:
    """The runtime that pods have anyway, by a name: where it stands in the pod, gVisor's or Kata's would."""
    body = {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "handler": "runc"}
    lab.apply({**body, "metadata": {"name": RUNTIME_CLASS}})
    try:
        yield
    finally:
        lab.kubectl("delete", "runtimeclass", RUNTIME_CLASS)


def _policy(lab: Lab) -> str:
    """The chart's policy for a namespace whose runs need the git server alone."""
    dns = yaml.safe_load((CHART / "values.yaml").read_text())["networkPolicy"]["runs"]["dns"]
    service = ("-l", "kubernetes.io/service-name=kube-dns", "-o", "json")
    for entry in json.loads(lab.kubectl("-n", "kube-system", "get", "endpointslices", *service))["items"]:
        # A cluster whose name servers are no pods, as the local one's: named by their addresses.
        hosts = [e["addresses"][0] for e in entry["endpoints"] if "targetRef" not in e]
        dns["to"] += [{"ipBlock": {"cidr": f"{host}/32"}} for host in hosts]
        dns["ports"] += sorted({p["port"] for p in entry["ports"] if hosts and "dns" in p["name"]} - {53})
    # Only the git server of its namespace, not the listener beside it.
    git_server = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": GIT_NAMESPACE}},
        "podSelector": {"matchLabels": lab.git_server.labels},
    }
    runs = {"namespaces": [lab.namespace], "dns": dns, "allow": [git_server]}
    values = json.dumps({"networkPolicy": {"operator": False, "runs": runs}})
    program = helm.helm(settings.read().cache)
    command = [str(program), "template", "release", str(CHART), "--show-only=templates/networkpolicy.yaml"]
    done = subprocess.run([*command, "--values=-"], input=values, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _enforced(lab: Lab) -> bool:
    """Whether the cluster enforces NetworkPolicies at all, by what is known of it."""
    if lab.cluster.context != "workitems-local":
        return True
    from hack.cluster import network  # noqa: PLC0415 - only of the local cluster

    return network.has_policy_rules()


def _network(lab: Lab, listener: str) -> JSON:
    """What the agent tries to reach."""
    subset = json.loads(lab.kubectl("-n", "default", "get", "endpoints", "kubernetes", "-o", "json"))["subsets"][0]
    api = {"host": subset["addresses"][0]["ip"], "port": subset["ports"][0]["port"]}
    service = {"how": "api", "host": "kubernetes.default.svc", "port": 443}
    token = lab.kubectl("-n", OPERATOR_NAMESPACE, "create", "token", "workitem-operator", "--duration=10m").strip()
    node = json.loads(lab.kubectl("get", "nodes", "-o", "json"))["items"][0]["status"]
    (host,) = [each["address"] for each in node["addresses"] if each["type"] == "InternalIP"]
    inside: tuple[JSON, ...] = (
        {"how": "tcp", **api},
        service,
        {**service, "token": token},
        {"how": "tcp", "host": host, "port": node["daemonEndpoints"]["kubeletEndpoint"]["Port"]},
        {"how": "tcp", "host": listener, "port": LISTENER_PORT},
    )
    return {
        GIT_SERVER: {"how": "tcp", "host": f"{lab.git_server.name}.{GIT_NAMESPACE}.svc", "port": 80},
        **dict(zip(INSIDE, inside, strict=True)),
        **({} if outside.refusal(lab.cluster) else outside.targets()),
    }


def _lie(git: Git) -> JSON:
    """A report that the operator would believe from the runner: another commit, pushed, and a verdict that passes."""
    claimed = git("rev-parse", "main").strip()
    report = protocol.RunReport(
        run=1,
        uid="filled in by the agent",
        base_commit=claimed,
        head=claimed,
        tree=git("rev-parse", "main^{tree}").strip(),
        code=f"sha256:{'c' * 64}",
        blobs=(claimed,),
        committed=True,
        pushed=True,
        agent_started=True,
        verdicts=(protocol.Verdict(REVIEW, ("APPROVED",)),),
    )
    return dict(json.loads(report.dumps()))


@dataclass(frozen=True)
class Escape:
    """What two runs of the hostile agent tried and got."""

    lab: Lab
    git: Git
    control: dict[str, str]
    """What a pod that no policy holds reaches."""
    got: dict[str, Any]
    """What the first run got."""
    after: tuple[JSON, JSON]
    """The item's status after each run."""
    pods: tuple[JSON, JSON]
    lie: JSON


@pytest.fixture(scope="module")
def escape(shared_lab: Lab) -> Escape:
    lab = shared_lab
    git = lab.repository()
    _hostile_branch(git)
    files = {name: pathlib.Path(__file__).with_name(name).read_text() for name in PROGRAMS}
    agent = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "script-agent"}, "data": files}
    lab.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=yaml.safe_dump(agent))
    lab.pipeline(change=_pipeline)
    assert _enforced(lab), "the local cluster does not enforce NetworkPolicies: see hack/cluster/README.md"
    lab.kubectl("apply", "--server-side", "-f", "-", stdin=_policy(lab))
    beyond = contextlib.nullcontext() if outside.refusal(lab.cluster) else outside.listening()
    lie = _lie(git)
    with _runtime_class(lab), _listener(lab, lab.operator.agent_image) as listener, beyond:
        network = _network(lab, listener)
        control = json.loads(git.shell(["python3", "-c", files["reach.py"]], stdin=json.dumps(network)))
        told = json.dumps({"network": network, "report": lie})
        lab.item("hostile", description=f"Get out.\n\n```targets\n{told}\n```\n")
        first = lab.wait_phase("hostile", "Blocked")
        # The second run knows the item's uid from the first one's commit: its lie is complete.
        lab.retry("hostile")
        second = lab.wait("hostile", lambda s: s.get("phase") == "Blocked" and len(s["runs"]) == 2, "a second run")
        pods = (_pod(lab, second["runs"][0]["job"]), _pod(lab, second["runs"][1]["job"]))
    got = json.loads(git.show(BRANCH, f"{DOCUMENTS}/attempts-1.json"))
    return Escape(lab, git, control, got, (first, second), pods, lie)


def test_an_agent_reaches_the_git_server(escape: Escape) -> None:
    assert escape.got["network"][GIT_SERVER] == "open"


@pytest.mark.parametrize("name", [*INSIDE, *outside.targets()])
def test_an_agent_reaches_nothing_else(escape: Escape, name: str) -> None:
    if name in outside.targets() and (refusal := outside.refusal(escape.lab.cluster)):
        pytest.skip(refusal)
    # A broken network, or a listener that is not there, would prove nothing.
    assert re.fullmatch(r"open(: \d+)?|answered: 40[13]", escape.control[name])
    assert escape.got["network"][name].startswith("denied"), escape.got["network"][name]


def test_no_file_environment_or_command_line_of_the_agent_has_the_push_credential(escape: Escape) -> None:
    search = escape.got["push credential"]
    assert len(search["planted"]) == 4
    assert search["found"] == search["planted"]
    assert f"{escape.got['git directory']}/config" in search["git's configuration"], "git's directory is not searched"


def test_gits_configuration_has_no_credential_and_no_way_to_one(escape: Escape) -> None:
    settings = escape.got["git settings"]
    assert f"file:{escape.got['git directory']}/config\tcore.repositoryformatversion" in settings
    assert not re.search(r"credential|extraheader|askpass|//[^/\s]*@", settings, re.IGNORECASE), settings
    assert not escape.got["git credential"].startswith("exit 0"), escape.got["git credential"]


@pytest.mark.parametrize("name", ["hook", "config", "root file system", "the runner's go file", "the runner's report"])
def test_what_is_not_the_agents_cannot_be_written(escape: Escape, name: str) -> None:
    assert escape.got[name].startswith("denied"), escape.got[name]


@pytest.mark.parametrize("name", ["push", "ref", "own commit", "a symlink of the branch", "a submodule of the branch"])
def test_a_command_is_refused(escape: Escape, name: str) -> None:
    assert not escape.got[name].startswith("exit 0"), escape.got[name]


def test_an_agent_has_no_token_and_no_rights_in_its_container(escape: Escape) -> None:
    assert escape.got["token"] == "none"
    assert re.fullmatch(r"uid 1000, exit 0: CapEff:\s+0+", escape.got["root"])
    assert re.fullmatch(r"exit 0: Seccomp:\s+2", escape.got["seccomp"]), "2 is a filter, 0 is none"


def test_an_agents_pod_has_the_runtime_that_its_pipeline_names(escape: Escape) -> None:
    assert {pod["spec"]["runtimeClassName"] for pod in escape.pods} == {RUNTIME_CLASS}


def test_a_fork_bomb_is_bounded(escape: Escape) -> None:
    if not _pids_limited(escape.lab):
        pytest.skip("this cluster's kubelet has no podPidsLimit, which is the platform's to set")
    assert escape.got["processes"].startswith("denied after"), escape.got["processes"]


def test_what_is_pushed_is_the_runners_and_status_names_what_was_left_out(escape: Escape) -> None:
    git, (run, _) = escape.git, escape.after[1]["runs"]
    assert git("for-each-ref", "--format=%(refname:short)").split() == ["main", BRANCH]
    assert git.subjects(BRANCH) == ["developer(hostile): run 1", "developer(hostile): run 2"]
    for path in ("Makefile", ".gitmodules"):
        assert git.show(BRANCH, path) == git.show("main", path)
    left_out = " ".join(run["leftOut"])
    for name in ("Makefile", ".gitmodules", "src/up", f"{DOCUMENTS}/shadow", "src/nested"):
        assert name in left_out, (name, run["leftOut"])


def test_what_led_outside_before_the_run_leads_there_still_and_is_followed_by_nobody(escape: Escape) -> None:
    git = escape.git
    entries = [line.split() for line in git("ls-tree", "-r", BRANCH).splitlines()]
    links = {path: git.show(BRANCH, path) for mode, _, _, path in entries if mode == "120000"}
    assert links == {path: target for path, target in LINKS.items() if path != REVIEW}
    assert [(commit, path) for mode, _, commit, path in entries if mode == "160000"] == [(SUBMODULE, "src/sub")]
    assert "submodules" in condition(escape.after[0], "EverythingFetched")["message"]
    # The one that stood where the verdict belongs was taken away, not written through: the search above proves it too.
    assert git.show(BRANCH, REVIEW).startswith("All gates passed.")


def test_a_report_by_the_agent_passes_no_gate_and_moves_no_head(escape: Escape) -> None:
    (state,) = [c["state"] for c in escape.pods[1]["status"]["containerStatuses"] if c["name"] == "agent"]
    told = protocol.RunReport.strictly(state["terminated"]["message"])
    assert (told.uid, told.run) == (escape.lab.get("workitem", "hostile")["metadata"]["uid"], 2)
    assert told.head == escape.lie["head"]
    for run, status in zip(escape.after[1]["runs"], escape.after, strict=True):
        assert (run["result"], run["commit"]) == ("Succeeded", status["head"])
        gates = {gate["name"]: (gate["result"], gate["reason"]) for gate in status["gates"]}
        assert gates == {"tests-local": ("Failed", "CommandFailed"), "review": ("Failed", "VerdictMissing")}
        assert said(status)[0] == "CommandFailed"
    assert escape.after[1]["head"] == escape.git("rev-parse", BRANCH).strip() != told.head


def _pod(lab: Lab, job: str) -> JSON:
    """The pod of a Job."""
    (pod,) = json.loads(lab.kubectl("get", "pods", "-l", f"batch.kubernetes.io/job-name={job}", "-o", "json"))["items"]
    return dict(pod)


def _pids_limited(lab: Lab) -> bool:
    """Whether the kubelet limits a pod's processes."""
    node = lab.kubectl("get", "nodes", "-o", "jsonpath={.items[0].metadata.name}")
    config = json.loads(lab.kubectl("get", "--raw", f"/api/v1/nodes/{node}/proxy/configz"))["kubeletconfig"]
    return int(config.get("podPidsLimit", -1)) > 0
