"""A forge in memory that behaves as Gitea was measured to: what the real one refuses is refused here as well.

It knows one repository whose branches the tests move. Requests that change something can be cut off before or after
they take effect, which is how an operator dies in the middle; a forge can be away or refuse the token.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

from workitems import errors
from workitems.core.forge import Check, Checks, Commit, MergeOutcome, MergeResult, PullRequest, Review
from workitems.integrations.forge import Forge, Method

URL = "https://git.example.com/shop/web/pulls"


class Branch(Protocol):
    """What a test's git knows about one branch."""

    base: str
    head: str | None
    files: dict[str, str]

    def commit(self, files: dict[str, str], *, ours: bool) -> str: ...


@dataclass
class Pull:
    """One pull request, as the forge keeps it."""

    number: int
    branch: str
    base: str
    title: str
    body: str
    state: Literal["open", "merged", "closed"] = "open"
    head: str = ""
    """Where it was when it was closed or merged."""
    merge_commit: str | None = None


@dataclass
class FakeForge(Forge):
    """One repository on the forge."""

    branch_of: Callable[[str], Branch]
    pulls: dict[int, Pull] = field(default_factory=dict)
    statuses: dict[str, dict[str, Check]] = field(default_factory=dict)
    """Of each commit, the newest by context."""
    reports: Callable[[str], list[Check]] = field(default=lambda _commit: [])
    """What the CI says about a commit that has no statuses of its own."""
    base_ahead: tuple[Commit, ...] = ()
    """Commits of the base that no branch has yet."""
    conflicts: bool = False
    undecided: bool = False
    """Asked to merge, it says "try again later", as with conflicts that Gitea knows of and with those it looks for."""
    protected: str = ""
    """Why the base takes no merge."""
    keeps_branches: str = ""
    """Why it deletes none."""
    away: str = ""
    refuses: errors.Permanent | None = None
    hang: Callable[[], Awaitable[None]] | None = None
    """Waited for before every answer."""
    merges: list[tuple[int, str]] = field(default_factory=list)
    """Every merge that happened: number and commit."""
    requests: list[str] = field(default_factory=list)
    """Every change that was carried out."""
    reviewed: dict[int, tuple[Review, ...]] = field(default_factory=dict)
    webhooks: dict[str, str] = field(default_factory=dict)
    branches: set[str] = field(default_factory=set)
    """Those without a pull request whose documents can be read."""
    cut: Callable[[str], None] = field(default=lambda _moment: None)
    """Told before and after each change; may raise, which is how an operator dies."""
    guard: Callable[[str, str], None] = field(default=lambda _commit, _base: None)
    """Asked before a merge of a commit into a base happens, so that a test can see whether it may."""

    def copy(self, branch_of: Callable[[str], Branch]) -> FakeForge:
        """This moment of it, beside other branches."""
        # What is only asked is shared; what changes is not.
        return FakeForge(
            branch_of,
            copy.deepcopy(self.pulls),
            copy.deepcopy(self.statuses),
            self.reports,
            self.base_ahead,
            self.conflicts,
            self.undecided,
            self.protected,
            self.keeps_branches,
            self.away,
            self.refuses,
            merges=list(self.merges),
            requests=list(self.requests),
            branches=set(self.branches),
            guard=self.guard,
        )

    # --- what a test does and sees

    def report(self, commit: str, **states: Literal["success", "failure", "pending"]) -> None:
        """A CI says something about a commit."""
        known = self.statuses.setdefault(commit, {})
        for context, state in states.items():
            known[context] = Check(context, state, f"https://ci.example.com/{context}", f"{context} {state}")

    def merge_by_hand(self, number: int) -> None:
        """A person presses the button, whatever the gates say."""
        self._merge(self.pulls[number])

    def open(self) -> list[Pull]:
        """Those that are open."""
        return [pull for pull in self.pulls.values() if pull.state == "open"]

    def check(self) -> None:
        """What must hold after every test: nothing twice."""
        pairs = [(pull.branch, pull.base) for pull in self.open()]
        assert len(set(pairs)) == len(pairs), "two open pull requests of one branch"
        assert len({number for number, _ in self.merges}) == len(self.merges), "merged twice"

    # --- the protocol

    async def find(self, branch: str, base: str) -> PullRequest | None:
        await self._answer()
        own = [pull for pull in self.pulls.values() if (pull.branch, pull.base) == (branch, base)]
        own.sort(key=lambda pull: (pull.state == "open", pull.number))
        return self._view(own[-1]) if own else None

    async def get(self, number: int) -> PullRequest:
        await self._answer()
        return self._view(self._pull(number))

    async def head(self, branch: str) -> str | None:
        await self._answer()
        return self.branch_of(branch).head

    async def ahead(self, base: str, head: str) -> int:
        await self._answer()
        assert base != head
        return int(self._differs(base, head))

    async def commits(self, base: str, head: str, most: int = 20) -> tuple[Commit, ...]:
        await self._answer()
        # What the branch itself has is nobody's to name.
        assert base != head
        return self.base_ahead[:most] if any(pull.base == head for pull in self.pulls.values()) else ()

    async def ensure(self, branch: str, base: str, *, title: str, body: str) -> PullRequest:
        await self._answer()
        for pull in self.open():
            if (pull.branch, pull.base) == (branch, base):
                if (pull.title, pull.body) != (title, body):
                    await self.update(pull.number, title=title, body=body)
                return self._view(pull)
        head = self.branch_of(branch).head
        if head is None:
            raise errors.Permanent("BranchNotFound", f"the forge has no branch {branch}")
        if not self._differs(base, head):
            raise errors.Permanent("NoCommits", f"branch {branch} has no commit that {base} has not")
        self.cut("before opening")
        number = len(self.pulls) + 7
        self.pulls[number] = Pull(number, branch, base, title, body)
        self.requests.append(f"open {number}")
        self.cut("after opening")
        return self._view(self.pulls[number])

    async def update(self, number: int, *, title: str, body: str) -> None:
        await self._answer()
        pull = self._pull(number)
        if (pull.title, pull.body) == (title, body):
            return
        self.cut("before updating the text")
        pull.title, pull.body = title, body
        self.requests.append(f"update {number}")
        self.cut("after updating the text")

    async def close(self, number: int) -> None:
        await self._answer()
        pull = self._pull(number)
        if pull.state != "open":
            return
        self.cut("before closing")
        pull.head, pull.state = self._view(pull).head, "closed"
        self.requests.append(f"close {number}")
        self.cut("after closing")

    async def checks(self, commit: str) -> Checks:
        await self._answer()
        known = self.statuses.get(commit)
        return Checks(commit, tuple(known.values()) if known is not None else tuple(self.reports(commit)))

    async def merge(
        self, number: int, commit: str, method: Method, *, delete_branch: bool, patient: bool
    ) -> MergeOutcome:
        await self._answer()
        pull = self._pull(number)
        if pull.state == "merged":
            return MergeOutcome(MergeResult.MERGED, pull.merge_commit)
        if pull.state == "closed":
            return MergeOutcome(MergeResult.REFUSED, message="the pull request is closed")
        if self._view(pull).head != commit:
            return MergeOutcome(MergeResult.HEAD_MOVED, message="head target does not match")
        if method == "fast-forward-only" and self.base_ahead:
            return MergeOutcome(MergeResult.CONFLICT, message="no fast-forward is possible")
        if self.undecided and patient:
            raise errors.Undecided("Please try again later")
        if self.conflicts or self.undecided:
            return MergeOutcome(MergeResult.CONFLICT, message="Please try again later")
        if self.protected:
            return MergeOutcome(MergeResult.REFUSED, message=self.protected)
        self.cut("before merging")
        self.guard(commit, pull.base)
        self._merge(pull)
        self.requests.append(f"merge {number}{' and delete the branch' if delete_branch else ''}")
        self.cut("after merging")
        kept = self.keeps_branches if delete_branch else ""
        return MergeOutcome(MergeResult.MERGED, pull.merge_commit, commit, branch_kept=kept)

    async def update_branch(self, number: int, style: Literal["merge", "rebase"]) -> None:
        await self._answer()
        pull = self._pull(number)
        if self.conflicts:
            raise errors.Permanent("Conflict", "merge failed because of conflict")
        self.cut("before updating the branch")
        branch = self.branch_of(pull.branch)
        new = {f"src/{commit.id[:8]}.py": commit.subject for commit in self.base_ahead}
        branch.commit({**branch.files, **new}, ours=False)
        self.base_ahead = ()
        self.requests.append(f"update branch of {number} by {style}")
        self.cut("after updating the branch")

    async def reviews(self, number: int) -> tuple[Review, ...]:
        await self._answer()
        return self.reviewed.get(number, ())

    async def ensure_webhook(self, url: str, secret: str, *, renew: bool, former: str = "") -> str:
        await self._answer()
        self.webhooks.pop(former, None)
        if renew or url not in self.webhooks:
            self.webhooks[url] = secret
        return url

    async def document(self, commit: str, path: str, most: int = 65536) -> str | None:
        await self._answer()
        names = {pull.branch for pull in self.pulls.values()} | self.branches
        branches = [self.branch_of(name) for name in sorted(names)]
        text = next((branch.files.get(path) for branch in branches if branch.head == commit), None)
        return text if text is None else text[:most]

    async def close_client(self) -> None:
        pass

    # --- inside

    async def _answer(self) -> None:
        if self.hang is not None:
            await self.hang()
        if self.away:
            raise errors.Transient(self.away)
        if self.refuses is not None:
            raise self.refuses

    def _pull(self, number: int) -> Pull:
        if number not in self.pulls:
            raise errors.Permanent("PullRequestNotFound", f"the forge has no pull request {number}")
        return self.pulls[number]

    def _differs(self, base: str, head: str) -> bool:
        into = [commit for number, commit in self.merges if number not in self.pulls or self.pulls[number].base == base]
        return head != self.branch_of("").base and head not in into

    def _merge(self, pull: Pull) -> None:
        pull.head = self._view(pull).head
        pull.state = "merged"
        pull.merge_commit = hashlib.sha1(f"merge {pull.number} {pull.head}".encode()).hexdigest()
        self.merges.append((pull.number, pull.head))

    def _view(self, pull: Pull) -> PullRequest:
        head = pull.head if pull.state != "open" else (self.branch_of(pull.branch).head or "")
        url = f"{URL}/{pull.number}"
        return PullRequest(pull.number, url, pull.state, head, pull.base, pull.merge_commit, mergeable=None)
