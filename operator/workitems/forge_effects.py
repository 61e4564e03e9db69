"""Carrying out the forge's effects: each looks at what is there first, because it may have been carried out before.

Two rules stand above all: a pull request is opened only if the item has none that is open, and a merge names the
commit that the gates hold for, so that the forge itself refuses every other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, cast

from workitems import errors
from workitems.api import Effect, WorkItem
from workitems.core import checks, effects, merging, pull_requests
from workitems.core.forge import Commit, MergeOutcome, MergeResult, PullRequest
from workitems.integrations.forge import Forge, Method
from workitems.outbox import Carrier, Result
from workitems.readings import ForgeOf

COMMITS_READ = 50
"""Of the base and of the branch, to find those that conflict."""
COMMITS_NAMED = 10
"""Of the base, in the words about a conflict."""
TRIES_BEFORE_CONFLICT = 2
"""A forge with many pull requests to look at takes a while; a conflict that is none costs a run of an agent."""
BRANCH_KEPT = "BranchKept"
"""Reason of a merge whose branch could not be deleted."""


class ForgeEffects:
    """What `outbox` calls for the kinds of effects whose target is the forge."""

    def __init__(self, forge_of: ForgeOf) -> None:
        """Take how to reach a Repository's forge."""
        self._forge_of = forge_of

    def carriers(self) -> Mapping[str, Carrier]:
        """By kind of effect."""
        return {
            pull_requests.ENSURE: self.ensure,
            pull_requests.DESCRIBE: self.describe,
            pull_requests.CLOSE: self.close,
            pull_requests.MERGE: self.merge,
            pull_requests.UPDATE_BRANCH: self.update_branch,
        }

    async def ensure(self, item: WorkItem, effect: Effect) -> Result | None:
        """Open the pull request of a branch that has commits to merge, unless it is open."""
        forge, params = await self._forge(item), effect.params
        branch, base = params["branch"], params["base"]
        known, contained, values = item.status.pull_request, False, dict[str, str]()
        if known is not None:
            # Closed by a person is for a person to undo; reopened, it is the one.
            now = await forge.get(known.number)
            values = pull_requests.values_of(now)
            if now.state == "closed":
                other = await forge.find(branch, base)
                if other is not None and other.state == "open":
                    # A person opened it instead.
                    return _found(other)
                words = pull_requests.closed_message(now.number, now.url)
                return Result("Failed", reason=pull_requests.CLOSED, error=words, values=values)
            if now.state == "open" or (now.head, now.base) == (params["commit"], base):
                return _found(now)
            # A person merged it with what came after it: squashed, the branch differs from the base for ever.
            contained = now.base == base and not await forge.ahead(now.head, params["commit"])
        words = f"branch {branch} has no commits that {base} lacks: there is nothing to merge"
        nothing = Result("Failed", reason=pull_requests.NO_COMMITS, error=words, values=values)
        if contained or not await forge.ahead(base, params["commit"]):
            return nothing
        text = pull_requests.body(item, base)
        try:
            found = await forge.ensure(branch, base, title=params["title"], body=text)
        except errors.Permanent as refusal:
            if refusal.reason != pull_requests.NO_COMMITS:
                raise
            return nothing
        return _found(found, described=pull_requests.digest_of(item.status, params["title"]))

    async def describe(self, item: WorkItem, effect: Effect) -> Result | None:
        """Bring an open pull request's text up to date with the item as it is now."""
        forge, number = await self._forge(item), int(effect.params["number"])
        now = await forge.get(number)
        if now.state == "open":
            text = pull_requests.body(item, now.base)
            await forge.update(number, title=effect.params["title"], body=text)
        # Of a merge the item learns from the effect that merges, which comes behind this one and has more to do.
        return _found(now) if now.state == "closed" else Result(ref=now.url)

    async def close(self, item: WorkItem, effect: Effect) -> Result | None:
        """Close the item's pull request without a merge; one that was merged stays so, and status says it."""
        forge, params = await self._forge(item), effect.params
        if "number" in params:
            found: PullRequest | None = await forge.get(int(params["number"]))
        else:
            # It was announced, and whether it was opened is not known: then it is the branch's open one.
            found = await forge.find(params["branch"], params["base"])
        if found is None:
            return Result()
        if found.state == "open":
            await forge.close(found.number)
            found = await forge.get(found.number)
        return _found(found)

    async def merge(self, item: WorkItem, effect: Effect) -> Result | None:
        """Merge the commit that the gates hold for; nothing is merged while the item is suspended.

        The forge itself sees to the head. What else was read when the merge was announced may be hours old, after an
        outage: it is read again, and where it differs the item judges anew.
        """
        if item.spec.suspend:
            return None
        forge, params = await self._forge(item), effect.params
        number, commit, base = int(params["number"]), params["commit"], params["base"]
        method = cast("Method", params["method"])
        if (other := await self._otherwise(forge, number, params)) is not None:
            return other
        outcome = await forge.merge(
            number,
            commit,
            method,
            delete_branch=params["deleteBranch"] == "true",
            patient=effect.refusals < TRIES_BEFORE_CONFLICT,
        )
        now = await forge.get(number)
        values = pull_requests.values_of(now)
        if outcome.result is MergeResult.MERGED:
            if now.state != "merged":
                raise errors.Transient(f"pull request {number} was merged, and the forge does not show it yet")
            if outcome.commit:
                values["mergeCommit"] = outcome.commit
            if outcome.head:
                # The forge's own word may be of before the last push: it merges what is there, and notes it later.
                values["head"] = outcome.head
            kept = outcome.branch_kept
            return Result(
                ref=outcome.commit or now.url, values=values, reason=BRANCH_KEPT if kept else None, error=kept or None
            )
        reason, words = await self._why_not(forge, base, (commit, method), outcome)
        return Result("Failed", reason=reason, error=words, values=values)

    async def _otherwise(self, forge: Forge, number: int, params: Mapping[str, str]) -> Result | None:
        """Why an open pull request is not to be merged as announced; None: nothing has changed."""
        now = await forge.get(number)
        if now.state != "open":
            return None
        if now.base != params["base"]:
            return _withdrawn(now, _elsewhere(now, params["base"]))
        # One that was announced by an earlier version of the operator does not say what its checks were.
        if params.get("checks") and params["checks"] != checks.digest(await forge.checks(params["commit"])):
            return _withdrawn(now, f"the checks of {params['commit'][:12]} say something else by now")
        return None

    async def _why_not(
        self, forge: Forge, base: str, what: tuple[str, Method], outcome: MergeOutcome
    ) -> tuple[str, str]:
        commit, method = what
        said = outcome.message or str(outcome.result)
        if outcome.result is MergeResult.HEAD_MOVED:
            return merging.HEAD_MOVED, said
        lacks = await _lacking(forge, commit, base)
        if not lacks:
            return str(outcome.result), said
        if outcome.result is MergeResult.REFUSED:
            return merging.OUT_OF_DATE_REFUSED, f"{said}; {base} has commits that the branch lacks: {_named(lacks)}"
        words = f"the branch does not merge into {base}, which has commits that it lacks: {_named(lacks)} ({said})"
        return merging.OUT_OF_DATE if method == "fast-forward-only" else merging.CONFLICT, words

    async def update_branch(self, item: WorkItem, effect: Effect) -> Result | None:
        """Bring the base's new commits into the branch, unless the branch has moved already."""
        forge, params = await self._forge(item), effect.params
        number = int(params["number"])
        now = await forge.get(number)
        if now.state == "open" and now.base != params["base"]:
            return _withdrawn(now, _elsewhere(now, params["base"]))
        if now.state != "open" or now.head != params["commit"]:
            return _found(now)
        try:
            await forge.update_branch(number, cast('Literal["merge", "rebase"]', params["style"]))
        except errors.Permanent as error:
            if error.reason != merging.CONFLICT:
                raise
            lacks = await _lacking(forge, params["commit"], params["base"])
            words = f"{params['base']} has commits that conflict with the branch: {_named(lacks)} ({error})"
            return Result("Failed", reason=merging.CONFLICT, error=words)
        return _found(await forge.get(number))

    async def _forge(self, item: WorkItem) -> Forge:
        return await self._forge_of(item.metadata.namespace, item.spec.repository)


def _found(found: PullRequest, *, described: str = "") -> Result:
    values = pull_requests.values_of(found)
    return Result(ref=found.url, values={**values, "described": described} if described else values)


async def _lacking(forge: Forge, commit: str, base: str) -> tuple[Commit, ...]:
    """What the base has and the branch lacks, newest first, but before all else what touches the branch's own files."""
    lacks = await forge.commits(commit, base, COMMITS_READ)
    ours = {file for own in await forge.commits(base, commit, COMMITS_READ) for file in own.files}
    return tuple(sorted(lacks, key=lambda other: ours.isdisjoint(other.files)))


def _withdrawn(found: PullRequest, why: str) -> Result:
    """The item asks again, and says what it finds."""
    return Result("Failed", reason=effects.WITHDRAWN, error=why, values=pull_requests.values_of(found))


def _elsewhere(found: PullRequest, base: str) -> str:
    return f"pull request {found.number} is into {found.base} by now, and not into {base}"


def _named(commits: tuple[Commit, ...]) -> str:
    words = []
    for commit in commits[:COMMITS_NAMED]:
        touched = ", ".join(commit.files[:8])
        words.append(f"{commit.id[:12]} {commit.subject[:100]}{f' ({touched})' if touched else ''}")
    more = ", and more" if len(commits) > COMMITS_NAMED else ""
    return "; ".join(words) + more
