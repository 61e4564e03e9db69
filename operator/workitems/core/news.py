"""Whether an event about a Job or a pod is worth a look at its item: what decisions could see in it, and nothing else.

A pod that starts as pods do says nothing new a dozen times. Two events of an object with the same news are one.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from workitems.core.facts import JobView, PodView

USUAL_REASONS = frozenset({"", "ContainerCreating", "PodInitializing"})
USUAL_START = timedelta(seconds=30)
"""Later than this somebody may have been told that the pod does not start: its start is news then."""

NONE = ""
"""All is as it should be with something that is under way."""


def of_pod(pod: PodView, now: datetime) -> str:
    """The news in a pod, as words that are the same where nothing has changed."""
    unusual = [
        f"{name} {container.reason} {container.exit_code}"
        for name, container in sorted(pod.containers.items())
        if container.exit_code or (not container.terminated and container.reason not in USUAL_REASONS)
    ]
    if pod.terminal or pod.deleted is not None or pod.disrupted or pod.unschedulable or unusual:
        # Its containers end before its phase says so, and that is one end.
        phase = "over" if pod.terminal else pod.phase
        return f"{phase} {pod.deleted} {pod.disrupted} {pod.unschedulable} {unusual}"
    late = pod.created is not None and now - pod.created > USUAL_START
    return f"{pod.phase} late" if late else NONE


def of_job(job: JobView, deleted: bool) -> str:  # noqa: FBT001 - a fact, no option
    """The news in a Job."""
    return f"{job.failed} {deleted}" if job.failed or deleted else NONE
