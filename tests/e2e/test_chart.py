"""The chart on a real cluster: installed over a previous release, upgraded while an item is under way, uninstalled.

Its operator serves one namespace of these tests. The operator process of all other tests sleeps meanwhile, so that
what happens is the pod's doing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from hack.chart import plain
from hack.cluster import helm as programs
from hack.cluster import images, settings
from hack.demo.install import values
from tests.e2e import receiver
from tests.e2e.lab import JSON, PATIENCE_SECONDS, PATIENTLY, UNTIL_TOLD, Lab, default_pipeline, job_of, only, said
from tests.e2e.session import ROOT
from workitems.crd import UNSEEN

pytestmark = [pytest.mark.e2e, pytest.mark.alone]

CHART = ROOT / "charts" / "workitem-operator"
DEPLOY = ROOT / "deploy"
CRD = "workitems.workitems.dev"
OWNER = "jsonpath={.metadata.annotations.meta\\.helm\\.sh/release-namespace}"
OPERATORS = "app.kubernetes.io/name=workitem-operator"


@dataclasses.dataclass
class Release:
    """One release of the chart, in a namespace of its own, that serves the lab's, and `others`."""

    lab: Lab
    helm: pathlib.Path
    namespace: str
    flags: list[str]
    name: str = "release"
    others: tuple[str, ...] = ()

    def run(self, *arguments: str | pathlib.Path) -> str:
        """Run helm on the lab's cluster."""
        where = [word.replace("--context=", "--kube-context=") for word in self.lab.cluster.kubectl[1:]]
        command = [str(self.helm), *where, f"--namespace={self.namespace}", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"helm {arguments}: {done.stdout}{done.stderr}{self.logs()}"
        return done.stdout

    @property
    def served(self) -> list[str]:
        """The namespaces of its items."""
        return [self.lab.namespace, *self.others]

    def upgrade(self, chart: pathlib.Path, *more: str) -> None:
        """Install or upgrade, and wait until the operator is ready."""
        served = f"--set-json=watchNamespaces={json.dumps(self.served)}"
        self.run("upgrade", "--install", self.name, chart, served, *self.flags, *more, "--wait", PATIENTLY)

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """kubectl in the release's namespace."""
        return self.lab.kubectl(f"--namespace={self.namespace}", *arguments, stdin=stdin)

    def logs(self) -> str:
        """What the operator's pods say."""
        return self.lab.kubectl(f"--namespace={self.namespace}", "logs", "-l", OPERATORS, "--tail=200", check=False)

    def until(self, true: Callable[[], bool], what: str) -> None:
        """Wait: a new pod is ready while it still stands by, and is at work once the old one has let go."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not true():
            assert time.monotonic() < deadline, f"not {what}: {self.logs()}"
            time.sleep(0.5)

    def leader(self) -> str:
        """The pod that is at work; the other stands by. The Lease may still name one that is gone."""
        lease = f"{self.name}-workitem-operator"

        def holder() -> str:
            return f"pod/{self.kubectl('get', 'lease', lease, '-o', 'jsonpath={.spec.holderIdentity}')}"

        self.until(lambda: holder() in self.pods(), "led by a pod that stays")
        return holder()

    def pipeline(self) -> JSON:
        """The spec of the Pipeline that it brought."""
        return dict(self.brought()["spec"])

    def brought(self) -> JSON:
        """That Pipeline, which is perhaps not there yet."""
        get = ("get", "pipeline", "default", "--ignore-not-found", "-o", "json")
        self.until(lambda: self.kubectl(*get) != "", "seen to bring its Pipeline")
        return dict(json.loads(self.kubectl(*get)))

    def pods(self) -> set[str]:
        """Names of the operator's pods that stay."""
        listed = json.loads(self.kubectl("get", "pods", "-l", OPERATORS, "-o", "json"))["items"]
        return {f"pod/{pod['metadata']['name']}" for pod in listed if "deletionTimestamp" not in pod["metadata"]}


def previous_release(folder: pathlib.Path) -> pathlib.Path:
    """The chart as an earlier release would be: another version, and a CRD that lacks what this one has."""
    chart = pathlib.Path(shutil.copytree(CHART, folder / "previous"))
    crd = chart / "files" / "crds" / "workitems.dev_workitems.yaml"
    body = yaml.safe_load(crd.read_text())
    body["spec"]["versions"][0]["additionalPrinterColumns"].pop()
    crd.write_text(yaml.safe_dump(body))
    about = chart / "Chart.yaml"
    about.write_text(about.read_text().replace("version: 0.1.0", "version: 0.0.9", 1))
    return chart


def columns(lab: Lab) -> list[str]:
    return lab.kubectl("get", "crd", CRD, "-o", "jsonpath={.spec.versions[0].additionalPrinterColumns[*].name}").split()


@contextlib.contextmanager
def alone(lab: Lab) -> Iterator[None]:
    """Without the policies of another installation that serves all namespaces, this release's own among them."""
    which = ("validatingadmissionpolicybindings", "-l", OPERATORS)
    others = cleaned(lab.kubectl("get", *which, "-o", "json"))
    lab.kubectl("delete", *which)
    try:
        yield
    finally:
        if others["items"]:
            lab.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=json.dumps(others))


def cleaned(listed: str) -> JSON:
    """Objects that were read, as they are applied again."""
    body: JSON = json.loads(listed)
    for each in body["items"]:
        for field in ("managedFields", "resourceVersion", "uid", "creationTimestamp", "generation"):
            each["metadata"].pop(field, None)
    return {"apiVersion": "v1", "kind": "List", "items": body["items"]}


@pytest.fixture(scope="module")
def release(shared_lab: Lab, built: images.Images, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Release]:
    """The previous release, installed with these images."""
    helm = programs.helm(settings.read().cache)
    namespace = f"wi-chart-{uuid.uuid4().hex[:6]}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted", "workitems.dev/e2e": "true"}
    shared_lab.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}})
    other = dataclasses.replace(shared_lab, namespace=f"{namespace}-team-b")
    for each in (other.namespace, f"{namespace}-second"):
        shared_lab.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": each, "labels": labels}})
    # What a namespace of items needs: the git server's user, and the scripted agent.
    needed = [("secret", shared_lab.git_server.secret_name), ("configmap", "script-agent")]
    for kind, name in needed:
        body = shared_lab.get(kind, name)
        other.apply({**body, "metadata": {"name": name}})
    found = Release(shared_lab, helm, namespace, values(built), others=(other.namespace,))
    with shared_lab.operator.asleep(), alone(shared_lab):
        # The tests' CRDs were applied by kubectl.
        try:
            found.upgrade(previous_release(tmp_path_factory.mktemp("chart")), *programs.taking_over(helm))
            yield found
        finally:
            found.run("uninstall", found.name, "--wait", "--ignore-not-found")
    for each in (namespace, other.namespace, f"{namespace}-second"):
        shared_lab.kubectl("delete", "namespace", each, "--wait=false")


def decision(name: str, by: str, **action: JSON) -> JSON:
    spec = {"workItem": "et-1", "by": by, "comment": "because", **action}
    metadata = {"name": name}
    return {"apiVersion": "workitems.dev/v1alpha1", "kind": "Decision", "metadata": metadata, "spec": spec}


APPROVE: JSON = {"approve": {"gate": "approved", "commit": "a" * 40}}
REJECT: JSON = {"reject": {"gate": "approved"}}


def test_who_decides_is_who_sends_it_and_approving_takes_the_right_to(release: Release) -> None:
    lab = release.lab
    role = f"{release.namespace}-release-workitem-operator"
    bot, agent = (f"system:serviceaccount:{lab.namespace}:{name}" for name in ("bot", "default"))
    for who, what in (("anna", "author"), ("boss", "approver"), (bot, "author"), (agent, "author")):
        lab.kubectl("create", "rolebinding", uuid.uuid4().hex[:8], f"--clusterrole={role}-{what}", f"--user={who}")
    release.upgrade(CHART, f"--set-json=admission.bridges={json.dumps([bot])}")

    def answer(who: str, body: JSON) -> str:
        arguments = ["create", "--dry-run=server", "-f", "-", f"--as={who}"]
        return lab.kubectl(*arguments, stdin=json.dumps(body), check=False)

    # The API server takes up a changed policy within a second or two.
    release.until(lambda: "created" in answer(bot, decision("a", "plane:boss", retry={})), "open to its bridge")
    assert "created" in answer("anna", decision("a", "anna", retry={}))
    assert "nobody decides in the name of another" in answer("anna", decision("a", "boss", retry={}))
    assert "anna may not approve or reject for WorkItem et-1" in answer("anna", decision("a", "anna", **APPROVE))
    assert "anna may not approve or reject for WorkItem et-1" in answer("anna", decision("a", "anna", **REJECT))
    assert "created" in answer("boss", decision("a", "boss", **APPROVE))
    assert "created" in answer("boss", decision("a", "boss", **REJECT))
    assert "nobody decides" in answer("boss", decision("a", "tracker:boss", **APPROVE))
    # A bridge has authenticated its user itself, and says who it was.
    assert "created" in answer(bot, decision("a", "plane:boss@example.com", **APPROVE))
    assert "as tracker:user, not boss" in answer(bot, decision("a", "boss", retry={}))
    # An agent with a ServiceAccount writes none of our kinds, whatever its role says (test_agents_write_nothing.py).
    assert "agents write no" in answer(agent, decision("a", agent, retry={}))


def test_an_agents_account_does_not_write_the_pipelines_that_others_fall_back_to(release: Release) -> None:
    role = f"{release.namespace}-release-workitem-operator-author"
    agents = [f"system:serviceaccount:{namespace}:deployer" for namespace in (*release.served, release.namespace)]
    gitops = "system:serviceaccount:flux-system:kustomize-controller"
    stranger = "system:serviceaccount:team-x:deployer"
    users = [f"--user={who}" for who in (*agents, gitops, stranger)]
    release.kubectl("create", "rolebinding", "writers", f"--clusterrole={role}", *users)
    limits = '{"spec":{"limits":{"maxRuns":99}}}'
    patch = ["patch", "pipeline", "default", "--type=merge", "-p", limits, "--dry-run=server"]

    def labels(who: str) -> str:
        words = ("label", "pipeline", "default", "of=somebody", "--dry-run=server", f"--as={who}")
        return release.lab.kubectl("-n", release.namespace, *words, check=False)

    # By a right that the API server has only just heard of, as all of them have it.
    release.until(lambda: "labeled" in labels(gitops), "open to the ones bound")
    for who in agents:
        said = release.lab.kubectl("-n", release.namespace, *patch, f"--as={who}", check=False)
        assert "agents write no pipelines" in said, who
    assert "labeled" in labels(stranger), "nothing tells it from the one before"
    trusted = f"--set-json=admission.trustedServiceAccounts={json.dumps([gitops])}"
    release.upgrade(CHART, "--set=admission.trustElsewhere=false", trusted)
    # The API server takes up a changed policy within a second or two.
    release.until(lambda: "agents write no pipelines" in labels(stranger), "closed to an account that is not named")
    assert "labeled" in labels(gitops)


def test_the_pipeline_follows_the_release_until_somebody_edits_it(release: Release) -> None:
    def bring(**spec: Any) -> None:
        release.upgrade(CHART, f"--set-json=pipelines.default.spec={json.dumps(spec)}")

    def gates() -> list[str]:
        return [gate["name"] for gate in release.pipeline()["stages"][0]["gates"]]

    def brought(runs: int) -> JSON:
        # Perhaps not there yet: the new pod is ready before it leads.
        get = ("get", "pipeline", "default", "--ignore-not-found", "-o", "jsonpath={.spec.limits.maxRuns}")
        release.until(lambda: release.kubectl(*get) == str(runs), f"brought with maxRuns {runs}")
        return release.pipeline()

    def heard(words: str) -> None:
        release.until(lambda: words in release.logs(), f"said: {words}")

    bring(limits={"maxRuns": 31})
    first = brought(31)
    assert gates() == ["analysis-complete", "analysis-approved"]
    # What helm lets through and the API server does not: the operator says so and works on.
    bring(stages=[{"name": "only", "agent": "nobody"}])
    heard("pipeline not applied")
    assert "spec.stages" in release.logs()
    assert release.pipeline() == first
    bring(limits={"maxRuns": 32}, stages=[first["stages"][0], first["stages"][1]])
    assert len(brought(32)["stages"]) == 2
    # Nobody owns what is not there any more.
    release.kubectl(
        "patch", "pipeline", "default", "--type=json", "-p", '[{"op":"remove","path":"/spec/stages/0/gates/1"}]'
    )
    bring(limits={"maxRuns": 33})
    heard("pipeline kept")
    assert gates() == ["analysis-complete"]
    assert release.pipeline()["limits"]["maxRuns"] == 32
    release.kubectl("delete", "pipeline", "default")
    bring(limits={"maxRuns": 34})
    brought(34)
    assert gates() == ["analysis-complete", "analysis-approved"]


SEND = """
import hashlib, hmac, socket, sys, time, urllib.request
url, key = sys.argv[1:]
host = urllib.parse.urlsplit(url).hostname
# Every node learns by itself which pod is behind a Service: until this one has, nobody answers.
for _ in range(600):
    try:
        socket.create_connection((host, 80), timeout=20).close()
        break
    except OSError:
        time.sleep(0.2)
body = b'{"ref": "refs/heads/main"}'
signature = hmac.new(key.encode(), body, hashlib.sha256).hexdigest()
headers = {"Content-Type": "application/json", "X-Gitea-Event": "push", "X-Gitea-Signature": signature}
for _ in range(8):
    print(urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=20).status)
"""


def test_a_delivery_reaches_the_one_that_leads(release: Release) -> None:
    lab, key = release.lab, "a key that only the forge knows"
    lab.kubectl("create", "secret", "generic", "hooks", f"--from-literal=gitea={key}")
    git = lab.repository("hooked", webhooks={"secretName": "hooks"})
    release.upgrade(CHART, "--set=replicas=2,webhooks.enabled=true")
    label = "jsonpath={.metadata.labels.workitems\\.dev/leader}=true"
    leader = release.leader()
    release.kubectl("wait", leader, f"--for={label}", PATIENTLY)
    service = f"{release.name}-workitem-operator-webhooks"
    ready = "jsonpath={.endpoints[0].conditions.ready}=true"
    release.kubectl("wait", "endpointslice", "-l", f"kubernetes.io/service-name={service}", f"--for={ready}", PATIENTLY)
    url = f"http://{service}.{release.namespace}.svc/hooks/{lab.namespace}/hooked/gitea"
    assert git.shell(["python3", "-c", SEND, url, key]).split() == ["202"] * 8
    counted = 'workitem_webhook_deliveries_total{code="202",source="gitea"} 8.0'
    for pod in release.pods():
        name = pod.removeprefix("pod/")
        path = f"/api/v1/namespaces/{release.namespace}/pods/{name}:8080/proxy/metrics"
        assert (counted in release.kubectl("get", "--raw", path)) is (pod == leader), pod
    # And back to one.
    release.upgrade(CHART)
    release.until(lambda: len(release.pods()) == 1, "one pod")


def test_who_names_the_secrets_that_may_be_read_is_served_and_the_rest_are_told(release: Release) -> None:
    lab = release.lab
    git = lab.git_server.secret_name
    for name in ("named-chat", "other-git", "other-chat", "other-tracker"):
        lab.apply({**lab.get("secret", git), "metadata": {"name": name}})
    address = f"http://{lab.git_server.name}.{lab.git_server.namespace}.svc"

    def token(name: str) -> JSON:
        return {"url": address, "token": {"secretName": name, "key": "username"}}

    def chat(name: str) -> JSON:
        return {"telegram": {"chatId": "1", **token(name)}}

    plane = {
        "plane": {"workspace": "team", "project": "SHOP", "workItems": {"state": "Ready"}, **token("other-tracker")}
    }
    lab.repository("named", notify=[chat("named-chat")])
    lab.repository("closed", credentials={"secretName": "other-git"})
    lab.repository("silent", notify=[chat("other-chat")])
    lab.repository("deaf", tracker=plane)
    lab.pipeline("short", change=only("development"))
    release.upgrade(CHART, f"--set-json=rbac.secretNames={json.dumps([git, 'named-chat'])}")
    for repository in ("closed", "named", "silent"):
        lab.item(f"of-{repository}", repository=repository, pipeline="short")

    reason, message = said(lab.wait_phase("of-closed", "Blocked"))
    assert reason == "Forbidden"
    assert f"get secrets {lab.namespace}/other-git: " in message
    assert "if the chart's rbac.secretNames names Secrets, add other-git" in message
    lab.wait_phase("of-named", "Done")
    # Nobody is there, but the token was read.
    assert "secretNames" not in delivered(lab.wait("of-named", lambda status: "notify-0" in delivered(status), "a try"))
    lab.wait_phase("of-silent", "Done")
    told = lab.wait("of-silent", lambda status: "Forbidden" in delivered(status), "a chat that cannot be told")
    assert "if the chart's rbac.secretNames names Secrets, add other-chat" in delivered(told)
    events = ("get", "events", "--field-selector", "involvedObject.name=deaf,reason=TrackerFailed", "-o", "json")
    release.until(lambda: "rbac.secretNames names Secrets, add other-tracker" in lab.kubectl(*events), "told of deaf")

    release.upgrade(CHART, f"--set-json=rbac.secretNames={json.dumps([git, 'named-chat', 'other-git'])}")
    lab.wait_phase("of-closed", "Done")
    lab.kubectl("delete", "repository", "deaf")


def delivered(status: JSON) -> str:
    """What is said of the effects outside, if anything is."""
    return json.dumps([entry for entry in status["conditions"] if entry["type"] == "EffectsDelivered"])


def test_another_channel_is_told_by_an_image_with_the_extra_and_one_without_it_says_how_to_get_it(
    release: Release, built: images.Images
) -> None:
    lab = release.lab
    # Whatever an earlier test has chosen.
    release.upgrade(CHART)
    lab.apply(*receiver.manifests(built.agent))
    lab.kubectl("wait", "pod/receiver", "--for=condition=Ready", PATIENTLY)
    address = f"json://receiver.{lab.namespace}.svc:{receiver.PORT}"
    lab.kubectl("create", "secret", "generic", "channel", f"--from-literal=address={address}")
    channel = {"apprise": {"address": {"secretName": "channel", "key": "address"}}, "events": ["Done"]}
    lab.repository("told", notify=[channel])
    lab.pipeline("short", only("development"))

    lab.item("without", repository="told", pipeline="short", branch="without")
    lab.wait_phase("without", "Done")
    status = lab.wait("without", lambda status: "AppriseMissing" in delivered(status), "a channel that cannot be told")
    assert "build it with `--build-arg EXTRAS=apprise`" in delivered(status)

    before = release.pods()
    release.upgrade(CHART, *values(dataclasses.replace(built, operator=images.apprise(lab.cluster))))
    release.kubectl("wait", "--for=delete", *before, PATIENTLY)
    lab.item("with", repository="told", pipeline="short", branch="with")
    status = lab.wait("with", lambda s: s.get("phase") == "Done" and "outbox" not in s, "told")
    (effect,) = [effect for effect in status["effects"] if effect["target"] == "notify-0"]
    assert effect["state"] == "Done", effect
    # What a container prints is in its log a moment later.
    release.until(lambda: '"with ' in lab.kubectl("logs", "receiver"), "printed")
    told = [json.loads(line)["message"] for line in lab.kubectl("logs", "receiver").splitlines()]
    (message,) = [message for message in told if message.startswith("with ")]
    assert message.startswith(f"with Item with\n✅ Done: branch with is ready at {status['head'][:12]}")


def test_without_helm_kustomize_installs_the_same_with_the_images_of_the_readme(
    release: Release, tmp_path: pathlib.Path
) -> None:
    lab = release.lab
    lab.kubectl("-n", plain.NAME, "apply", "--dry-run=server", "--server-side", "--force-conflicts", "-k", str(DEPLOY))
    (overlay,) = [
        block for block in re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
        if block.startswith("apiVersion: kustomize.config.k8s.io")
    ]  # fmt: skip
    assert "[../deploy]" in overlay
    base = os.path.relpath(DEPLOY, tmp_path)
    (tmp_path / "kustomization.yaml").write_text(overlay.replace("[../deploy]", f"[{base}]"))
    objects = [body for body in yaml.safe_load_all(lab.kubectl("kustomize", str(tmp_path))) if body]
    (deployment,) = [body for body in objects if body["kind"] == "Deployment"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    environment = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert container["image"] == environment["WORKITEMS_RUNNER_IMAGE"] == "REGISTRY/workitem-operator:0.1.0"
    assert environment["WORKITEMS_AGENT_IMAGE"] == "REGISTRY/workitem-agent:0.1.0"
    assert environment["WORKITEMS_WATCH_NAMESPACES"] == ""


def test_an_upgrade_loses_nothing_and_an_uninstall_leaves_what_people_wrote(release: Release) -> None:
    lab = release.lab
    # A channel with templates of its own, and nobody there: the operator reads them, and the item does not mind.
    words = {"message.Done": "{item} is done"}
    lab.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "words"}, "data": words})
    token = {"secretName": lab.git_server.secret_name, "key": "username"}
    address = f"http://{lab.git_server.name}.{lab.git_server.namespace}.svc"
    telegram = {"telegram": {"chatId": "1", "token": token, "url": address}}
    git = lab.repository(notify=[telegram], messages={"templates": {"configMapName": "words"}})
    # Edited by a person, in the operator's namespace: the item's own has none.
    brought = release.brought()
    assert brought["spec"]["stages"][0]["name"] == "analysis"
    brought["spec"] = default_pipeline()
    brought["spec"]["agentDefaults"] |= {"timeout": "1h"}
    release.kubectl("replace", "-f", "-", stdin=json.dumps(brought))
    edited = release.pipeline()

    # In the middle of its work until the new operator is there.
    script = {"architecture": [{"write": {"{docs}/11-architecture.md": "x\n"}, "run": UNTIL_TOLD}]}
    item = lab.item("et-1", script)
    written = {key: lab.get("workitem", item)[key] for key in ("apiVersion", "kind", "spec")}
    written["metadata"] = {"name": item}
    written["spec"] = {key: written["spec"][key] for key in ("repository", "title", "description")}
    lab.approve(item)
    pod = lab.running(item, "architecture")
    # In the other namespace that it serves, and in one that it does not.
    other = dataclasses.replace(lab, namespace=release.others[0])
    other.repository()
    other.pipeline(change=only("development"))
    other.item("et-2")
    stranger = dataclasses.replace(lab, namespace=f"{release.namespace}-second")
    stranger.item("et-3")
    before = release.pods()
    release.upgrade(CHART, "--set=replicas=2")
    release.kubectl("wait", "--for=delete", *before, PATIENTLY)
    # The Service of webhooks follows the one that leads.
    label = "jsonpath={.metadata.labels.workitems\\.dev/leader}=true"
    release.kubectl("wait", release.leader(), f"--for={label}", PATIENTLY)
    lab.tell(job_of(pod))
    release.kubectl("delete", release.leader(), "--grace-period=0", "--force")
    assert "Message" in columns(lab)
    assert release.pipeline() == edited
    status = lab.wait_phase(item, "Done")
    assert [(run["stage"], run["result"], run["attempt"]) for run in status["runs"]] == [
        (stage["name"], "Succeeded", 1) for stage in edited["stages"]
    ], said(status)
    assert status["infraRetries"] == 0
    assert len(git.subjects("workitem/et-1")) == len(edited["stages"])

    other.wait_phase("et-2", "Done")
    assert stranger.status("et-3").get("observedGeneration") in (None, UNSEEN)

    # Git has the manifest, the cluster has the status: nobody sees a difference.
    lab.kubectl("diff", "--server-side", "-f", "-", stdin=json.dumps(written))
    release.run("test", release.name)
    release.run("uninstall", release.name, "--wait")
    release.kubectl("wait", "--for=delete", "pod", "-l", OPERATORS, PATIENTLY)
    assert lab.status(item)["phase"] == "Done"
    kept: Any = json.loads(lab.kubectl("get", "crd", "-o", "json"))["items"]
    assert {crd["spec"]["names"]["kind"] for crd in kept if crd["spec"]["group"] == "workitems.dev"} == {
        *("WorkItem", "Repository", "Pipeline", "Decision")
    }
    assert release.pipeline() == edited


def test_installed_again_it_finds_what_it_left_and_another_release_leaves_it_its_crds(release: Release) -> None:
    release.upgrade(CHART)
    release.run("uninstall", release.name, "--wait")
    release.upgrade(CHART)
    release.run("test", release.name)
    stranger = dataclasses.replace(release.lab, namespace=f"{release.namespace}-second")
    second = dataclasses.replace(release, lab=stranger, namespace=stranger.namespace, name="second", others=())
    second.upgrade(CHART, "--set=crds.install=false")
    try:
        stranger.item("et-4")
        assert said(stranger.wait_phase("et-4", "Pending"))[0] == "RepositoryNotFound"
        assert stranger.kubectl("get", "crd", CRD, "-o", OWNER) == release.namespace
    finally:
        second.run("uninstall", second.name, "--wait")
