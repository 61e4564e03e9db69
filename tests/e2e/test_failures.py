"""Every way in which a run can fail on a real cluster: the item's message names the cause and what continues it.

All items begin at once in one namespace; each test then does to its own what a day in a cluster does to it, mends it
and sees it through. Nothing here counts seconds.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e import full_volume
from tests.e2e.full_volume import FullVolume
from tests.e2e.lab import JSON, PATIENTLY, UNTIL_TOLD, Git, Lab, commands, job_of, only, said
from tests.e2e.session import GIT_NAMESPACE

pytestmark = pytest.mark.e2e

WORK = {"write": {"src/feature.txt": "a feature\n"}}
# Whatever the tests before it took, its first run is under way when something is done to it.
FIRST_RUN_WAITS = {**WORK, "run": f'[ "$WORKITEM_RUN" != 1 ] || {UNTIL_TOLD}'}
GOOD = ("Succeeded", "Succeeded")
HALF = {"write": {"src/half.txt": "half\n"}}
FILLS = {"run": "head -c 60000000 /dev/urandom > src/large || true"}
REFUSES = "#!/bin/sh\necho 'policy: nobody pushes today' >&2\nexit 1\n"


def _developer(**changes: Any) -> Callable[[JSON], None]:
    """A Pipeline of one stage, its agent changed."""

    def change(spec: JSON) -> None:
        only("development")(spec)
        spec["agents"]["developer"].update(changes)

    return change


def _few_retries(spec: JSON) -> None:
    _developer(timeout="1h")(spec)
    spec["limits"]["maxInfraRetries"] = 1


def _waiting_gate(spec: JSON) -> None:
    only("development", gates=("tests-local",))(spec)
    spec["stages"][0]["gates"][0]["command"]["run"] = ["sh", "-c", UNTIL_TOLD]


PIPELINES: dict[str, Callable[[JSON], None]] = {
    "work": _developer(timeout="1h"),
    "two": only("development", "review"),
    # Time enough for the agent to write what is then kept, while twenty others start on two cores.
    "slow": _developer(timeout="60s"),
    "no-image": _developer(image="registry.invalid/no/such:image"),
    "late-env": _developer(envFrom=[{"secretRef": {"name": "late-env"}}]),
    "no-prompt": _developer(systemPromptFile=".agents/developer.md"),
    "no-cli": _developer(command=["no-such-cli"]),
    "few-retries": _few_retries,
    "gate": _waiting_gate,
}

ITEMS: dict[str, tuple[str, str, dict[str, Any]]] = {
    # item: its pipeline, its repository, what its developer does
    "no-image": ("no-image", "shop", WORK),
    # Until the kubelet has measured the volume, which it does once a minute, and has evicted it.
    "full": ("few-retries", "small", {"run": f"head -c 60000000 /dev/urandom > src/large; {UNTIL_TOLD}"}),
    "away": ("work", "away", WORK),
    "slow": ("slow", "shop", {**HALF, "run": UNTIL_TOLD}),
    "hungry": ("work", "shop", {**HALF, "allocate": 600}),
    "pod-deleted": ("work", "shop", FIRST_RUN_WAITS),
    "pod-forced": ("work", "shop", FIRST_RUN_WAITS),
    "job-deleted": ("work", "shop", FIRST_RUN_WAITS),
    "late-secret": ("work", "late-secret", WORK),
    "no-prompt": ("no-prompt", "shop", WORK),
    "no-cli": ("no-cli", "shop", WORK),
    "refused": ("work", "refused", WORK),
    "wrong": ("work", "wrong", WORK),
    "gone": ("work", "gone", WORK),
    "no-claim": ("work", "no-claim", WORK),
    "exists": ("work", "shop", WORK),
    "no-pipeline": ("no-pipeline", "shop", WORK),
    "no-repository": ("work", "no-repository", WORK),
}


@dataclass
class World:
    """The namespace and its repositories."""

    lab: Lab
    gits: dict[str, Git]
    tiny: FullVolume | str
    """A volume that is truly full, or why there is none."""

    @property
    def shop(self) -> Git:
        """The repository of most items."""
        return self.gits["shop"]

    def blocked(self, item: str, *reasons: str) -> str:
        """Wait until an item is Blocked for one of these reasons; the message, with a Retry that can be pasted."""
        status = self.lab.wait_phase(item, "Blocked")
        assert said(status)[0] in reasons, said(status)
        assert "retry: {}" in commands(said(status)[1])[-1]
        return said(status)[1]

    def retried(self, item: str, message: str) -> JSON:
        """Paste the Retry of a message, and wait for the item's end."""
        self.lab.paste(commands(message)[-1])
        return self.lab.wait_phase(item, "Done")


@pytest.fixture(scope="module")
def world(shared_lab: Lab) -> Iterator[World]:
    """All items, under way."""
    lab = shared_lab
    _service(lab, "git-away", {"nobody": "here"})
    credentials = {"secretName": "late-secret"}
    _secret(lab, "wrong", username="bot", password="not this one")
    gits = {
        "shop": lab.repository(),
        "small": lab.repository("small", worktree={"emptyDir": {"sizeLimit": "8Mi"}}),
        "late-secret": lab.repository("late-secret", credentials=credentials),
        "refused": lab.repository("refused"),
        "wrong": lab.repository("wrong", credentials={"secretName": "wrong"}),
        "gone": lab.repository("gone"),
        "no-claim": lab.repository("no-claim", worktree={"claimName": "no-claim"}),
    }
    gits["away"] = lab.repository("away", host="git-away")
    gits["refused"].shell(["sh", "-c", 'cat > "$1"; chmod +x "$1"', "sh", _hook(gits["refused"])], stdin=REFUSES)
    gits["gone"].shell(["mv", _folder(gits["gone"]), f"{_folder(gits['gone'])}.away"])
    gits["shop"]("branch", "workitem/exists", "main")
    for name, change in PIPELINES.items():
        lab.pipeline(name, change)
    for name, (pipeline, repository, step) in ITEMS.items():
        lab.item(name, {"development": [step]}, pipeline=pipeline, repository=repository)
    lab.item("no-base", pipeline="work", baseBranch="release")
    with contextlib.ExitStack() as stack:
        tiny: FullVolume | str = full_volume.refusal(lab.cluster) or ""
        if not tiny:
            tiny = stack.enter_context(full_volume.FullVolume(lab, "tiny"))
            gits["tiny"] = lab.repository("tiny", worktree={"claimName": "tiny"})
            lab.item("no-space", {"development": [FILLS, WORK]}, pipeline="work", repository="tiny")
        yield World(lab, gits, tiny)


def test_a_git_server_that_is_away_is_named_waited_for_and_never_counted_as_rework(world: World) -> None:
    # The first of all: the longer it is away, the longer the item waits before it tries again.
    lab = world.lab
    lost = lab.wait("away", lambda s: bool(s.get("runs")), "the end of its first run")["runs"][0]
    assert (lost["result"], lost["reason"]) == ("Lost", "RemoteUnreachable")
    assert f"http://git-away.{GIT_NAMESPACE}.svc/" in lost["message"]
    _service(lab, "git-away", lab.git_server.labels)
    status = lab.wait_phase("away", "Done")
    assert {run["attempt"] for run in status["runs"]} == {1}
    assert status["usage"]["runs"] == 1


def test_a_pod_deleted_by_hand_is_infrastructure_and_the_run_is_repeated(world: World) -> None:
    lab = world.lab
    for item, force in (("pod-deleted", ()), ("pod-forced", ("--force", "--grace-period=0"))):
        pod = lab.running(item, "development")["metadata"]["name"]
        lab.kubectl("delete", "pod", pod, "--wait=false", *force)
    for item in ("pod-deleted", "pod-forced"):
        status = lab.wait_phase(item, "Done")
        assert [run["result"] for run in status["runs"]] == ["Lost", "Succeeded"]
        assert status["runs"][0]["reason"] in ("PodDeleted", "BackoffLimitExceeded")
        assert [run["attempt"] for run in status["runs"]] == [1, 1]
        assert status["usage"]["runs"] == 1
        assert not status.get("rework")
        assert status["infraRetries"] == 0


def test_a_pods_deletion_that_is_seen_only_after_its_end_is_infrastructure_all_the_same(world: World) -> None:
    """The kubelet's own deletion of an ended pod moves the deletion's time behind the end of its containers."""
    lab = world.lab
    item = lab.item("pod-deleted-late", {"development": [FIRST_RUN_WAITS]}, pipeline="work")
    pod = lab.running(item, "development")["metadata"]["name"]
    # What keeps it readable stands for a Job controller that has not let go of it yet.
    finalizers = {"metadata": {"finalizers": ["batch.kubernetes.io/job-tracking", "tests.workitems.dev/seen"]}}
    lab.kubectl("patch", "pod", pod, "--type=merge", "-p", json.dumps(finalizers))
    with lab.operator.asleep():
        lab.kubectl("delete", "pod", pod, "--wait=false")
        lab.kubectl("wait", "pod", pod, "--for=jsonpath={.metadata.deletionGracePeriodSeconds}=0", PATIENTLY)
        body = lab.get("pod", pod)
    agent = next(each for each in body["status"]["containerStatuses"] if each["name"] == "agent")
    assert agent["state"]["terminated"]["exitCode"] == 143
    lab.wait(item, lambda status: bool(status.get("runs")), "an end of run 1")
    lab.kubectl("wait", "job", job_of(body), "--for=condition=Failed", PATIENTLY)
    lab.kubectl("patch", "pod", pod, "--type=merge", "-p", '{"metadata": {"finalizers": null}}')
    status = lab.wait_phase(item, "Done")
    assert [(run["result"], run["reason"]) for run in status["runs"]] == [
        ("Lost", "PodDeleted"),
        ("Succeeded", "Succeeded"),
    ]
    assert status["usage"]["runs"] == 1


def test_a_job_deleted_by_hand_while_it_runs_is_infrastructure(world: World) -> None:
    lab = world.lab
    first = job_of(lab.running("job-deleted", "development"))
    lab.kubectl("delete", "job", first, "--wait=false")
    status = lab.wait_phase("job-deleted", "Done")
    assert [run["result"] for run in status["runs"]] == ["Lost", "Succeeded"]
    assert status["runs"][0]["reason"] == "JobDeleted"
    assert f"Job {first} was deleted before its result was recorded" in status["runs"][0]["message"]


def test_a_job_deleted_after_its_end_was_recorded_changes_nothing(world: World) -> None:
    lab = world.lab
    status = lab.wait_phase("job-deleted", "Done")
    lab.kubectl("delete", "job", status["runs"][1]["job"])
    lab.kubectl("annotate", "workitem", "job-deleted", "touched=1")
    assert lab.status("job-deleted")["runs"] == status["runs"]
    assert lab.status("job-deleted")["phase"] == "Done"


def test_a_job_deleted_between_its_end_and_the_look_at_it_does_its_work_once(world: World) -> None:
    """If the pod's end is heard of first, it is judged by that; else the run is repeated, on its own commit."""
    lab = world.lab
    item = lab.item("job-deleted-late", {"development": [FIRST_RUN_WAITS]}, pipeline="work")
    job = job_of(lab.running(item, "development"))
    with lab.operator.asleep():
        lab.tell(job)
        lab.kubectl("wait", "job", job, "--for=condition=Complete", PATIENTLY)
        # With its pod: the garbage collector would take that a moment later, and until then it tells how it ended.
        lab.kubectl("delete", "job", job, "--cascade=foreground", PATIENTLY)
    status = lab.wait_phase(item, "Done")
    *lost, last = [(run["result"], run["reason"]) for run in status["runs"]]
    assert (lost, last) in (([], GOOD), ([("Lost", "JobDeleted")], GOOD)), status["runs"]
    assert world.shop.subjects(f"workitem/{item}") == [f"developer({item}): run 1"]
    assert world.shop("rev-parse", f"workitem/{item}").strip() == status["head"]


def test_a_gates_job_deleted_by_hand_is_started_again_and_is_no_rework(world: World) -> None:
    lab = world.lab
    lab.item("gate-deleted", pipeline="gate")
    status = lab.wait("gate-deleted", lambda s: bool(s.get("gates")) and bool(s["gates"][0].get("jobUID")), "a Job")
    first = status["gates"][0]["job"]
    lab.kubectl("delete", "job", first, "--wait=false")
    status = lab.wait("gate-deleted", lambda s: s["gates"][0].get("job") not in (None, first), "another Job")
    lab.tell(status["gates"][0]["job"])
    done = lab.wait_phase("gate-deleted", "Done")
    assert done["gates"][0]["result"] == "Passed"
    assert done["gates"][0]["job"] == status["gates"][0]["job"]
    assert not done.get("rework")
    assert len(done["runs"]) == 1


def test_a_timeout_keeps_the_work_and_says_timed_out(world: World) -> None:
    message = world.blocked("slow", "TimedOut")
    assert "the agent ran into its timeout" in message
    run = world.lab.status("slow")["runs"][0]
    assert (run["result"], run["exitCode"]) == ("TimedOut", 124)
    assert world.shop.show("workitem/slow", "src/half.txt") == "half\n"
    assert "ended at its limit of 60 seconds" in world.lab.paste(commands(message)[0])


def test_out_of_memory_keeps_the_work_and_names_the_limit(world: World) -> None:
    message = world.blocked("hungry", "OutOfMemory")
    assert "resources.limits.memory of agent developer in the Pipeline is 256Mi" in message
    assert world.lab.status("hungry")["runs"][0]["result"] == "OutOfMemory"
    assert world.shop.show("workitem/hungry", "src/half.txt") == "half\n"


def test_an_evicted_pod_is_infrastructure(world: World) -> None:
    lab = world.lab
    item = lab.item("evicted", {"development": [FIRST_RUN_WAITS]}, pipeline="work")
    pod = lab.running(item, "development")["metadata"]["name"]
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": lab.namespace}}
    where = f"/api/v1/namespaces/{lab.namespace}/pods/{pod}/eviction"
    lab.kubectl("create", "--raw", where, "-f", "-", stdin=json.dumps(eviction))
    status = lab.wait_phase(item, "Done")
    assert [run["result"] for run in status["runs"]] == ["Evicted", "Succeeded"], status["runs"]
    assert status["usage"]["runs"] == 1


def test_a_missing_secret_of_the_repository_is_named_and_the_item_goes_on_once_it_is_there(world: World) -> None:
    lab = world.lab
    status = lab.wait("late-secret", lambda s: said(s)[0] == "SecretNotFound" if s.get("conditions") else False)
    assert status["phase"] == "Pending"
    assert "Secret late-secret of Repository late-secret does not exist in namespace" in said(status)[1]
    _secret(lab, "late-secret", username="bot", password="correct horse")
    lab.wait_phase("late-secret", "Done")


def test_a_missing_secret_of_the_agent_is_named_and_the_run_goes_on_once_it_is_there(world: World) -> None:
    lab = world.lab
    lab.item("late-env", pipeline="late-env")
    reason = "CreateContainerConfigError"
    status = lab.wait("late-env", lambda s: bool(s.get("conditions")) and said(s)[0] == reason, reason)
    assert 'secret "late-env" not found' in said(status)[1]
    _secret(lab, "late-env", MODEL="none")
    status = lab.wait_phase("late-env", "Done")
    assert len(status["runs"]) == 1


def test_a_missing_pipeline_or_repository_is_named_and_the_item_goes_on_once_it_is_there(world: World) -> None:
    lab = world.lab
    for item, reason in (("no-pipeline", "PipelineNotFound"), ("no-repository", "RepositoryNotFound")):
        status = lab.wait(item, lambda s: bool(s.get("conditions")), "conditions")
        assert said(status)[0] == reason
        assert f"there is no {reason.removesuffix('NotFound')} {item} in namespace" in said(status)[1]
    lab.pipeline("no-pipeline", only("development"))
    lab.repository("no-repository")
    for item in ("no-pipeline", "no-repository"):
        lab.wait_phase(item, "Done")


def test_a_missing_volume_is_named_and_the_run_goes_on_once_it_is_there(world: World) -> None:
    lab = world.lab
    status = lab.wait("no-claim", lambda s: bool(s.get("conditions")) and said(s)[0] == "Unschedulable")
    assert 'persistentvolumeclaim "no-claim" not found' in said(status)[1]
    request = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "64Mi"}}}
    metadata = {"name": "no-claim"}
    lab.apply({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": request})
    status = lab.wait_phase("no-claim", "Done")
    assert len(status["runs"]) == 1


def test_a_missing_prompt_file_is_named_and_a_retry_finds_it(world: World) -> None:
    message = world.blocked("no-prompt", "PromptFileNotFound")
    assert ".agents/developer.md, the agent's systemPromptFile, is not a file at the base commit" in message
    assert "PromptFileNotFound" in world.lab.paste(commands(message)[0])
    world.shop.commit("main", ".agents/developer.md", "You are the developer.\n")
    assert len(world.retried("no-prompt", message)["runs"]) == 2


def test_a_missing_base_branch_is_named_and_a_retry_finds_it(world: World) -> None:
    message = world.blocked("no-base", "BaseBranchNotFound")
    assert "there is no branch release in http://" in message
    world.shop("branch", "release", "main")
    world.retried("no-base", message)


def test_a_branch_that_somebody_deleted_is_named_and_a_retry_finds_it_again(world: World) -> None:
    lab, git = world.lab, world.shop
    item = lab.item("branch-gone", {"development": [{**WORK, "run": UNTIL_TOLD}]}, pipeline="two")
    pod = lab.running(item, "development")
    lab.suspend(item)
    lab.tell(job_of(pod))
    head = lab.wait_phase(item, "Suspended")["head"]
    git("branch", "-D", f"workitem/{item}")
    lab.suspend(item, False)
    message = world.blocked(item, "BranchNotFound")
    assert f"the branch workitem/{item} is gone from http://" in message
    assert f"{head}:refs/heads/workitem/{item}), or abort the item" in message
    git("branch", f"workitem/{item}", head)
    assert [run["stage"] for run in world.retried(item, message)["runs"]] == ["development", "review", "review"]


def test_a_branch_that_exists_is_used_only_when_the_item_adopts_it(world: World) -> None:
    message = world.blocked("exists", "BranchExists")
    assert "the branch workitem/exists is already in http://" in message
    assert "set spec.adoptBranch: true" in message
    world.lab.kubectl("patch", "workitem", "exists", "--type=merge", "-p", '{"spec": {"adoptBranch": true}}')
    status = world.retried("exists", message)
    assert world.shop("rev-parse", "workitem/exists").strip() == status["head"]


def test_a_program_that_the_image_lacks_is_named(world: World) -> None:
    message = world.blocked("no-cli", "AgentFailed")
    assert "exit code 127" in message
    assert "no-such-cli" in message


def test_a_refused_push_repeats_the_servers_words_and_a_retry_pushes(world: World) -> None:
    message = world.blocked("refused", "PushRefused")
    assert "policy: nobody pushes today" in message
    world.gits["refused"].shell(["rm", _hook(world.gits["refused"])])
    world.retried("refused", message)
    assert world.gits["refused"].show("workitem/refused", "src/feature.txt") == "a feature\n"


def test_refused_credentials_are_named_and_a_retry_uses_the_corrected_ones(world: World) -> None:
    message = world.blocked("wrong", "CredentialsRefused")
    assert "check username and password" in message
    assert "not this one" not in message
    _secret(world.lab, "wrong", username="bot", password="correct horse")
    world.retried("wrong", message)


def test_a_repository_that_the_server_does_not_have_is_named_and_a_retry_finds_it(world: World) -> None:
    message = world.blocked("gone", "RepositoryNotFound")
    git = world.gits["gone"]
    assert f"there is no repository at http://git.{GIT_NAMESPACE}.svc/{git.repository}.git" in message
    git.shell(["mv", f"{_folder(git)}.away", _folder(git)])
    world.retried("gone", message)


def test_a_branch_that_somebody_moved_meanwhile_keeps_both_works(world: World) -> None:
    lab, git = world.lab, world.shop
    review = {"write": {"{docs}/12-review.md": "Verdict: APPROVED\n"}, "run": f"[ $WORKITEM_RUN != 2 ] || {UNTIL_TOLD}"}
    lab.item("raced", {"review": [review]}, pipeline="two")
    pod = lab.running("raced", "review")
    pushed = git.commit("workitem/raced", "src/person.txt", "mine\n")
    lab.tell(job_of(pod))
    status = lab.wait_phase("raced", "Done")

    lost = status["runs"][1]
    assert (lost["result"], lost["reason"]) == ("Lost", "HeadMoved")
    assert lost["divertedTo"] == "workitems/raced/run-2"
    assert "this run's work is in the branch workitems/raced/run-2" in lost["message"]
    assert git.show("workitems/raced/run-2", "docs/work-items/raced/12-review.md") == "Verdict: APPROVED\n"
    assert git.subjects("workitem/raced") == ["developer(raced): run 1", "By hand", "reviewer(raced): run 3"]
    assert git("merge-base", pushed, "workitem/raced").strip() == pushed


def test_a_git_server_that_is_away_at_the_push_is_waited_for(world: World) -> None:
    lab = world.lab
    lab.wait_phase("away", "Done")
    item = lab.item("away-push", {"development": [{**WORK, "run": UNTIL_TOLD}]}, pipeline="work", repository="away")
    pod = lab.running(item, "development")
    _service(lab, "git-away", {"nobody": "here"})
    lab.tell(job_of(pod))
    ended = "jsonpath={.status.containerStatuses[?(@.name=='agent')].state.terminated.exitCode}=0"
    lab.kubectl("wait", "pod", pod["metadata"]["name"], f"--for={ended}", PATIENTLY)
    _service(lab, "git-away", lab.git_server.labels)
    status = lab.wait_phase(item, "Done")
    assert [run["result"] for run in status["runs"]] == ["Succeeded"]


def test_a_full_volume_is_named(world: World) -> None:
    message = world.blocked("full", "InfraRetriesExhausted")
    assert "infrastructure failed 2 times in a row" in message
    assert 'Usage of EmptyDir volume "workitem-worktree" exceeds the limit "8Mi". Then: kubectl' in message
    assert [run["result"] for run in world.lab.status("full")["runs"]] == ["Evicted", "Evicted"]


def test_a_claim_without_space_is_named_and_a_retry_goes_on_once_there_is_some(world: World) -> None:
    if isinstance(world.tiny, str):
        pytest.skip(world.tiny)
    message = world.blocked("no-space", "VolumeFull")
    assert "the worktree volume is full: give the claim more space, or delete what is not needed on it" in message
    world.tiny.grow()
    world.retried("no-space", message)
    assert world.gits["tiny"].files("workitem/no-space") >= {"src/feature.txt"}
    assert "src/large" not in world.gits["tiny"].files("workitem/no-space")


def test_an_image_that_cannot_be_pulled_is_named_at_once_and_later_blocked(world: World) -> None:
    message = world.blocked("no-image", "ImagePullBackOff", "ErrImagePull")
    assert "registry.invalid/no/such:image" in message
    assert "container agent of pod no-image-development-1-" in message


def _folder(git: Git) -> str:
    return f"/srv/git/{git.repository}.git"


def _hook(git: Git) -> str:
    return f"{_folder(git)}/hooks/pre-receive"


def _secret(lab: Lab, name: str, **data: str) -> None:
    metadata = {"name": name}
    lab.kubectl(
        "apply", "--server-side", "--force-conflicts", "-f", "-",
        stdin=json.dumps({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data}),
    )  # fmt: skip


def _service(lab: Lab, name: str, selector: dict[str, str]) -> None:
    """A second address of the git server, which can be away without the others' noticing."""
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": GIT_NAMESPACE},
        "spec": {"selector": selector, "ports": [{"port": 80, "targetPort": "http"}]},
    }
    # Replaced as a whole: an apply would merge the two selectors.
    found = subprocess.run(
        [*lab.cluster.kubectl, "-n", GIT_NAMESPACE, "get", "service", name], capture_output=True, check=False
    )
    verb = ["create"] if found.returncode else ["replace"]
    done = subprocess.run(
        [*lab.cluster.kubectl, *verb, "-f", "-"], input=json.dumps(service), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
