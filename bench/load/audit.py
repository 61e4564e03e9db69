"""What really happened, by the API server's own clock: its audit log, read between two moments."""

from __future__ import annotations

import collections
import json
import re
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

WRITES = frozenset({"create", "update", "patch", "delete"})
_POD = re.compile(r"-[a-z0-9]{5}$")
JOB_NAME = re.compile(r"^(?P<item>.+)-stage-(?P<stage>\d+)-\d+-[0-9a-f]{10}$")


@dataclass
class Story:
    """One part of the log."""

    requests: collections.Counter[tuple[str, str]] = field(default_factory=collections.Counter)
    """The operator's, by verb and resource."""
    created: dict[str, dict[int, float]] = field(default_factory=dict)
    """When the Job of an item's stage was asked for: item -> stage -> seconds."""
    ended: dict[str, dict[int, float]] = field(default_factory=dict)
    """When its pod's end had been recorded."""

    @property
    def writes(self) -> int:
        """The operator's writes."""
        return sum(count for (verb, _), count in self.requests.items() if verb in WRITES)

    @property
    def reads(self) -> int:
        """The operator's GETs and lists."""
        return sum(count for (verb, _), count in self.requests.items() if verb in ("get", "list"))

    @property
    def latencies(self) -> list[float]:
        """Seconds from a pod's end to the creation of the item's next Job, in the order of the ends."""
        pairs = []
        for item, ends in self.ended.items():
            for stage, end in ends.items():
                following = self.created.get(item, {}).get(stage + 1)
                if following is not None:
                    pairs.append((end, following - end))
        return [latency for _, latency in sorted(pairs)]


def position(log: Path) -> int:
    """Where the log ends now."""
    return log.stat().st_size if log.exists() else 0


def read(log: Path, since: int) -> Story:
    """The log from a position on."""
    story = Story()
    last_patch: dict[str, float] = {}
    with log.open("rb") as file:
        file.seek(since)
        for line in file:
            if line.endswith(b"\n"):
                _add(story, json.loads(line), last_patch)
    for pod, moment in last_patch.items():
        found = JOB_NAME.match(_POD.sub("", pod))
        if found:
            story.ended.setdefault(found["item"], {})[int(found["stage"])] = moment
    return story


def _add(story: Story, event: dict[str, object], last_patch: dict[str, float]) -> None:
    reference, user = event.get("objectRef"), event["user"]
    if event["stage"] != "ResponseComplete" or not isinstance(reference, dict) or not isinstance(user, dict):
        return
    resource = "/".join(part for part in (reference.get("resource"), reference.get("subresource")) if part)
    name = reference.get("name") or ""
    if resource == "pods/status":
        # The last write of a pod's status is its end.
        last_patch[name] = _seconds(event["stageTimestamp"])
        return
    story.requests[str(event["verb"]), resource] += 1
    if (event["verb"], resource) == ("create", "jobs"):
        found = JOB_NAME.match(name)
        if found:
            moment = _seconds(event["requestReceivedTimestamp"])
            story.created.setdefault(found["item"], {}).setdefault(int(found["stage"]), moment)


def _seconds(text: object) -> float:
    return datetime.fromisoformat(str(text)).timestamp()
