"""Carrying out a plan: what must exist first, then the one guarded status write, then what it announced.

Every action may be repeated: creates are by deterministic name, deletes are of names that are never used again,
acknowledgements are set, not added. So a kill between any two of these calls loses nothing and doubles nothing.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from workitems import cluster, views
from workitems.api import API_VERSION, WorkItem, WorkItemStatus
from workitems.core import manifests
from workitems.core.facts import JobView
from workitems.core.plan import (
    Acknowledge,
    Action,
    CreateDecision,
    CreateJob,
    DeleteJob,
    EnsureClaim,
    EnsureSnapshot,
    ReleaseJobs,
)
from workitems.protocol import ITEM_LABEL


class Actor:
    """Writes to the API server."""

    def __init__(self, api: cluster.Cluster) -> None:
        """Take the connection."""
        self._api = api

    async def write_status(self, item: WorkItem, status: WorkItemStatus) -> WorkItem:
        """The step's one write; the item as it is now.

        Raises errors.Conflict if it is not what was looked at any more.
        """
        body = {
            "apiVersion": API_VERSION,
            "kind": "WorkItem",
            "metadata": {
                "name": item.metadata.name,
                "namespace": item.metadata.namespace,
                "resourceVersion": item.metadata.resource_version,
                "uid": item.metadata.uid,
            },
            "spec": item.spec.to_json(),
            "status": status.to_json(),
        }
        answer = await self._api.replace_status(cluster.WORKITEMS, body)
        version = answer["metadata"]["resourceVersion"]
        metadata = item.metadata.model_copy(update={"resource_version": version})
        return item.model_copy(update={"metadata": metadata, "status": status})

    async def perform(self, item: WorkItem, actions: tuple[Action, ...]) -> dict[str, JobView]:
        """Carry out actions in order; the Jobs that came into being. Raises errors.Transient, errors.Permanent."""
        created = {}
        for action in actions:
            if isinstance(action, CreateJob):
                name = action.manifest["metadata"]["name"]
                body = await self._api.create(cluster.JOBS, item.metadata.namespace, action.manifest)
                if body is not None:
                    created[name] = views.job(name, body, [])
            else:
                await self._perform(item, action)
        return created

    async def _perform(self, item: WorkItem, action: Action) -> None:
        namespace = item.metadata.namespace
        match action:
            case EnsureSnapshot(manifest):
                await self._api.create(cluster.CONTROLLER_REVISIONS, namespace, manifest)
            case EnsureClaim(manifest):
                await self._api.create(cluster.PERSISTENT_VOLUME_CLAIMS, namespace, manifest)
            case CreateDecision(manifest):
                await self._api.create(cluster.DECISIONS, namespace, manifest)
            case DeleteJob(name):
                await self._api.delete(cluster.JOBS, namespace, name)
            case ReleaseJobs(ttl_seconds):
                await self._release_jobs(item, ttl_seconds)
            case Acknowledge():
                await self.acknowledge(namespace, action, item)

    async def _release_jobs(self, item: WorkItem, ttl_seconds: int) -> None:
        """Let the Jobs and their logs go, so long after the item's end: a Job's TTL counts from its own.

        Not before the end: a Job that a TTL takes too early becomes a second run.
        """
        namespace = item.metadata.namespace
        selector = f"{ITEM_LABEL}={item.metadata.name}"
        async for job in self._api.list(cluster.JOBS, namespace, label_selector=selector):
            owners = job["metadata"].get("ownerReferences") or ()
            if any(owner["uid"] == item.metadata.uid for owner in owners):
                ended, over = views.job_ended(job), item.status.finished_at
                before = over - ended if over is not None and ended is not None else timedelta()
                seconds = ttl_seconds + max(int(before.total_seconds()), 0)
                patch = {"spec": {"ttlSecondsAfterFinished": seconds}}
                await self._api.merge_patch(cluster.JOBS, namespace, job["metadata"]["name"], patch)

    async def acknowledge(self, namespace: str, action: Acknowledge, item: WorkItem | None = None) -> None:
        """Tell a Decision what became of it; with an item, hand it over for garbage collection first."""
        # With its uid: a Decision that was deleted and said again under the same name is another one.
        metadata: dict[str, Any] = {"uid": action.uid}
        if item is not None:
            references = [{**manifests.owner(item), "controller": False}]
            patch = {"metadata": {**metadata, "ownerReferences": references}}
            await self._api.merge_patch(cluster.DECISIONS, namespace, action.name, patch)
        patch = {"metadata": metadata, "status": action.status.to_json()}
        await self._api.merge_patch(cluster.DECISIONS, namespace, action.name, patch, subresource="status")
