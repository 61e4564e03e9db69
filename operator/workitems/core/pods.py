"""The pods of runs and gates: two containers that trust each other as little as they must.

The runner holds the git credentials and publishes; the agent holds the model's credentials and works. They share the
worktree (git's own directory read-only for the agent) and a small exchange that only the runner can write. Every
container is non-root, with a read-only root, without capabilities, and no pod has a service-account token except
where an agent names a service account: then its token is in that container alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from workitems import protocol
from workitems.agents import entry
from workitems.api import Agent, CommandGate, Repository, RunTask
from workitems.core import launch, resources, volumes
from workitems.core.facts import Defaults, Facts
from workitems.core.launch import Launch


@dataclass(frozen=True)
class Pod:
    """A pod template's spec and annotations."""

    spec: dict[str, Any]
    annotations: dict[str, str]


def run_pod(facts: Facts, repository: Repository, agent: Agent, task: RunTask, how: Launch) -> Pod:
    """Runner and agent side by side: two containers that start together cost one second, in a row three."""
    command = entry.argv(_literal(how.command), task.agent_timeout_seconds)
    mounts = volumes.agent_mounts(task, agent, sessions=how.sessions)
    worker = _agent_container(facts, agent, task, (command, mounts))
    worker["env"] = [*_escaped(how.before), *worker["env"], *_escaped(how.after)]
    spec = _pod_spec(facts.defaults, agent)
    spec["containers"] = [_runner(facts.defaults, repository, "agent"), worker]
    spec["volumes"] = volumes.of_run(facts.item, repository, agent, sessions=how.sessions)
    return Pod(spec, {protocol.TASK_ANNOTATION: as_json(task)})


def look_pod(facts: Facts, repository: Repository, agent: Agent, task: RunTask) -> Pod:
    """The runner alone, on a volume of its own: nothing is changed, so nothing has to be kept."""
    spec = _pod_spec(facts.defaults, _placement(agent))
    spec["containers"] = [_runner(facts.defaults, repository, "look")]
    spec["volumes"] = volumes.of_look(repository)
    return Pod(spec, {protocol.TASK_ANNOTATION: as_json(task)})


def gate_pod(facts: Facts, repository: Repository, agent: Agent, task: RunTask, gate: CommandGate) -> Pod:
    """The checkout first, with the credentials; then the command, with none, on a volume of its own."""
    command = entry.gate_argv(_literal(gate.run), task.agent_timeout_seconds)
    image = gate.image or launch.image_of(facts.defaults, agent)
    plain = Agent(image=image, resources=gate.resources or agent.resources)
    worker = _agent_container(facts, plain, task, (command, volumes.gate_mounts(task)))
    spec = _pod_spec(facts.defaults, _placement(agent))
    spec["initContainers"] = [_runner(facts.defaults, repository, "gate")]
    spec["containers"] = [worker]
    spec["volumes"] = volumes.of_gate(repository)
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
    return {
        "name": protocol.RUNNER_CONTAINER,
        "image": defaults.runner_image,
        "imagePullPolicy": defaults.image_pull_policy,
        "args": ["runner", kind],
        "env": [{"name": "HOME", "value": "/tmp"}],  # noqa: S108 - a volume of its own
        "resources": resources.of_runner(defaults.runner_memory),
        "securityContext": _container_security(),
        "volumeMounts": volumes.runner_mounts(repository),
    }


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
        "HOME": volumes.HOME,
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_AUTHOR_NAME": who.name,
        "GIT_AUTHOR_EMAIL": who.email,
        "GIT_COMMITTER_NAME": who.name,
        "GIT_COMMITTER_EMAIL": who.email,
        # The volume's folders may belong to root (the kubelet made them): git must not refuse to read them.
        "GIT_CONFIG_COUNT": "3",
        "GIT_CONFIG_KEY_0": "safe.directory",
        "GIT_CONFIG_VALUE_0": "*",
        # For who asks git's configuration, not the variables, and would write the answer into it: aider.
        "GIT_CONFIG_KEY_1": "user.name",
        "GIT_CONFIG_VALUE_1": who.name,
        "GIT_CONFIG_KEY_2": "user.email",
        "GIT_CONFIG_VALUE_2": who.email,
    }
    return [{"name": name, "value": value} for name, value in zip(values, _literal(values.values()), strict=True)]


def _literal(words: Iterable[str]) -> list[str]:
    """Words that the kubelet must not expand: it reads `$(NAME)` as a variable and `$$` as one dollar sign."""
    return [word.replace("$", "$$") for word in words]


def _escaped(variables: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**v, "value": _literal([v["value"]])[0]} if "value" in v else v for v in variables]
