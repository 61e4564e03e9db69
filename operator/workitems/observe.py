"""One look at one WorkItem: everything that a decision may depend on, by live reads.

Remembered is what can never change, a Pipeline's snapshot, which is named by its content, and what an event would have
told of (memory.py). A reference that is
missing, or that the operator may not read, becomes a Problem in the facts, because that is something to tell a person,
and because what people say to the item is heard all the same; an API server that does not answer raises.
"""

from __future__ import annotations

import collections
import hashlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime

import structlog
from pydantic import ValidationError

from workitems import cluster, errors, unreadable, views
from workitems.api import Decision, GateResult, Phase, Pipeline, PipelineSpec, Repository, WorkItem
from workitems.core import begin, conditions, launch, manifests, stages
from workitems.core.facts import Defaults, Facts, JobView, Misread, PipelineView, Problem
from workitems.memory import Memory

log = structlog.get_logger(__name__)

_SNAPSHOTS_KEPT = 512


class Observer:
    """Reads facts from the API server."""

    def __init__(
        self,
        api: cluster.Cluster,
        namespaces: tuple[str, tuple[str, ...]],
        defaults: Defaults,
        clock: Callable[[], datetime],
        memory: Memory,
    ) -> None:
        """Take the connection, the operator's own namespace and the served ones (none: all), and what to go by."""
        self._api = api
        self._memory = memory
        self._namespace, self._served = namespaces
        self._defaults = defaults
        self._clock = clock
        self._snapshots: collections.OrderedDict[tuple[str, str], PipelineSpec] = collections.OrderedDict()

    def now(self) -> datetime:
        """The time of day of all facts."""
        return self._clock()

    async def look(self, namespace: str, name: str) -> Facts | None:
        """The facts about one item; None if there is no such item. Raises errors.Transient, errors.Permanent."""
        key = f"{namespace}/{name}"
        body = await self._api.get(cluster.WORKITEMS, namespace, name)
        if body is None:
            self._memory.forget(key)
            return None
        item = _item(body)
        facts = Facts(now=self._clock(), item=item, defaults=self._defaults)
        if item.metadata.deletion_timestamp is not None:
            return facts
        decisions, misread = await self._decisions(key, namespace, name)
        facts = replace(facts, decisions=decisions, misread=misread)
        facts = await self._noting(self._with_pipeline, facts)
        if item.status.phase in conditions.FINISHED:
            self._memory.forget(key)
            # Nothing more is decided about it, so a reference that is gone by now is nobody's problem.
            return replace(facts, problem=None)
        facts = await self._noting(self._with_repository, facts)
        facts = await self._with_jobs(facts, key)
        if facts.problem is None and item.status.run is None:
            facts = await self._noting(self._with_what_a_run_needs, facts)
        # The reads took time; the decision is about now.
        return replace(facts, now=self._clock())

    async def with_branch(self, facts: Facts) -> Facts:
        """The same facts, and whether the branch of an item that is to start belongs to another. Raises as `look`."""
        facts = await self._noting(self._branch_in_use, facts)
        return replace(facts, now=self._clock())

    def forget(self, key: str) -> None:
        """The item is over: what was remembered for its next look is of no use."""
        self._memory.forget(key)

    async def item(self, key: str) -> WorkItem | None:
        """One item alone, by `namespace/name`. Raises as `look` does."""
        namespace, name = key.split("/", 1)
        body = await self._api.get(cluster.WORKITEMS, namespace, name)
        return _item(body) if body is not None else None

    async def claimant(self, body: cluster.JSONObject) -> Facts | None:
        """What a claim on concurrent runs depends on, for a listed item that has one or waits for it.

        Raises as `look` does.
        """
        item = _item(body)
        if not begin.occupies(item.status) and item.status.phase is not Phase.QUEUED:
            return None
        facts = Facts(now=self._clock(), item=item, defaults=self._defaults)
        return await self._with_repository(await self._with_pipeline(facts))

    async def _decisions(self, key: str, namespace: str, name: str) -> tuple[tuple[Decision, ...], tuple[Misread, ...]]:
        if self._memory.has_no_decisions(key):
            return (), ()
        found: tuple[Decision, ...] | None = None
        self._memory.reading_decisions(key)
        try:
            found, misread = await self.pending_decisions(namespace, name)
        finally:
            if found != ():
                self._memory.may_have_decisions(key)
        return found, misread

    async def pending_decisions(self, namespace: str, item: str) -> tuple[tuple[Decision, ...], tuple[Misread, ...]]:
        """Decisions about `item` that have not been acknowledged, and apart from them those that make no sense."""
        found: list[Decision] = []
        misread: list[Misread] = []
        selector = f"spec.workItem={item}"
        async for body in self._api.list(cluster.DECISIONS, namespace, field_selector=selector):
            try:
                decision = Decision.parse(body)
            except ValidationError as error:
                # Nobody can carry it out, and it must not stop the item.
                message = unreadable.decision_message(body, error)
                log.error("unreadable", decision=f"{namespace}/{body['metadata']['name']}", error=message)  # noqa: TRY400
                misread.append(Misread(unreadable.meta(body), message))
                continue
            if decision.status.result is None:
                found.append(decision)
        return tuple(found), tuple(misread)

    async def _noting(self, read: Callable[[Facts], Awaitable[Facts]], facts: Facts) -> Facts:
        """The facts after `read`; that the operator may not read something is a Problem in them."""
        try:
            return await read(facts)
        except errors.Permanent as error:
            if error.reason != "Forbidden":
                # About the operator or the API server, and no matter of this item.
                raise
            return replace(facts, problem=facts.problem or Problem(error.reason, str(error), blocked=True))

    async def _with_pipeline(self, facts: Facts) -> Facts:
        item = facts.item
        snapshot = item.status.pipeline
        if snapshot is None:
            return await self._with_live_pipeline(facts)
        key = (item.metadata.namespace, snapshot.revision)
        spec = self._snapshots.get(key)
        if spec is None:
            body = await self._api.get(cluster.CONTROLLER_REVISIONS, *key)
            if body is None:
                message = (
                    f"ControllerRevision {snapshot.revision}, the item's copy of its Pipeline, was deleted: "
                    "restore it, or create the WorkItem anew"
                )
                return replace(facts, problem=Problem("SnapshotMissing", message, blocked=True))
            if _digest(body["data"]) != snapshot.digest:
                message = (
                    f"ControllerRevision {snapshot.revision} is not the copy of the Pipeline with which the item "
                    f"started (status.pipeline.digest: {snapshot.digest}): somebody has replaced it; restore it, or "
                    "create the WorkItem anew"
                )
                return replace(facts, problem=Problem("SnapshotChanged", message, blocked=True))
            try:
                spec = PipelineSpec.model_validate(body["data"])
            except ValidationError as error:
                problem = _unreadable("Snapshot", f"ControllerRevision {key[0]}/{key[1]}", error)
                return replace(facts, problem=problem)
            self._snapshots[key] = spec
            if len(self._snapshots) > _SNAPSHOTS_KEPT:
                self._snapshots.popitem(last=False)
        view = PipelineView(
            name=snapshot.name,
            namespace=snapshot.namespace or item.metadata.namespace,
            generation=snapshot.generation,
            digest=snapshot.digest,
            revision=snapshot.revision,
            spec=spec,
        )
        return replace(facts, pipeline=view)

    async def _with_live_pipeline(self, facts: Facts) -> Facts:
        item = facts.item
        name, own = item.spec.pipeline, item.metadata.namespace
        body = await self._api.get(cluster.PIPELINES, own, name)
        if body is None and self._namespace != own:
            body = await self._api.get(cluster.PIPELINES, self._namespace, name)
        if body is None:
            where = f"namespace {own}" if self._namespace == own else f"namespaces {own} and {self._namespace}"
            message = f"there is no Pipeline {name} in {where}: apply it, or name another one in spec.pipeline"
            return replace(facts, problem=Problem("PipelineNotFound", message))
        try:
            pipeline = Pipeline.parse(body)
        except ValidationError as error:
            return replace(facts, problem=_unreadable("Pipeline", f"Pipeline {name}", error))
        data = pipeline.spec.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_unset=True)
        digest = _digest(data)
        view = PipelineView(
            name=name,
            namespace=pipeline.metadata.namespace,
            generation=pipeline.metadata.generation,
            digest=digest,
            revision=manifests.snapshot_name(item, digest),
            spec=pipeline.spec,
        )
        return replace(facts, pipeline=view)

    async def _with_repository(self, facts: Facts) -> Facts:
        namespace, name = facts.item.metadata.namespace, facts.item.spec.repository
        known, news = self._memory.repository(namespace, name), self._memory.repository_news
        if known is not None:
            return replace(facts, repository=known)
        body = await self._api.get(cluster.REPOSITORIES, namespace, name)
        if body is not None:
            try:
                repository = Repository.parse(body)
            except ValidationError as error:
                problem = _unreadable("Repository", f"Repository {name}", error)
                return replace(facts, problem=facts.problem or problem)
            self._memory.repository_read(repository, news)
            return replace(facts, repository=repository)
        message = f"there is no Repository {name} in namespace {namespace}: apply it; the item goes on by itself"
        return replace(facts, problem=facts.problem or Problem("RepositoryNotFound", message))

    async def _with_jobs(self, facts: Facts, key: str) -> Facts:
        run = facts.item.status.run
        if run is None:
            self._memory.no_run(key)
            gates = facts.item.status.gates
            names = [gate.job for gate in gates if gate.job is not None and gate.result is GateResult.PENDING]
            return replace(facts, gate_jobs={name: await self._job(facts.item, name) for name in names})
        ended = self._memory.ended_pod(key, run.job_uid)
        if run.job_uid is not None and ended is not None and ended.succeeded:
            # It ends its Job, whose controller says so seconds later, and nothing of it can change any more.
            job = JobView(name=run.job, uid=run.job_uid, owner_uid=facts.item.metadata.uid, pod=ended)
            return replace(facts, run_job=job)
        job = await self._job(facts.item, run.job)
        if job.pod is None and job.exists:
            job = replace(job, pod=self._memory.ended_pod(key, job.uid))
        return replace(facts, run_job=job)

    async def _job(self, item: WorkItem, name: str) -> JobView:
        namespace = item.metadata.namespace
        body = await self._api.get(cluster.JOBS, namespace, name)
        selector = f"batch.kubernetes.io/job-name={name}"
        pods = [pod async for pod in self._api.list(cluster.PODS, namespace, label_selector=selector)]
        return views.job(name, body, pods)

    async def _with_what_a_run_needs(self, facts: Facts) -> Facts:
        problem = await self._missing_secret(facts) or await self._missing_model_key(facts)
        return replace(facts, problem=problem)

    async def _missing_secret(self, facts: Facts) -> Problem | None:
        """A pod that waits for a Secret hangs without a word in its status: look before it is made."""
        if facts.repository is None or facts.repository.spec.credentials is None:
            return None
        namespace, name = facts.item.metadata.namespace, facts.repository.spec.credentials.secret_name
        if await self._api.get(cluster.SECRETS, namespace, name) is not None:
            return None
        repository = facts.repository.metadata.name
        message = f"Secret {name} of Repository {repository} does not exist in namespace {namespace}: create it"
        return Problem("SecretNotFound", message)

    async def _missing_model_key(self, facts: Facts) -> Problem | None:
        """The same for the keys of models. Only the names of a Secret's keys are looked at."""
        if facts.pipeline is None:
            return None
        namespace = facts.item.metadata.namespace
        for name, (key, agent) in launch.secrets(facts.defaults, facts.pipeline.spec).items():
            body = await self._api.get(cluster.SECRETS, namespace, name)
            where = f"Secret {name} with the model credentials of agent {agent}"
            if body is None:
                message = (
                    f"{where} does not exist in namespace {namespace}: kubectl -n {namespace} create secret generic "
                    f"{name} --from-literal={key}=KEY"
                )
                return Problem("SecretNotFound", message)
            if key not in (body.get("data") or {}):
                message = f"{where} in namespace {namespace} has no key {key}: add it"
                return Problem("SecretKeyNotFound", message)
        return None

    async def _branch_in_use(self, facts: Facts) -> Facts:
        """The oldest unfinished item owns a branch; asked once, at the start."""
        item, repository = facts.item, facts.repository
        if repository is None:
            return facts
        branch = stages.branch_of(item)
        selector = f"status.branch={cluster.escaped(branch)},{cluster.UNFINISHED}"
        for scope in self._served or (None,):
            async for other in self._api.list(cluster.WORKITEMS, scope, field_selector=selector):
                # Not parsed: an item that cannot be read owns its branch all the same.
                meta = other["metadata"]
                if meta["uid"] == item.metadata.uid or not await self._same_url(other, repository):
                    continue
                message = (
                    f"branch {branch} of {repository.spec.url} belongs to WorkItem {meta['namespace']}/{meta['name']} "
                    "until that is over; this item goes on by itself then"
                )
                return replace(facts, problem=Problem("BranchInUse", message, blocked=True))
        return facts

    async def _same_url(self, other: cluster.JSONObject, repository: Repository) -> bool:
        namespace, name = other["metadata"]["namespace"], other["spec"]["repository"]
        if (namespace, name) == (repository.metadata.namespace, repository.metadata.name):
            return True
        body = await self._api.get(cluster.REPOSITORIES, namespace, name)
        return body is not None and body["spec"].get("url") == repository.spec.url


def _item(body: cluster.JSONObject) -> WorkItem:
    try:
        return WorkItem.parse(body)
    except ValidationError as error:
        raise unreadable.ItemUnreadableError(body, error) from error


def _digest(spec: cluster.JSONObject) -> str:
    return f"sha256:{hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()}"


def _unreadable(kind: str, what: str, error: ValidationError) -> Problem:
    """An object that an older schema let through: the item waits until somebody has mended it."""
    return Problem(f"{kind}Unreadable", f"{what} cannot be used: {unreadable.fields(error, 5)}", blocked=True)
