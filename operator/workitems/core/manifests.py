"""What the operator creates: Jobs, worktree volumes, Pipeline snapshots, as plain dicts.

Everything here is a pure function of the item, its status and the manifests it names, so that the same announcement
always makes the same Job, and the tests can hold every field against a snapshot. The security floor is built in:
nothing that a Pipeline says can weaken it.
"""

from __future__ import annotations

import hashlib
from typing import Any

from workitems import protocol
from workitems.agents import claude_code
from workitems.api import (
    API_VERSION,
    Agent,
    CurrentRun,
    Gate,
    GateStatus,
    PipelineSpec,
    Repository,
    RunKind,
    RunTask,
    Stage,
    WorkItem,
    WorkItemStatus,
    duration,
)
from workitems.core import launch, pods, stages, volumes
from workitems.core.facts import Facts, PipelineView
from workitems.core.prompts import prompt

DEFAULT_TIMEOUT = "30m"
DEFAULT_TTL = 604_800
DEFAULT_COMMIT_PATHS = ("docs/",)
# What checkout and publish may take beside the agent's own time: a slow clone, a large commit.
HEADROOM_SECONDS = 1200
TASK_LIMIT = 240 * 1024
"""Kubernetes allows 256 KiB of annotations; others (network plugins, admission) write some too."""
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"


def _hash(*parts: object) -> str:
    return hashlib.sha256("\0".join(str(part) for part in parts).encode()).hexdigest()[:10]


def _job_name(item: str, middle: str, digest: str) -> str:
    return f"{f'{item}-{middle}'[:52].rstrip('-')}-{digest}"


def run_job_name(item: WorkItem, stage: str, attempt: int, number: int) -> str:
    """Name of a run's Job: readable, at most 63 characters, unique by the item's uid and the run's number."""
    return _job_name(item.metadata.name, f"{stage}-{attempt}", _hash(item.metadata.uid, number))


def gate_job_name(item: WorkItem, gate: GateStatus, tries: int, last_run: int) -> str:
    """Name of a command gate's Job: another one for every try at every head."""
    digest = _hash(item.metadata.uid, "gate", gate.stage, gate.name, last_run, tries)
    return _job_name(item.metadata.name, f"{gate.stage}-{gate.name}", digest)


def owner(item: WorkItem) -> dict[str, Any]:
    """The ownerReference that lets the garbage collector clean up after an item, with the operator away."""
    return {
        "apiVersion": API_VERSION,
        "kind": "WorkItem",
        "name": item.metadata.name,
        "uid": item.metadata.uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }


def _metadata(item: WorkItem, name: str, labels: dict[str, str]) -> dict[str, Any]:
    return {
        "name": name,
        "namespace": item.metadata.namespace,
        "labels": {
            "app.kubernetes.io/managed-by": "workitem-operator",
            protocol.ITEM_LABEL: item.metadata.name,
            **labels,
        },
        "ownerReferences": [owner(item)],
    }


def snapshot(item: WorkItem, pipeline: PipelineView) -> dict[str, Any]:
    """The Pipeline as it is now, as an immutable ControllerRevision of the item."""
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": _metadata(item, pipeline.revision, {}),
        "revision": pipeline.generation,
        "data": pipeline.spec.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_unset=True),
    }


def snapshot_name(item: WorkItem, digest: str) -> str:
    """Name of the snapshot: another one for another content, so that it can be made before it is recorded."""
    return f"{item.metadata.name[:40].rstrip('-')}-pipeline-{_hash(item.metadata.uid, digest)}"


def claim(item: WorkItem, repository: Repository) -> dict[str, Any] | None:
    """The item's own worktree volume; None where the Repository has another way."""
    template = repository.spec.worktree.volume_claim_template
    if template is None:
        return None
    spec = template.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": _metadata(item, volumes.claim_name(item), {}),
        "spec": spec,
    }


def _labels(run: str, stage: str, agent: str) -> dict[str, str]:
    return {protocol.STAGE_LABEL: stage, protocol.RUN_LABEL: run, protocol.AGENT_LABEL: agent}


def _common(facts: Facts, status: WorkItemStatus) -> dict[str, Any]:
    """What every runner must know, whatever it is for."""
    item, repository = facts.item, _repository(facts)
    paths = stages.Paths(_spec(facts), item)
    return {
        "item": item.metadata.name,
        "uid": item.metadata.uid,
        "repository": repository.metadata.name,
        "url": repository.spec.url,
        "branch": status.branch or stages.branch_of(item),
        "base_branch": status.base_branch or repository.spec.default_branch,
        "base_commit": status.base_commit,
        "expected_head": status.head,
        "adopt_branch": item.spec.adopt_branch,
        "commit": protocol.Author(name=repository.spec.commit.name, email=repository.spec.commit.email),
        "documents": paths.documents,
        "watch": paths.watched(),
    }


def run_task(facts: Facts, status: WorkItemStatus, run: CurrentRun) -> RunTask:
    """What the runner of this run must know."""
    item, spec = facts.item, _spec(facts)
    common = {
        **_common(facts, status),
        "run": run.number,
        "stage": run.stage,
        "attempt": run.attempt,
        "agent": run.agent,
    }
    if run.kind == "Look":
        return RunTask(kind=RunKind.LOOK, **common)
    paths = stages.Paths(spec, item)
    stage = next(s for s in spec.stages if s.name == run.stage)
    agent = stages.agent_of(spec, run.agent)
    how = launch.of(facts, status, run, agent)
    commit_paths = tuple(paths.root(p, run.stage) for p in agent.commit_paths or DEFAULT_COMMIT_PATHS)
    verdicts = tuple(paths.document(g.verdict.file, stage.name) for g in stage.gates if g.verdict)
    outcomes = paths.outcome_files(stage)
    return RunTask(
        kind=RunKind.AGENT,
        **common,
        commit_paths=commit_paths,
        prompt=prompt(item, status, run, paths.documents),
        include=status.rerun.files if status.rerun is not None else (),
        merge_base=status.rerun is not None and status.rerun.merge_base,
        remove=outcomes,
        system_prompt_file=paths.root(agent.system_prompt_file, run.stage) if agent.system_prompt_file else None,
        task_file=paths.root(agent.task_file, run.stage) if agent.task_file else None,
        verdicts=verdicts,
        # First what is there only if something is wrong, and is told word by word: the room is not for all.
        excerpts=(*(path for path in outcomes if path not in verdicts), *dict.fromkeys(verdicts)),
        agent_timeout_seconds=_timeout(agent),
        output=how.output,
        system_prompt=claude_code.system_prompt(paths.documents, commit_paths) if agent.claude_code else "",
        instruction_files=how.instruction_files,
    )


def task_bytes(facts: Facts, status: WorkItemStatus, run: CurrentRun) -> int:
    """What the run's task takes of its pod's annotations."""
    return len(pods.as_json(run_task(facts, status, run)).encode())


def run_job(facts: Facts, status: WorkItemStatus, run: CurrentRun) -> dict[str, Any]:
    """The Job of one agent run, or of a look at the branch."""
    task = run_task(facts, status, run)
    labels = _labels(str(run.number), run.stage, run.agent)
    if run.kind == "Look":
        return _job(
            facts,
            run.job,
            labels,
            pods.look_pod(facts, _repository(facts), _stage_agent(facts, run.stage), task),
            HEADROOM_SECONDS,
        )
    agent = stages.agent_of(_spec(facts), run.agent)
    pod = pods.run_pod(facts, _repository(facts), agent, task, launch.of(facts, status, run, agent))
    return _job(facts, run.job, labels, pod, task.agent_timeout_seconds + protocol.PUSH_SECONDS + HEADROOM_SECONDS)


def _stage_agent(facts: Facts, stage: str) -> Agent:
    spec = _spec(facts)
    return stages.agent_of(spec, next(s.agent for s in spec.stages if s.name == stage))


def gate_job(facts: Facts, status: WorkItemStatus, stage: Stage, what: tuple[Gate, GateStatus]) -> dict[str, Any]:
    """The Job of one command gate: a fresh checkout of the head, then the command, without any secret."""
    gate, state = what
    if gate.command is None or state.job is None:
        raise AssertionError("only an announced command gate has a Job")
    timeout = int(duration(gate.command.timeout).total_seconds())
    task = RunTask(
        kind=RunKind.GATE,
        **_common(facts, status),
        run=status.last_run,
        stage=stage.name,
        attempt=state.attempt,
        agent=stage.agent,
        agent_timeout_seconds=timeout,
    )
    agent = stages.agent_of(_spec(facts), stage.agent)
    pod = pods.gate_pod(facts, _repository(facts), agent, task, gate.command)
    labels = {**_labels(str(status.last_run), stage.name, stage.agent), protocol.GATE_LABEL: gate.name}
    return _job(facts, state.job, labels, pod, timeout + HEADROOM_SECONDS)


def _job(facts: Facts, name: str, labels: dict[str, str], pod: pods.Pod, deadline: int) -> dict[str, Any]:
    item, spec = facts.item, _spec(facts)
    metadata = _metadata(item, name, labels)
    template = {"labels": dict(metadata["labels"]), "annotations": pod.annotations}
    if spec.queue_name is not None:
        # On the Job alone: a pod with it would be queued once more by Kueue's pod integration.
        metadata["labels"] = {**metadata["labels"], QUEUE_LABEL: spec.queue_name}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {
            # One pod, once: what happens after a failure is the operator's to decide, not the Job controller's.
            "backoffLimit": 0,
            "completions": 1,
            "parallelism": 1,
            "podReplacementPolicy": "Failed",
            "activeDeadlineSeconds": deadline,
            "template": {"metadata": template, "spec": pod.spec},
        },
    }


def _timeout(agent: Agent) -> int:
    return int(duration(agent.timeout or DEFAULT_TIMEOUT).total_seconds())


def _repository(facts: Facts) -> Repository:
    if facts.repository is None:
        raise AssertionError("a Job is only made for an item whose Repository was read")
    return facts.repository


def _spec(facts: Facts) -> PipelineSpec:
    if facts.pipeline is None:
        raise AssertionError("a Job is only made for an item whose Pipeline was read")
    return facts.pipeline.spec
