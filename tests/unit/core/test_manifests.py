"""What is created: held field by field, valid for the API server, and never below the security floor."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import kubernetes_validate
import pytest
from syrupy.assertion import SnapshotAssertion

from tests.unit.core.world import End, World, one_stage
from workitems import protocol
from workitems.api import RunTask
from workitems.core import manifests
from workitems.core.facts import Defaults

JSON = dict[str, Any]
SSH = {"credentials": {"secretName": "shop-ssh"}, "caBundle": {"configMapName": "corporate-ca", "key": "ca.crt"}}
WORKTREES: dict[str, JSON] = {
    "its own claim": {"worktree": {"volumeClaimTemplate": {"storageClassName": "standard"}}},
    "an emptyDir": {"worktree": {"emptyDir": {"sizeLimit": "2Gi"}}},
    "a shared claim": {"worktree": {"claimName": "worktrees"}},
    "ssh and a CA": SSH,
}
TESTS = {"name": "tests", "command": {"run": ["sh", "-c", "test $(whoami) != root && echo $$"]}}
RICH = {
    "claudeCode": None,
    "command": ["agent", "--model", "$(MODEL)", "$$", "a b"],
    "image": "registry.example.com/own:2",
    "systemPromptFile": "prompts/{stage}.md",
    "taskFile": ".task.md",
    "commitPaths": ["src/", "docs/"],
    "timeout": "1h",
    "env": [
        {"name": "MODEL", "value": "$(opus)"},
        {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "key", "key": "k"}}},
    ],
    "envFrom": [{"secretRef": {"name": "more"}}],
    "resources": {"requests": {"cpu": 2, "memory": "1Gi"}, "limits": {"memory": "4Gi"}},
    "nodeSelector": {"pool": "agents"},
    "tolerations": [{"key": "agents", "operator": "Exists", "effect": "NoSchedule"}],
    "volumes": [{"name": "cache", "persistentVolumeClaim": {"claimName": "cache"}}, {"name": "tmp", "emptyDir": {}}],
    "volumeMounts": [{"name": "cache", "mountPath": "/cache"}, {"name": "tmp", "mountPath": "/tmp"}],
    "imagePullSecrets": [{"name": "registry"}],
    "serviceAccountName": "deployer",
}


def with_agent(agent: JSON, **repository: Any) -> World:
    pipeline = {**one_stage(TESTS), "queueName": "team-a", "agents": {"coder": agent}}
    return World(pipeline, repository=repository or None)


def run_job(world: World) -> JSON:
    world.go(until=world.pipeline["stages"][0]["name"] if world.pipeline else "")
    return world.run_job().manifest


def gate_job(world: World) -> JSON:
    run_job(world)
    world.end_run()
    world.rest()
    (name,) = world.live_gates()
    return world.jobs[name].manifest


def readable(job: JSON) -> JSON:
    """A copy whose constant script and whose task are told apart from the rest."""
    copy: JSON = json.loads(json.dumps(job))
    annotations = copy["spec"]["template"]["metadata"]["annotations"]
    annotations[protocol.TASK_ANNOTATION] = json.loads(annotations[protocol.TASK_ANNOTATION])
    for container in copy["spec"]["template"]["spec"]["containers"]:
        command = container.get("command", [])
        container["command"] = ["<entry>" if "\n" in word else word for word in command]
    return copy


def pods_of(job: JSON) -> JSON:
    spec: JSON = job["spec"]["template"]["spec"]
    return spec


def containers_of(job: JSON) -> Iterator[JSON]:
    spec = pods_of(job)
    yield from spec.get("initContainers", [])
    yield from spec["containers"]


def container(job: JSON, name: str) -> JSON:
    return next(c for c in containers_of(job) if c["name"] == name)


def validate(manifest: JSON) -> None:
    kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("repository", WORKTREES.values(), ids=WORKTREES)
def test_a_runs_job(repository: JSON, snapshot: SnapshotAssertion) -> None:
    job = run_job(with_agent({"command": ["agent"]}, **repository))
    validate(job)
    assert readable(job) == snapshot


def test_a_runs_job_with_all_that_an_agent_may_say(snapshot: SnapshotAssertion) -> None:
    job = run_job(with_agent(RICH, **SSH))
    validate(job)
    assert readable(job) == snapshot


def test_a_gates_job(snapshot: SnapshotAssertion) -> None:
    job = gate_job(with_agent(RICH, **SSH))
    validate(job)
    assert readable(job) == snapshot


def test_the_items_own_claim(snapshot: SnapshotAssertion) -> None:
    world = with_agent({"command": ["agent"]}, **WORKTREES["its own claim"])
    world.rest()
    (claim,) = world.claims.values()
    validate(claim)
    assert claim == snapshot


@pytest.mark.parametrize("repository", [WORKTREES["an emptyDir"], WORKTREES["a shared claim"]])
def test_no_claim_where_the_repository_has_another_way(repository: JSON) -> None:
    world = with_agent({"command": ["agent"]}, **repository)
    world.rest()
    assert world.claims == {}


def test_the_pipelines_copy(snapshot: SnapshotAssertion) -> None:
    facts = with_agent(RICH).facts()
    assert facts.pipeline is not None
    revision = manifests.snapshot(facts.item, facts.pipeline)
    validate(revision)
    assert revision == snapshot


def test_the_pipelines_copy_reads_back_as_the_pipeline() -> None:
    facts = World().facts()
    assert facts.pipeline is not None
    data = json.loads(json.dumps(manifests.snapshot(facts.item, facts.pipeline)["data"]))
    assert type(facts.pipeline.spec).model_validate(data) == facts.pipeline.spec


HOSTILE: JSON = {
    "command": ["agent"],
    "env": [
        {"name": "HOME", "value": "/root"},
        {"name": "WORKITEM_NAME", "value": "another"},
        {"name": "GIT_CONFIG_KEY_0", "value": "core.hooksPath"},
    ],
    "volumes": [
        {"name": "workitem-credentials", "secret": {"secretName": "another"}},
        {"name": "workitem-task", "emptyDir": {}},
        {"name": "host", "hostPath": {"path": "/"}, "emptyDir": {}},
    ],
    "volumeMounts": [
        {"name": "workitem-credentials", "mountPath": "/stolen"},
        {"name": "workitem-runner-tmp", "mountPath": "/other"},
        {"name": "host", "mountPath": "/home/agent"},
    ],
    "securityContext": {"privileged": True},
    "hostNetwork": True,
    "hostPID": True,
    "lifecycle": {"postStart": {"exec": {"command": ["id"]}}},
    "automountServiceAccountToken": True,
    "serviceAccountName": "cluster-admin",
    "nodeSelector": {"a": "b"},
}


def jobs() -> Iterator[JSON]:
    for agent in ({"command": ["agent"]}, RICH):
        for repository in WORKTREES.values():
            yield run_job(with_agent(agent, **repository))
        yield gate_job(with_agent(agent, **SSH))
    yield hostile_job(run_job_of_hostile=True)
    yield hostile_job(run_job_of_hostile=False)


def hostile_job(*, run_job_of_hostile: bool) -> JSON:
    """A Job of an agent that admission and `mistakes` would both have refused."""
    world = with_agent({"command": ["agent"]}, **SSH)
    job = run_job(world) if run_job_of_hostile else gate_job(world)
    facts = world.facts()
    assert facts.pipeline is not None
    name = world.status.pipeline.revision if world.status.pipeline else ""
    world.revisions[name] = {**world.revisions[name], "agents": {"coder": HOSTILE}}
    world._specs.clear()
    world.jobs.clear()
    world.go(until="build")
    again = next(iter(world.jobs.values())).manifest
    assert pods_of(again) != pods_of(job) or not run_job_of_hostile
    return again


@pytest.mark.slow
def test_the_security_floor_holds_for_every_container_of_every_pod() -> None:
    seen = 0
    for job in jobs():
        spec = pods_of(job)
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        assert spec["restartPolicy"] == "Never"
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not spec.keys() & {"hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace", "hostUsers"}
        for entry in containers_of(job):
            seen += 1
            assert entry["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert "lifecycle" not in entry
            paths = [m["mountPath"] for m in entry["volumeMounts"]]
            assert len(paths) == len(set(paths))
        names = [v["name"] for v in spec["volumes"]]
        assert len(names) == len(set(names))
        mounted = {m["name"] for entry in containers_of(job) for m in entry["volumeMounts"]}
        assert mounted <= set(names)
        allowed = {"name", "emptyDir", "secret", "configMap", "persistentVolumeClaim", "downwardAPI", "projected"}
        assert all(v.keys() <= allowed for v in spec["volumes"])
        validate(job)
    assert seen >= 20


def test_credentials_and_task_are_the_runners_alone_and_git_is_read_only_for_the_agent() -> None:
    for job in jobs():
        agent = container(job, protocol.AGENT_CONTAINER)
        mounts = {m["mountPath"]: m for m in agent["volumeMounts"]}
        names = {m["name"] for m in agent["volumeMounts"]}
        assert not names & {"workitem-credentials", "workitem-task", "workitem-ca", "workitem-runner-tmp"}
        git = [m for path, m in mounts.items() if path.endswith("/git")]
        assert [m["readOnly"] for m in git] == [True]
        whole = [m for m in agent["volumeMounts"] if m["name"] == "workitem-worktree" and "subPath" not in m]
        assert whole == [], "the agent would see all of the volume"
        exchange = [m for m in agent["volumeMounts"] if m["name"] == "workitem-exchange"]
        assert all(m.get("readOnly") is True for m in exchange)
        runner = container(job, protocol.RUNNER_CONTAINER)
        assert "workitem-token" not in {m["name"] for m in runner["volumeMounts"]}
        assert "envFrom" not in runner
        assert runner["env"] == [{"name": "HOME", "value": "/tmp"}]


def test_a_gates_pod_has_no_secret_but_the_checkouts() -> None:
    job = gate_job(with_agent(RICH, **SSH))
    agent = container(job, protocol.AGENT_CONTAINER)
    assert "envFrom" not in agent
    assert all("valueFrom" not in e for e in agent["env"])
    assert "MODEL" not in {e["name"] for e in agent["env"]}
    assert [v["name"] for v in pods_of(job)["volumes"] if "secret" in v] == ["workitem-credentials"]
    assert "serviceAccountName" not in pods_of(job)
    assert [c["name"] for c in pods_of(job)["initContainers"]] == [protocol.RUNNER_CONTAINER]


def test_the_operators_variables_win_over_a_pipelines() -> None:
    job = hostile_job(run_job_of_hostile=True)
    # The kubelet takes the last one of a name.
    values = {e["name"]: e.get("value") for e in container(job, protocol.AGENT_CONTAINER)["env"]}
    assert values["HOME"] == "/home/agent"
    assert values["WORKITEM_NAME"] == "et-12"
    assert values["GIT_CONFIG_KEY_0"] == "safe.directory"


def expanded(text: str, variables: dict[str, str]) -> str:
    """What the kubelet makes of a command or value (k8s.io/kubernetes/third_party/forked/golang/expansion)."""
    out, at = "", 0
    while at < len(text):
        rest = text[at:]
        if rest.startswith("$$"):
            out, at = out + "$", at + 2
        elif rest.startswith("$(") and ")" in rest:
            name, _, _ = rest[2:].partition(")")
            out, at = out + variables.get(name, f"$({name})"), at + len(name) + 3
        else:
            out, at = out + text[at], at + 1
    return out


def test_commands_and_values_reach_their_container_as_they_were_written() -> None:
    world = with_agent({"command": RICH["command"], "env": [{"name": "MODEL", "value": "opus"}]}, **SSH)
    world.item["spec"]["branch"] = "feature/$(MODEL)-$$-$HOME"
    run = container(run_job(world), protocol.AGENT_CONTAINER)
    variables = {"MODEL": "opus", "HOME": "/home/agent"}
    assert [expanded(word, variables) for word in run["command"]][-5:] == RICH["command"]
    branch = next(e["value"] for e in run["env"] if e["name"] == "WORKITEM_BRANCH")
    assert expanded(branch, variables) == "feature/$(MODEL)-$$-$HOME"
    world.end_run()
    world.rest()
    gate = container(world.jobs[world.live_gates()[0]].manifest, protocol.AGENT_CONTAINER)
    assert [expanded(word, variables) for word in gate["command"]][-3:] == TESTS["command"]["run"]  # type: ignore[index]


WORDS = {
    "shell and kubelet": "`$(reboot)` $(HOME) $$ ${X} \"quotes\" 'quotes' \\ back\n\n\ttab\r\n",
    "64 KiB of Cyrillic": "Ж" * 32_768,
    "64 KiB of quotes": '"' * 65_536,
    "line and paragraph separators": "\u2028\u2029\x7f\u00a0",
    "emoji": "🙂" * 16_384,
}


@pytest.mark.parametrize("description", WORDS.values(), ids=WORDS)
def test_the_description_travels_byte_for_byte_in_an_annotation_that_is_allowed(description: str) -> None:
    world = with_agent({"command": ["agent"]})
    world.item["spec"]["description"] = description
    job = run_job(world)
    annotations = job["spec"]["template"]["metadata"]["annotations"]
    assert sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items()) < 256 * 1024
    task = RunTask.loads(annotations[protocol.TASK_ANNOTATION])
    assert description.encode() in task.prompt.encode()


@pytest.mark.slow
def test_the_longest_task_with_the_longest_words_of_people_still_fits() -> None:
    world = with_agent({"command": ["agent"]})
    world.item["spec"]["description"] = "Ж" * 32_768
    world.script("build", *[End(exit_code=1, tail="щ" * 2000)] * 20)
    for _ in range(20):
        world.go()
        world.say("retry", comment="Щ" * 16_384)
    assert world.status.last_run == 20
    assert world.tasks[-1].prompt.count("Щ" * 16_384) >= 1
    assert all(
        len(job.manifest["spec"]["template"]["metadata"]["annotations"][protocol.TASK_ANNOTATION].encode()) < 245_760
        for job in world.jobs.values()
    )


def test_ids_may_be_left_to_the_platform() -> None:
    world = with_agent({"command": ["agent"]})
    world.defaults = Defaults(runner_image="r", agent_image="a", run_as_user=None, run_as_group=None, fs_group=None)
    job = run_job(world)
    assert pods_of(job)["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    validate(job)


@pytest.mark.parametrize("job_of", [run_job, gate_job])
def test_the_runner_gets_the_memory_that_the_operator_gives(job_of: Callable[[World], JSON]) -> None:
    world = with_agent(RICH, **SSH)
    world.defaults = replace(world.defaults, runner_memory="3Gi")
    job = job_of(world)
    wanted = {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "3Gi"}}
    assert container(job, protocol.RUNNER_CONTAINER)["resources"] == wanted
    assert container(job, protocol.AGENT_CONTAINER)["resources"] != wanted
    validate(job)


def test_everything_belongs_to_the_item_and_is_found_by_its_labels() -> None:
    world = with_agent(RICH, **WORKTREES["its own claim"])
    job = run_job(world)
    (claim,) = world.claims.values()
    for manifest in (job, claim):
        (owner,) = manifest["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["uid"], owner["controller"]) == ("WorkItem", world.facts().uid, True)
        assert manifest["metadata"]["labels"][protocol.ITEM_LABEL] == "et-12"
    labels = job["spec"]["template"]["metadata"]["labels"]
    assert {labels[protocol.STAGE_LABEL], labels[protocol.RUN_LABEL], labels[protocol.AGENT_LABEL]} == {
        "build",
        "1",
        "coder",
    }
    assert job["metadata"]["labels"][manifests.QUEUE_LABEL] == "team-a"
    assert manifests.QUEUE_LABEL not in labels, "Kueue would queue the pod a second time"


def test_the_job_controller_never_makes_a_second_pod() -> None:
    for job in jobs():
        assert job["spec"]["backoffLimit"] == 0
        assert job["spec"]["completions"] == job["spec"]["parallelism"] == 1
        assert "ttlSecondsAfterFinished" not in job["spec"], "a Job gone too early would be run again"
        assert job["spec"]["activeDeadlineSeconds"] > 1200


def test_the_same_announcement_makes_the_same_job() -> None:
    assert run_job(with_agent(RICH)) == run_job(with_agent(RICH))
