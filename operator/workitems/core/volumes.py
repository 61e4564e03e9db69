"""What the pods of runs and gates have on which volume, and where each of their containers finds it.

The runner alone sees the credentials; git's own directory is read-only for the agent, and the exchange is only the
runner's to write. The names `workitem-…` are the operator's: a Pipeline's own volumes come beside them.
"""

from __future__ import annotations

import hashlib
from typing import Any

from workitems import protocol
from workitems.api import Agent, Repository, RunTask, WorkItem
from workitems.api.container import Volume

HOME = "/home/agent"
TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - a path, no password


def claim_name(item: WorkItem) -> str:
    """Name of an item's own volume: another one for another item of the same name."""
    digest = hashlib.sha256(item.metadata.uid.encode()).hexdigest()[:10]
    return f"{item.metadata.name[:43].rstrip('-')}-worktree-{digest}"


# --- volumes


def of_run(item: WorkItem, repository: Repository, agent: Agent, *, sessions: bool) -> list[dict[str, Any]]:
    """The volumes of a run's pod; `sessions`: with a place for conversations that are kept."""
    return [
        *_of_runner(repository),
        _worktree(item, repository),
        *_scratch(),
        *([{"name": "workitem-claude", "emptyDir": {}}] if sessions else ()),
        *(volume.model_dump(mode="json", by_alias=True, exclude_none=True) for volume in _own(agent)),
        *([_token()] if agent.service_account_name is not None else ()),
    ]


def of_look(repository: Repository) -> list[dict[str, Any]]:
    """The volumes of a pod that only looks at the branch."""
    return [*_of_runner(repository), {"name": "workitem-worktree", "emptyDir": {}}]


def of_gate(repository: Repository) -> list[dict[str, Any]]:
    """The volumes of a command gate's pod."""
    return [*of_look(repository), *_scratch()]


def _of_runner(repository: Repository) -> list[dict[str, Any]]:
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
    volumes.append({"name": "workitem-exchange", "emptyDir": {"sizeLimit": "16Mi"}})
    return volumes


def _worktree(item: WorkItem, repository: Repository) -> dict[str, Any]:
    worktree = repository.spec.worktree
    if worktree.claim_name is not None:
        source: dict[str, Any] = {"persistentVolumeClaim": {"claimName": worktree.claim_name}}
    elif worktree.empty_dir is not None:
        source = {"emptyDir": worktree.empty_dir.model_dump(mode="json", by_alias=True, exclude_none=True)}
    else:
        source = {"persistentVolumeClaim": {"claimName": claim_name(item)}}
    return {"name": "workitem-worktree", **source}


def _scratch() -> list[dict[str, Any]]:
    return [{"name": "workitem-tmp", "emptyDir": {}}, {"name": "workitem-home", "emptyDir": {}}]


def _token() -> dict[str, Any]:
    """The service account's token for the agent alone, with what a client library looks for beside it."""
    sources = [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
    ]
    return {"name": "workitem-token", "projected": {"sources": sources}}


def _own(agent: Agent) -> list[Volume]:
    """Admission refuses our names in a Pipeline; the credentials do not depend on that alone."""
    return [volume for volume in agent.volumes or () if not volume.name.startswith("workitem-")]


# --- mounts


def runner_mounts(repository: Repository) -> list[dict[str, Any]]:
    """What the runner finds where, the credentials among it."""
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
    return mounts


def agent_mounts(task: RunTask, agent: Agent, *, sessions: bool) -> list[dict[str, Any]]:
    """What the agent finds where; `sessions`: its conversations too."""
    return [
        _mount("workitem-exchange", protocol.EXCHANGE, read_only=True),
        *_worktree_mounts(task),
        *_without(_scratch_mounts(), _own_mounts(agent)),
        *(_session_mounts(task) if sessions else ()),
        *_own_mounts(agent),
        *([_mount("workitem-token", TOKEN_PATH, read_only=True)] if agent.service_account_name is not None else ()),
    ]


def gate_mounts(task: RunTask) -> list[dict[str, Any]]:
    """What a gate's command finds where."""
    return [*_worktree_mounts(task), *_scratch_mounts()]


def _mount(name: str, path: str, *, read_only: bool = False, sub_path: str | None = None) -> dict[str, Any]:
    mount: dict[str, Any] = {"name": name, "mountPath": path}
    if sub_path is not None:
        mount["subPath"] = sub_path
    if read_only:
        mount["readOnly"] = True
    return mount


def _worktree_mounts(task: RunTask) -> list[dict[str, Any]]:
    """The same paths as in the runner: git's files name each other absolutely."""
    git, tree = protocol.git_dir(task.repository), protocol.tree_dir(task.repository, task.item)
    below = len(protocol.VOLUME) + 1
    return [
        _mount("workitem-worktree", git, read_only=True, sub_path=git[below:]),
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


def _scratch_mounts() -> list[dict[str, Any]]:
    return [_mount("workitem-tmp", "/tmp"), _mount("workitem-home", HOME)]  # noqa: S108 - volumes of its own


def _own_mounts(agent: Agent) -> list[dict[str, Any]]:
    names = {volume.name for volume in _own(agent)}
    return [
        mount.model_dump(mode="json", by_alias=True, exclude_none=True)
        for mount in agent.volume_mounts or ()
        if mount.name in names
    ]


def _without(mounts: list[dict[str, Any]], others: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A path is mounted once: a Pipeline that brings its own /tmp gets it."""
    taken = {mount["mountPath"].rstrip("/") for mount in others}
    return [mount for mount in mounts if mount["mountPath"] not in taken]
