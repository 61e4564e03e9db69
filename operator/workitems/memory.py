"""What a look need not read again: what an earlier one found, as long as nothing has spoken against it.

Most looks come because a pod has ended. To read for each of them that there are still no Decisions, and a Repository
that nobody has touched for a week, was half of all requests. Both are watched anyway: an event of the kind ends what
is known here, and so does every sweep, so that a lost event costs what it always costs. Nothing here is needed: an
operator that has just started knows nothing and reads everything once.

The last word of a pod is kept until the run it belongs to has been judged: a pod that was evicted is gone a second
after its end, and the report of the run with it.
"""

from __future__ import annotations

from dataclasses import dataclass

from workitems.api import Repository
from workitems.core.facts import PodView


@dataclass(frozen=True)
class EndedPod:
    """The last word of a pod: none of its containers runs any more, and nothing of that can change.

    As its watch told it, which leaves out `spec` (cluster.answers).
    """

    job_uid: str
    pod: PodView


class Memory:
    """Of one process. Every method is told by events and by the sweep, or asked by looks, in one event loop."""

    def __init__(self) -> None:
        """Know nothing."""
        self._undecided: set[str] = set()
        self._repositories: dict[tuple[str, str], Repository] = {}
        self._repository_news = 0
        self._ended: dict[str, EndedPod] = {}

    # --- Decisions

    def has_no_decisions(self, key: str) -> bool:
        """Whether the last look found none that waits, and no event has told of one since."""
        return key in self._undecided

    def reading_decisions(self, key: str) -> None:
        """They are about to be listed: what comes from now on is told by an event."""
        self._undecided.add(key)

    def may_have_decisions(self, key: str) -> None:
        """An event or a list told of one, or reading them failed."""
        self._undecided.discard(key)

    # --- Repositories

    def repository(self, namespace: str, name: str) -> Repository | None:
        """As it was read since its kind's last event."""
        return self._repositories.get((namespace, name))

    @property
    def repository_news(self) -> int:
        """A number that changes with every event of a Repository: to be taken before one is read."""
        return self._repository_news

    def repository_read(self, repository: Repository, news: int) -> None:
        """Keep what was read, unless an event came while it was."""
        if news == self._repository_news:
            metadata = repository.metadata
            self._repositories[metadata.namespace, metadata.name] = repository

    def repositories_changed(self) -> None:
        """An event told of one, or it is time to read them again. There are few: none is kept."""
        self._repository_news += 1
        self._repositories.clear()

    # --- pods

    def pod_ended(self, key: str, pod: EndedPod) -> None:
        """A pod of the item has ended, said its watch."""
        known = self._ended.get(key)
        if (
            known is None
            or known.pod.created is None
            or pod.pod.created is None
            or known.pod.created <= pod.pod.created
        ):
            # An older one that only goes now must not take the place of the one that the next look is about.
            self._ended[key] = pod

    def ended_pod(self, key: str, job_uid: str | None) -> PodView | None:
        """The pod of this Job, if it is known to have ended."""
        ended = self._ended.get(key)
        return ended.pod if ended is not None and ended.job_uid == job_uid else None

    def no_run(self, key: str) -> None:
        """No run waits for its pod's end."""
        self._ended.pop(key, None)

    # --- items

    def forget(self, key: str) -> None:
        """The item is over or gone: memory stays flat in the number of those."""
        self._undecided.discard(key)
        self._ended.pop(key, None)
