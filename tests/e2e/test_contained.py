"""A hostile agent on a real cluster: what it tries is denied or bounded, and the item's status says what was left out.

The namespace has the NetworkPolicy of docs/examples; every attempt on the network has a control from a pod without it,
so that a refused connection proves the policy and not a broken network.
"""

from __future__ import annotations

import json
import pathlib
import re
from typing import Any

import pytest
import yaml

from tests.e2e.lab import JSON, Git, Lab, only
from tests.e2e.session import GIT_NAMESPACE, OPERATOR_NAMESPACE

pytestmark = pytest.mark.e2e

ROOT = pathlib.Path(__file__).parent.parent.parent
LISTENER_PORT = 8080


def _pipeline(spec: JSON) -> None:
    only("development")(spec)
    agent = spec["agents"]["developer"]
    agent["command"] = ["python3", "/agents/hostile_agent.py"]
    agent["commitPaths"] = ["docs/", "src/"]
    # Enough for the processes it tries to start: it is their number that must be refused, not their memory.
    agent["resources"] = {"requests": {"cpu": "10m"}, "limits": {"memory": "4Gi"}}


def _listener(lab: Lab, image: str) -> str:
    """A pod of another namespace that listens; its address."""
    pod: JSON = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "listener", "namespace": GIT_NAMESPACE},
        "spec": {
            "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [
                {
                    "name": "listener",
                    "image": image,
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["python3", "-m", "http.server", "-d", "/tmp", str(LISTENER_PORT)],
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                }
            ],
        },
    }
    where = ("-n", GIT_NAMESPACE)
    lab.kubectl(*where, "apply", "--server-side", "-f", "-", stdin=yaml.safe_dump(pod))
    lab.kubectl(*where, "wait", "--for=condition=Ready", "pod/listener", "--timeout=60s")
    return lab.kubectl(*where, "get", "pod", "listener", "-o", "jsonpath={.status.podIP}")


def _policy(lab: Lab) -> list[JSON]:
    """The documented policy, filled in; DNS by its endpoints too, for a cluster whose DNS is no pod."""
    text = (ROOT / "docs/examples/networkpolicy.yaml").read_text()
    policy: JSON = yaml.safe_load(text)
    slices = json.loads(
        lab.kubectl(
            "-n", "kube-system", "get", "endpointslices", "-l", "kubernetes.io/service-name=kube-dns", "-o", "json"
        )
    )["items"]
    addresses = {address for s in slices for e in s["endpoints"] for address in e["addresses"]}
    ports = [{"protocol": p["protocol"], "port": p["port"]} for s in slices for p in s["ports"] if "dns" in p["name"]]
    policy["spec"]["egress"][0] = {
        "to": [*policy["spec"]["egress"][0]["to"], *({"ipBlock": {"cidr": f"{a}/32"}} for a in sorted(addresses))],
        "ports": [*policy["spec"]["egress"][0]["ports"], *ports],
    }
    # Only the git server of its namespace, not the listener beside it.
    policy["spec"]["egress"][1]["to"] = [
        {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": GIT_NAMESPACE}},
            "podSelector": {"matchLabels": lab.git_server.labels},
        }
    ]
    return [policy]


def _enforced(lab: Lab) -> bool:
    """Whether the cluster enforces NetworkPolicies at all, by what is known of it."""
    if lab.cluster.context != "workitems-local":
        return True
    from hack.cluster import network  # noqa: PLC0415 - only of the local cluster

    return network.has_policy_rules()


def test_a_hostile_agent_is_contained(lab: Lab) -> None:
    git: Git = lab.repository()
    agent = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "script-agent"},
        "data": {"hostile_agent.py": pathlib.Path(__file__).with_name("hostile_agent.py").read_text()},
    }
    lab.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=yaml.safe_dump(agent))
    lab.pipeline(change=_pipeline)
    assert _enforced(lab), "the local cluster does not enforce NetworkPolicies: see hack/cluster/README.md"
    lab.apply(*_policy(lab))
    pod = _listener(lab, lab.operator.agent_image)
    api = json.loads(lab.kubectl("-n", "default", "get", "endpoints", "kubernetes", "-o", "json"))["subsets"][0]
    token = lab.kubectl("-n", OPERATOR_NAMESPACE, "create", "token", "workitem-operator", "--duration=10m").strip()
    targets: dict[str, Any] = {
        "node": api["addresses"][0]["ip"],
        "apiPort": api["ports"][0]["port"],
        "pod": pod,
        "podPort": LISTENER_PORT,
        "gitHost": f"{lab.git_server.name}.{GIT_NAMESPACE}.svc",
        "gitPort": 80,
        "stolenToken": token,
    }
    try:
        for host, port in (("pod", "podPort"), ("node", "apiPort")):
            # The control: these open for a pod that no policy holds.
            program = f"import socket; socket.create_connection(({targets[host]!r}, {targets[port]!r}), 5)"
            git.shell(["python3", "-c", program])
        lab.item("hostile", description=f"Get out.\n\n```targets\n{json.dumps(targets)}\n```\n")
        status = lab.wait_phase("hostile", "Done")
    finally:
        lab.kubectl("-n", GIT_NAMESPACE, "delete", "pod", "listener", "--wait=false")
    branch = "workitem/hostile"
    got: dict[str, str] = json.loads(git.show(branch, "docs/work-items/hostile/attempts.json"))

    assert got["the git server"] == "open"
    for name in (
        "api server, anonymous",
        "api server, by its address",
        "api server, with a stolen token",
        "metadata address",
        "a pod of another namespace",
        "the kubelet",
        "hook",
        "config",
        "root file system",
        "the runner's go file",
    ):
        assert got[name].startswith("denied"), (name, got[name])
    assert got["token"] == "none"
    assert got["push credential"] == "none"
    assert re.fullmatch(r"uid 1000, exit 0: CapEff:\s+0+", got["root"])
    for name in ("push", "ref", "own commit"):
        assert not got[name].startswith("exit 0"), (name, got[name])
    if _pids_limited(lab):
        assert got["processes"].startswith("denied after"), got["processes"]

    # What was pushed is the runner's one commit, without what leads outside or was not allowed; status names it.
    assert git.subjects(branch) == ["developer(hostile): run 1"]
    assert git("for-each-ref", "--format=%(refname:short)").split() == ["main", branch]
    assert git("rev-parse", branch).strip() == status["head"] != "e" * 40
    listing = git("ls-tree", "-r", branch).splitlines()
    assert not [line for line in listing if line.startswith(("120000", "160000"))]
    assert git.show(branch, "Makefile") == git.show("main", "Makefile")
    run = status["runs"][0]
    assert (run["result"], run["commit"]) == ("Succeeded", status["head"])
    left_out = " ".join(run["leftOut"])
    for name in ("Makefile", "src/up", "docs/work-items/hostile/shadow", "src/nested"):
        assert name in left_out, (name, run["leftOut"])


def _pids_limited(lab: Lab) -> bool:
    """Whether the kubelet limits a pod's processes, which is the platform's to configure."""
    node = lab.kubectl("get", "nodes", "-o", "jsonpath={.items[0].metadata.name}")
    config = json.loads(lab.kubectl("get", "--raw", f"/api/v1/nodes/{node}/proxy/configz"))["kubeletconfig"]
    return int(config.get("podPidsLimit", -1)) > 0
