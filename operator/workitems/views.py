"""Kubernetes' own objects, reduced to what decisions depend on: JSON of Jobs and Pods in, frozen views out."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from workitems.core.facts import ContainerView, JobView, PodView

JSON = dict[str, Any]


def job(name: str, body: JSON | None, pods: list[JSON]) -> JobView:
    """A Job by its name, as GET and a list of its pods show it; `body` is None where there is no such Job."""
    if body is None:
        return JobView(name=name, pod=_telling(pods))
    metadata = body["metadata"]
    mine = [p for p in pods if any(r["uid"] == metadata["uid"] for r in p["metadata"].get("ownerReferences") or ())]
    conditions = (body.get("status") or {}).get("conditions") or ()
    true = {c["type"]: c.get("reason") or c["type"] for c in conditions if c["status"] == "True"}
    return JobView(
        name=name,
        uid=metadata["uid"],
        owner_uid=controller(metadata),
        failed=true.get("Failed") or true.get("FailureTarget", ""),
        complete="Complete" in true,
        pod=_telling(mine),
    )


def job_ended(body: JSON) -> datetime | None:
    """When a Job ended, as its TTL counts; None: it has not."""
    conditions = (body.get("status") or {}).get("conditions") or ()
    ends = (c for c in conditions if c["type"] in ("Complete", "Failed") and c["status"] == "True")
    return next((_time(c.get("lastTransitionTime")) for c in ends), None)


def pod(body: JSON) -> PodView:
    """One Pod."""
    metadata, status = body["metadata"], body.get("status") or {}
    conditions = {c["type"]: c for c in status.get("conditions") or ()}
    disrupted = conditions.get("DisruptionTarget", {})
    message = disrupted.get("message") or disrupted.get("reason") or "" if disrupted.get("status") == "True" else ""
    said = status.get("reason") or ""
    # A reason of the pod's own is the node's: no container's end makes one. OutOfcpu, Terminated (a node that shuts
    # down) and the like come without a condition.
    if not message and said and (status.get("phase") == "Failed" or said in ("Evicted", "NodeLost")):
        message = f"{said}: {status['message']}" if status.get("message") else said
    scheduled = conditions.get("PodScheduled", {})
    statuses = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    return PodView(
        name=metadata["name"],
        phase=status.get("phase") or "Pending",
        node=(body.get("spec") or {}).get("nodeName") or "",
        created=_time(metadata.get("creationTimestamp")),
        scheduled=_time(scheduled.get("lastTransitionTime")) if scheduled.get("status") == "True" else None,
        deleted=_deletion_asked(metadata),
        # The kubelet ends its sentence with a stop and a space; ours goes on.
        disrupted=message.rstrip(". "),
        unschedulable=(scheduled.get("message") or "unschedulable") if scheduled.get("status") == "False" else "",
        containers={entry["name"]: container(entry.get("state") or {}) for entry in statuses},
    )


def controller(metadata: JSON) -> str:
    """The uid of what an object belongs to; empty if that is nothing."""
    return next((owner["uid"] for owner in metadata.get("ownerReferences") or () if owner.get("controller")), "")


def container(state: JSON) -> ContainerView:
    """One container's state."""
    if "terminated" in state:
        ended = state["terminated"]
        return ContainerView(
            exit_code=ended.get("exitCode", 0),
            reason=ended.get("reason") or "",
            message=ended.get("message") or "",
            finished_at=_time(ended.get("finishedAt")),
        )
    if "running" in state:
        return ContainerView(running=True)
    waiting = state.get("waiting") or {}
    return ContainerView(reason=waiting.get("reason") or "", message=waiting.get("message") or "")


def _telling(pods: list[JSON]) -> PodView | None:
    """One that may still run, else the newest: a Job has a second pod at times, and takes one of the two back."""
    views = [(str(body["metadata"].get("creationTimestamp") or ""), pod(body)) for body in pods]
    return max(views, key=lambda view: (not view[1].terminal, view[0]), default=("", None))[1]


def _deletion_asked(metadata: JSON) -> datetime | None:
    """The API server's time is the end of the grace period, but never a past one: ended early, it ends now."""
    end = _time(metadata.get("deletionTimestamp"))
    return None if end is None else end - timedelta(seconds=metadata.get("deletionGracePeriodSeconds") or 0)


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
