"""What the demo puts into a cluster, and in which order: images, chart, git server, repository, pipeline.

Each step can be repeated on a cluster that has it already, so the demo runs again where it ran before.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from hack.cluster import helm, settings, shell
from hack.cluster.errors import ClusterError
from hack.demo.cluster import Kubectl, Object
from hack.demo.errors import DemoError
from hack.gitserver import bundle, manifests

if TYPE_CHECKING:
    from hack.cluster.images import Images

DEMO = Path(__file__).parent
ROOT = DEMO.parents[1]
NAMESPACE = "workitems-demo"
OPERATOR = "workitem-operator"
CHART = ROOT / "charts" / OPERATOR
REPOSITORY = "shop"
BOT = "workitem-bot"
ROLLOUT_TIMEOUT = "180s"


def load(path: Path) -> list[Object]:
    """Return the objects of a YAML file."""
    return [body for body in yaml.safe_load_all(path.read_text()) if body]


def manifest(name: str) -> Object:
    """Return the one object of a file in hack/demo/manifests."""
    (body,) = load(DEMO / "manifests" / f"{name}.yaml")
    return body


def operator(kubectl: Kubectl, images: Images) -> None:
    """Install the chart with these images, and wait until the operator runs."""
    if not (CHART / "Chart.yaml").is_file():
        raise DemoError(f"{CHART}, from which the operator is installed, is not there: use a complete checkout")
    shell.say("installing the chart: CRDs, operator, admission policies")
    program = helm.helm(settings.read().cache)
    there = Kubectl(kubectl.command, OPERATOR)
    there.apply([manifest("operator-namespace")])
    # One that was installed before there was a chart: what a Deployment selects cannot be changed.
    there.run("delete", "deployment", "-l", "app.kubernetes.io/name=workitem-operator,!helm.sh/chart")
    shell.run([*helm_command(program, kubectl), *helm.taking_over(program), *values(images)])
    _rollout(there, OPERATOR)


def helm_command(program: Path, kubectl: Kubectl) -> list[str]:
    """Return the beginning of the installation's command line: the chart, on the cluster that kubectl is told."""
    # As the cluster's kubectl begins: a program, --kubeconfig=FILE, --context=NAME.
    where = [word.replace("--context=", "--kube-context=") for word in kubectl.command[1:]]
    return [str(program), *where, f"--namespace={OPERATOR}", "upgrade", "--install", OPERATOR, str(CHART)]


def values(images: Images) -> list[str]:
    """Return helm's flags for the images of this checkout."""
    named = {"image": images.operator, "agentImage": images.agent}
    return [f"--set-string={name}.{part}" for name, image in named.items() for part in _parts(image)]


def _parts(image: str) -> list[str]:
    """Name an image as the chart's values do; one without a tag is `latest`, as everywhere."""
    named, _, digest = image.partition("@")
    if digest:
        return [f"repository={named}", f"digest={digest}"]
    path, _, last = named.rpartition("/")
    name, _, tag = last.partition(":")
    return [f"repository={path}/{name}" if path else f"repository={name}", f"tag={tag or 'latest'}"]


def check_operator(kubectl: Kubectl) -> None:
    """Raise DemoError unless the operator that was installed runs: an item may have been carried by another one."""
    there = Kubectl(kubectl.command, OPERATOR)
    deployment = there.find("deployment", OPERATOR) or {}
    if not deployment.get("status", {}).get("availableReplicas"):
        raise DemoError(
            f"The operator that this demo installed does not run: {why(there) or 'its Deployment has no pod.'} "
            f"Whatever happened to the item was another operator's work (e2e tests scale this one to 0 meanwhile). "
            f"Look at it with: {there.line('logs', f'deployment/{OPERATOR}', '--tail=20')}"
        )


def shop(kubectl: Kubectl, images: Images) -> None:
    """Install the git server with the shop's repository, and the Repository and Pipeline that items refer to."""
    shell.say(f"installing the git server, Repository {REPOSITORY} and Pipeline default in namespace {NAMESPACE}")
    kubectl.apply([manifest("namespace")])
    server = manifests.GitServer(NAMESPACE, images.agent)
    # A password of its own for each cluster, made here and kept nowhere else. It stays: pods may be using it.
    if kubectl.find("secret", server.secret_name) is None:
        kubectl.apply([manifests.secret(server, BOT, secrets.token_urlsafe(24))])
    kubectl.apply(manifests.manifests(server, {REPOSITORY: bundle.bundle(DEMO / "repository")}))
    kubectl.apply([agents(), manifest("repository"), manifest("pipeline")])
    _rollout(kubectl, server.name)


def agents() -> Object:
    """Return the ConfigMap with the agents' programs."""
    programs = {path.name: path.read_text() for path in sorted((DEMO / "agents").glob("*.py"))}
    metadata = {"name": "demo-agents", "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": programs}


def start(kubectl: Kubectl) -> Object:
    """Create the work item under the next free name and return it."""
    taken = {item["metadata"]["name"] for item in kubectl.items("workitems.workitems.dev")}
    # The branch of an item that somebody has deleted is still there, and would be refused as BranchExists.
    branches = git(kubectl, "for-each-ref", "--format=%(refname:short)", "refs/heads").split()
    body = manifest("workitem")
    number = 1
    while f"et-{number}" in taken or f"feature/et-{number}-discounts" in branches:
        number += 1
    body["metadata"]["name"] = f"et-{number}"
    body["spec"]["branch"] = f"feature/et-{number}-discounts"
    kubectl.create(body)
    return body


def git(kubectl: Kubectl, *arguments: str) -> str:
    """Run git on the server's own copy of the shop's repository."""
    return kubectl.run("exec", "deployment/git", "--", *git_arguments(*arguments))


def git_arguments(*arguments: str) -> list[str]:
    """Return the command to run inside the git server's container."""
    return ["git", "-C", f"{manifests.ROOT}/{REPOSITORY}.git", *arguments]


def _rollout(kubectl: Kubectl, deployment: str) -> None:
    try:
        kubectl.run("rollout", "status", f"deployment/{deployment}", f"--timeout={ROLLOUT_TIMEOUT}")
    except ClusterError as error:
        raise DemoError(
            f"The Deployment {deployment} in {kubectl.namespace} does not get ready: {why(kubectl) or error} "
            f"Look at it with: {kubectl.line('describe', 'pods')}"
        ) from error


def why(kubectl: Kubectl) -> str:
    """Say what the namespace's pods say about themselves, as far as they are not ready."""
    reasons: list[str] = []
    for pod in kubectl.items("pods"):
        states: list[dict[str, Any]] = [entry["state"] for entry in pod["status"].get("containerStatuses", [])]
        waiting = [state["waiting"] for state in states if "waiting" in state]
        reasons += [
            f"{pod['metadata']['name']}: {entry['reason']} {entry.get('message', '')}".strip() for entry in waiting
        ]
    return "; ".join(reasons) + "." if reasons else ""
