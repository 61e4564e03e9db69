"""What the demo puts into a cluster, and in which order: images, chart, forge, repository, pipeline.

Each step can be repeated on a cluster that has it already, so the demo runs again where it ran before.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from hack.cluster import helm, settings, shell
from hack.cluster.errors import ClusterError
from hack.demo.cluster import Kubectl, Object
from hack.demo.errors import DemoError

if TYPE_CHECKING:
    from hack.cluster.images import Images
    from hack.gitea.client import Repository

DEMO = Path(__file__).parent
ROOT = DEMO.parents[1]
NAMESPACE = "workitems-demo"
OPERATOR = "workitem-operator"
CHART = ROOT / "charts" / OPERATOR
REPOSITORY = "shop"
WEBHOOKS = f"{OPERATOR}-webhooks.{OPERATOR}.svc"
"""Where the operator takes what Gitea tells it."""
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
    # Webhooks, so that nothing that happens at the forge waits to be asked for.
    chosen = [*values(images), "--set=webhooks.enabled=true", f"--set-string=webhooks.url=http://{WEBHOOKS}"]
    # On a cluster of somebody's own the release may be theirs: what they have set stays.
    shell.run([*helm_command(program, kubectl), "--reset-then-reuse-values", *helm.taking_over(program), *chosen])
    rollout(there, OPERATOR)


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
    # A digest from an earlier installation would win over the tag.
    return [f"repository={path}/{name}" if path else f"repository={name}", f"tag={tag or 'latest'}", "digest="]


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


def namespace(kubectl: Kubectl) -> None:
    """Create the namespace in which everything of the demo lives."""
    kubectl.apply([manifest("namespace")])


def shop(kubectl: Kubectl) -> None:
    """Create the Repository and the Pipeline that items refer to."""
    shell.say(f"installing Repository {REPOSITORY} and Pipeline default in namespace {NAMESPACE}")
    wanted, found = manifest("repository"), kubectl.find("repositories.workitems.dev", REPOSITORY)
    if found is not None and found["spec"]["url"] != wanted["spec"]["url"]:
        # An address cannot be changed: an earlier demo's repository was on another server.
        shell.say(f"replacing the Repository {REPOSITORY}, which leads to {found['spec']['url']}")
        kubectl.run("delete", "repositories.workitems.dev", REPOSITORY)
    kubectl.apply([agents(), wanted, manifest("pipeline")])


def agents() -> Object:
    """Return the ConfigMap with the agents' programs."""
    programs = {path.name: path.read_text() for path in sorted((DEMO / "agents").glob("*.py"))}
    metadata = {"name": "demo-agents", "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": programs}


def start(kubectl: Kubectl, repository: Repository) -> Object:
    """Create the work item under the next free name and return it."""
    taken = {item["metadata"]["name"] for item in kubectl.items("workitems.workitems.dev")}
    body = manifest("workitem")
    number = 1
    # The branch of an item that somebody has deleted is still there, and would be refused as BranchExists.
    while f"et-{number}" in taken or repository.has(f"feature/et-{number}-discounts"):
        number += 1
    body["metadata"]["name"] = f"et-{number}"
    body["spec"]["branch"] = f"feature/et-{number}-discounts"
    kubectl.create(body)
    return body


def rollout(kubectl: Kubectl, deployment: str) -> None:
    """Wait until a Deployment is ready. Raises DemoError with what its pods say."""
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
