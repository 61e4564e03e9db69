"""The pods of runs and gates: two containers that trust each other as little as they must.

The runner holds the git credentials and publishes; the agent holds the model's credentials and works. They share the
worktree (git's own directory read-only for the agent) and a small exchange that only the runner can write. Every
container is non-root, with a read-only root, without capabilities, and no pod has a service-account token except
where an agent names a service account: then its token is in that container alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from workitems import protocol
from workitems.agents import entry
from workitems.api import Agent, CommandGate, Repository, RunTask, WorkItem
from workitems.api.container import Volume
from workitems.core import launch, resources
from workitems.core.facts import Defaults, Facts
from workitems.core.launch import Launch

TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - a path, no password
RUNNER_RESOURCES = {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "1Gi"}}
HOME = "/home/agent"


@dataclass(frozen=True)
class Pod:
    """A pod template's spec and annotations."""

    spec: dict[str, Any]
    annotations: dict[str, str]


def claim_name(item: WorkItem) -> str:
    """Name of an item's own volume: another one for another item of the same name."""
    digest = hashlib.sha256(item.metadata.uid.encode()).hexdigest()[:10]
    return f"{item.metadata.name[:43].rstrip('-')}-worktree-{digest}"


def run_pod(facts: Facts, repository: Repository, agent: Agent, task: RunTask, how: Launch) -> Pod:
    """Runner and agent side by side: two containers that start together cost one second, in a row three."""
    mounts = [
        _mount("workitem-exchange", protocol.EXCHANGE, read_only=True),
        *_worktree_mounts(task, git_read_only=True),
        *_without(_agent_scratch(), _own_mounts(agent)),
        *(_session_mounts(task) if how.sessions else ()),
        *_own_mounts(agent),
    ]
    command = entry.argv(_literal(how.command), task.agent_timeout_seconds)
    worker = _agent_container(facts, agent, task, (command, mounts))
    worker["env"] = [*_escaped(how.before), *worker["env"], *_escaped(how.after)]
    volumes = [
        *_runner_volumes(repository),
        {"name": "workitem-exchange", "emptyDir": {"sizeLimit": "16Mi"}},
        _worktree_volume(facts.item, repository),
        *_scratch_volumes(),
        *([{"name": "workitem-claude", "emptyDir": {}}] if how.sessions else ()),
        *(volume.model_dump(mode="json", by_alias=True, exclude_none=True) for volume in _own_volumes(agent)),
    ]
    if agent.service_account_name is not None:
        worker["volumeMounts"].append(_mount("workitem-token", TOKEN_PATH, read_only=True))
        volumes.append(_token_volume())
    spec = _pod_spec(facts.defaults, agent)
    spec["containers"] = [_runner(facts.defaults, repository, "agent"), worker]
    spec["volumes"] = volumes
    return Pod(spec, {protocol.TASK_ANNOTATION: as_json(task)})


def look_pod(facts: Facts, repository: Repository, agent: Agent, task: RunTask) -> Pod:
    """The runner alone, on a volume of its own: nothing is changed, so nothing has to be kept."""
    spec = _pod_spec(facts.defaults, _placement(agent))
    spec["containers"] = [_runner(facts.defaults, repository, "look")]
    spec["volumes"] = [
        *_runner_volumes(repository),
        {"name": "workitem-exchange", "emptyDir": {"sizeLimit": "16Mi"}},
        {"name": "workitem-worktree", "emptyDir": {}},
    ]
    return Pod(spec, {protocol.TASK_ANNOTATION: as_json(task)})


def gate_pod(facts: Facts, repository: Repository, agent: Agent, task: RunTask, gate: CommandGate) -> Pod:
    """The checkout first, with the credentials; then the command, with none, on a volume of its own."""
    command = entry.gate_argv(_literal(gate.run), task.agent_timeout_seconds)
    mounts = [*_worktree_mounts(task, git_read_only=True), *_agent_scratch()]
    image = gate.image or launch.image_of(facts.defaults, agent)
    plain = Agent(image=image, resources=gate.resources or agent.resources)
    worker = _agent_container(facts, plain, task, (command, mounts))
    spec = _pod_spec(facts.defaults, _placement(agent))
    spec["initContainers"] = [_runner(facts.defaults, repository, "gate")]
    spec["containers"] = [worker]
    spec["volumes"] = [
        *_runner_volumes(repository),
        {"name": "workitem-exchange", "emptyDir": {"sizeLimit": "16Mi"}},
        {"name": "workitem-worktree", "emptyDir": {}},
        *_scratch_volumes(),
    ]
    return Pod(spec, {protocol.TASK_ANNOTATION: as_json(task)})


def _placement(agent: Agent) -> Agent:
    """Where an agent's pods run and how their images are pulled, without its service account and its container."""
    return Agent(
        node_selector=agent.node_selector,
        tolerations=agent.tolerations,
        image_pull_secrets=agent.image_pull_secrets,
        runtime_class_name=agent.runtime_class_name,
    )


def as_json(task: RunTask) -> str:
    """The task as the annotation carries it."""
    return task.dumps()


def _pod_spec(defaults: Defaults, agent: Agent) -> dict[str, Any]:
    security: dict[str, Any] = {
        "runAsNonRoot": True,
        "runAsUser": defaults.run_as_user,
        "runAsGroup": defaults.run_as_group,
        "fsGroup": defaults.fs_group,
        "fsGroupChangePolicy": "OnRootMismatch" if defaults.fs_group is not None else None,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        # Time for the runner to publish what is there when its node is drained.
        "terminationGracePeriodSeconds": 60,
        "securityContext": {key: value for key, value in security.items() if value is not None},
    }
    optional = agent.model_dump(
        mode="json",
        by_alias=True,
        exclude_none=True,
        include={"node_selector", "tolerations", "image_pull_secrets", "service_account_name", "runtime_class_name"},
    )
    return {**spec, **optional}


def _container_security() -> dict[str, Any]:
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def _runner(defaults: Defaults, repository: Repository, kind: str) -> dict[str, Any]:
    mounts = [
        _mount("workitem-task", protocol.TASK_FILE.rsplit("/", 1)[0], read_only=True),
        _mount("workitem-exchange", protocol.EXCHANGE),
        _mount("workitem-worktree", protocol.VOLUME),
        _mount("workitem-runner-tmp", "/tmp"),  # noqa: S108 - a volume of the container's own
    ]
    if repository.spec.credentials is not None:
        mounts.append(_mount("workitem-credentials", protocol.CREDENTIALS, read_only=True))
    if repository.spec.ca_bundle is not None:
        mounts.append(_mount("workitem-ca", protocol.CA_FILE.rsplit("/", 1)[0], read_only=True))
    return {
        "name": protocol.RUNNER_CONTAINER,
        "image": defaults.runner_image,
        "imagePullPolicy": defaults.image_pull_policy,
        "args": ["runner", kind],
        "env": [{"name": "HOME", "value": "/tmp"}],  # noqa: S108 - see above
        "resources": RUNNER_RESOURCES,
        "securityContext": _container_security(),
        "volumeMounts": mounts,
    }


def _runner_volumes(repository: Repository) -> list[dict[str, Any]]:
    task = {
        "path": protocol.TASK_FILE.rsplit("/", 1)[1],
        "fieldRef": {"fieldPath": f"metadata.annotations['{protocol.TASK_ANNOTATION}']"},
    }
    volumes: list[dict[str, Any]] = [
        {"name": "workitem-task", "downwardAPI": {"items": [task]}},
        {"name": "workitem-runner-tmp", "emptyDir": {}},
    ]
    if repository.spec.credentials is not None:
        # Readable by the group: the runner is not root, and ssh accepts a key that root owns.
        secret = {"secretName": repository.spec.credentials.secret_name, "defaultMode": 0o440}
        volumes.append({"name": "workitem-credentials", "secret": secret})
    if repository.spec.ca_bundle is not None:
        bundle = repository.spec.ca_bundle
        items = [{"key": bundle.key, "path": protocol.CA_FILE.rsplit("/", 1)[1]}]
        volumes.append({"name": "workitem-ca", "configMap": {"name": bundle.config_map_name, "items": items}})
    return volumes


def _agent_container(
    facts: Facts, agent: Agent, task: RunTask, run: tuple[Sequence[str], list[dict[str, Any]]]
) -> dict[str, Any]:
    command, mounts = run
    own = [variable.model_dump(mode="json", by_alias=True, exclude_none=True) for variable in agent.env or ()]
    container: dict[str, Any] = {
        "name": protocol.AGENT_CONTAINER,
        "image": launch.image_of(facts.defaults, agent),
        "imagePullPolicy": facts.defaults.image_pull_policy,
        "command": list(command),
        "workingDir": protocol.tree_dir(task.repository, task.item),
        # The operator's own come last: a later variable of the same name wins.
        "env": [*own, *_environment(task)],
        "securityContext": _container_security(),
        # The last lines of a failed agent's log are in the pod's status: a person sees them in the item's message.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    }
    if agent.env_from:
        container["envFrom"] = [e.model_dump(mode="json", by_alias=True, exclude_none=True) for e in agent.env_from]
    container["resources"] = resources.of(agent)
    return container


def _environment(task: RunTask) -> list[dict[str, str]]:
    who = task.commit
    values = {
        "WORKITEM_NAME": task.item,
        "WORKITEM_STAGE": task.stage,
        "WORKITEM_BRANCH": task.branch,
        "WORKITEM_REPOSITORY": task.repository,
        "WORKITEM_RUN": str(task.run),
        "WORKITEM_ATTEMPT": str(task.attempt),
        "WORKITEM_DOCUMENTS": task.documents,
        "WORKITEM_SYSTEM_PROMPT": f"{protocol.EXCHANGE}/{protocol.SYSTEM_PROMPT_FILE}"
        if task.system_prompt_file
        else "",
        "HOME": HOME,
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_AUTHOR_NAME": who.name,
        "GIT_AUTHOR_EMAIL": who.email,
        "GIT_COMMITTER_NAME": who.name,
        "GIT_COMMITTER_EMAIL": who.email,
        # The volume's folders may belong to root (the kubelet made them): git must not refuse to read them.
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "safe.directory",
        "GIT_CONFIG_VALUE_0": "*",
    }
    return [{"name": name, "value": value} for name, value in zip(values, _literal(values.values()), strict=True)]


def _literal(words: Iterable[str]) -> list[str]:
    """Words that the kubelet must not expand: it reads `$(NAME)` as a variable and `$$` as one dollar sign."""
    return [word.replace("$", "$$") for word in words]


def _escaped(variables: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**v, "value": _literal([v["value"]])[0]} if "value" in v else v for v in variables]


def _mount(name: str, path: str, *, read_only: bool = False, sub_path: str | None = None) -> dict[str, Any]:
    mount: dict[str, Any] = {"name": name, "mountPath": path}
    if sub_path is not None:
        mount["subPath"] = sub_path
    if read_only:
        mount["readOnly"] = True
    return mount


def _worktree_mounts(task: RunTask, *, git_read_only: bool) -> list[dict[str, Any]]:
    """The same paths as in the runner: git's files name each other absolutely."""
    git, tree = protocol.git_dir(task.repository), protocol.tree_dir(task.repository, task.item)
    below = len(protocol.VOLUME) + 1
    return [
        _mount("workitem-worktree", git, read_only=git_read_only, sub_path=git[below:]),
        _mount("workitem-worktree", tree, sub_path=tree[below:]),
    ]


def _session_mounts(task: RunTask) -> list[dict[str, Any]]:
    """Claude Code's folder is the container's own, only its conversations are kept, those of this stage alone.

    The inner mount point is made by the kubelet, as root: in a folder of its own, or the CLI could not write beside it.
    """
    kept = protocol.sessions_dir(task.repository, task.item, task.stage)
    return [
        _mount("workitem-claude", f"{HOME}/.claude"),
        _mount("workitem-worktree", f"{HOME}/.claude/projects", sub_path=kept[len(protocol.VOLUME) + 1 :]),
    ]


def _worktree_volume(item: WorkItem, repository: Repository) -> dict[str, Any]:
    worktree = repository.spec.worktree
    if worktree.claim_name is not None:
        source: dict[str, Any] = {"persistentVolumeClaim": {"claimName": worktree.claim_name}}
    elif worktree.empty_dir is not None:
        source = {"emptyDir": worktree.empty_dir.model_dump(mode="json", by_alias=True, exclude_none=True)}
    else:
        source = {"persistentVolumeClaim": {"claimName": claim_name(item)}}
    return {"name": "workitem-worktree", **source}


def _agent_scratch() -> list[dict[str, Any]]:
    return [_mount("workitem-tmp", "/tmp"), _mount("workitem-home", HOME)]  # noqa: S108 - volumes of its own


def _scratch_volumes() -> list[dict[str, Any]]:
    return [{"name": "workitem-tmp", "emptyDir": {}}, {"name": "workitem-home", "emptyDir": {}}]


def _own_volumes(agent: Agent) -> list[Volume]:
    """Admission refuses our names in a Pipeline; the credentials do not depend on that alone."""
    return [volume for volume in agent.volumes or () if not volume.name.startswith("workitem-")]


def _own_mounts(agent: Agent) -> list[dict[str, Any]]:
    names = {volume.name for volume in _own_volumes(agent)}
    return [
        mount.model_dump(mode="json", by_alias=True, exclude_none=True)
        for mount in agent.volume_mounts or ()
        if mount.name in names
    ]


def _without(mounts: list[dict[str, Any]], others: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A path is mounted once: a Pipeline that brings its own /tmp gets it."""
    taken = {mount["mountPath"].rstrip("/") for mount in others}
    return [mount for mount in mounts if mount["mountPath"] not in taken]


def _token_volume() -> dict[str, Any]:
    """The service account's token for the agent alone, with what a client library looks for beside it."""
    sources = [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
    ]
    return {"name": "workitem-token", "projected": {"sources": sources}}
