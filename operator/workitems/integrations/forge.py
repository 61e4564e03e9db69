"""What the operator needs from a server of pull requests, whatever its name.

Every method may be repeated: what exists is found instead of made again. Another forge is one new module that
implements `Forge`, one key of `Repository.spec.forge`, and one line in `integrations.FORGES`.
"""

from __future__ import annotations

from typing import Literal, Protocol

from workitems.core.forge import Checks, Commit, MergeOutcome, PullRequest, Review

Method = Literal["merge", "squash", "rebase", "fast-forward-only"]


class Forge(Protocol):
    """One repository on a forge. All methods raise errors.Transient and errors.Permanent."""

    async def find(self, branch: str, base: str) -> PullRequest | None:
        """The pull request of `branch` of this very repository into `base`: the open one, else the newest closed one.

        Closed ones are looked through for a while only: None may mean that it was closed long ago.
        """

    async def get(self, number: int) -> PullRequest:
        """One pull request by its number."""

    async def head(self, branch: str) -> str | None:
        """The commit of a branch; None: there is no such branch."""

    async def ahead(self, base: str, head: str) -> int:
        """How many commits of `head` (branch or commit) are not in `base`; 0: there is nothing to merge."""

    async def commits(self, base: str, head: str, most: int = 20) -> tuple[Commit, ...]:
        """The newest `most` commits of `head` (branch or commit) that are not in `base`, newest first, with files."""

    async def document(self, commit: str, path: str, most: int = 65536) -> str | None:
        """The first `most` characters of a text file at a commit; None: there is no such file, or it is no text."""

    async def ensure(self, branch: str, base: str, *, title: str, body: str) -> PullRequest:
        """The open pull request of `branch` into `base`, created where there is none; its title and body kept right."""

    async def update(self, number: int, *, title: str, body: str) -> None:
        """Bring an open pull request's title and body up to date; nothing is sent if they are right already."""

    async def close(self, number: int) -> None:
        """Close without merging; a closed or merged one stays as it is."""

    async def checks(self, commit: str) -> Checks:
        """All contexts of a commit, all pages, the newest status of each."""

    async def merge(
        self, number: int, commit: str, method: Method, *, delete_branch: bool, patient: bool
    ) -> MergeOutcome:
        """Merge if the head is `commit`, which the forge itself checks; one that is merged already is a success.

        `patient`: an answer that may mean a conflict or a forge that is still looking for one is errors.Transient.
        """

    async def update_branch(self, number: int, style: Literal["merge", "rebase"]) -> None:
        """Bring the base's new commits into the branch; errors.Permanent with reason Conflict where that fails."""

    async def reviews(self, number: int) -> tuple[Review, ...]:
        """The newest review of every person that is an approval or a request for changes and not dismissed."""

    async def ensure_webhook(self, url: str, secret: str, *, renew: bool, former: str = "") -> str:
        """The id of the one webhook that sends this repository's events to `url`, created or repaired.

        A forge does not show the secret: `renew` says that it may be another one by now. One to the address `former`,
        where we are not any more, is taken away.
        """

    async def close_client(self) -> None:
        """Let go of connections."""
