"""Pull requests, checks and merges on a Gitea server; Forgejo has the same API, and nobody has tried it.

Every rule here was learned from a real server, and tests/gitea shows each of them: `head=` of a listing is ignored and
`GET /pulls/{base}/{head}` may find an old one, so pull requests are paged and compared; the combined status is computed
for each page, so the pages are read and the contexts judged here; "Please try again later" means both "still checking"
and "conflict"; and `merge_when_checks_succeed` merges a red head, so it is never sent. A merge names the head commit.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Literal
from urllib.parse import quote

from workitems import errors
from workitems.api.repository import RepositorySpec
from workitems.core.forge import Checks, Commit, MergeOutcome, MergeResult, PullRequest, Review
from workitems.integrations import gitea_values as values
from workitems.integrations import gitea_webhooks
from workitems.integrations.forge import Method
from workitems.integrations.gitea_api import API, JSON, Place
from workitems.integrations.http import Access, Answer, Client, Connections, Sleep

CHECK_SECONDS = 20.0
"""How long "Please try again later" is taken for "still checking"."""
CHECK_EVERY_SECONDS = 1.0
CLOSED_MOST = 200
"""Closed pull requests among which a branch's newest is looked for."""


class Gitea:
    """Implements `integrations.forge.Forge`."""

    def __init__(self, client: Client, place: Place, *, sleep: Sleep = asyncio.sleep) -> None:
        """Take the client, the repository, and how to wait."""
        self._api = API(client, place)
        self._sleep = sleep

    def __repr__(self) -> str:
        return f"Gitea({self._api})"

    async def close_client(self) -> None:
        """Nothing: connections are the process's, shared with other repositories of the server."""

    # --- pull requests

    async def find(self, branch: str, base: str) -> PullRequest | None:
        """See Forge. Where several are open, which Gitea allows if they were made at once, it is the first one."""
        opened = await self._open(branch, base)
        if opened:
            return opened[0]
        # They come newest first, and a repository may have thousands: a branch's own is among the last ones.
        async for pull in self._of(branch, base, "closed", CLOSED_MOST):
            return pull
        return None

    async def _open(self, branch: str, base: str) -> list[PullRequest]:
        return sorted([pull async for pull in self._of(branch, base, "open")], key=lambda pull: pull.number)

    async def _of(self, branch: str, base: str, state: str, most: int | None = None) -> AsyncIterator[PullRequest]:
        """Those among the first `most` of a listing; None: among all."""
        seen = 0
        async for pull in self._api.pages("/pulls", {"state": state, "base_branch": base}):
            if self._api.read(pull, lambda pull: values.is_of(pull, branch, base)):
                yield self._api.read(pull, values.pull_request)
            seen += 1
            if seen == most:
                return

    async def get(self, number: int) -> PullRequest:
        """See Forge."""
        return self._api.read(await self._pull(number), values.pull_request)

    async def head(self, branch: str) -> str | None:
        """See Forge."""
        answer = await self._api.ask("GET", f"/branches/{quote(branch)}")
        if answer.code == 404:
            await self._api.check_repository()
            return None
        return self._api.read(self._api.json(answer), lambda found: str(found["commit"]["id"]))

    async def ahead(self, base: str, head: str) -> int:
        """See Forge. errors.Permanent BranchNotFound if there is no `head`."""
        answer = await self._commits(base, head, 1)
        count = answer.headers.get("X-Total-Count", "")
        if not count.isdecimal():
            raise errors.Transient(f"{answer.what}: no X-Total-Count in the answer: is this a Gitea server?")
        return int(count)

    async def commits(self, base: str, head: str, most: int = 20) -> tuple[Commit, ...]:
        """See Forge."""
        listed = self._api.json(await self._commits(base, head, most, files="true"))
        return self._api.read(listed, lambda entries: tuple(values.commit(entry) for entry in entries))

    async def document(self, commit: str, path: str, most: int = 65536) -> str | None:
        """See Forge."""
        answer = await self._api.ask("GET", f"/contents/{quote(path)}", {"ref": commit})
        if answer.code == 404:
            await self._api.check_repository()
            return None
        text = self._api.read(self._api.json(answer), values.text)
        return text if text is None else text[:most]

    async def ensure(self, branch: str, base: str, *, title: str, body: str) -> PullRequest:
        """See Forge. errors.Permanent BranchNotFound, NoCommits where there is nothing to ask for."""
        for found in await self._open(branch, base):
            await self.update(found.number, title=title, body=body)
            return found
        # Gitea opens an empty pull request without a word.
        if await self.ahead(base, branch) == 0:
            message = (
                f"branch {branch} of {self._api.place} has no commit that {base} has not: there is nothing to merge"
            )
            raise errors.Permanent("NoCommits", message)
        answer = await self._api.ask(
            "POST", "/pulls", body={"head": branch, "base": base, "title": title, "body": body}
        )
        if answer.code == 409:
            # Opened by somebody else a moment ago; the number in the answer's message is not the pull request's.
            for found in await self._open(branch, base):
                await self.update(found.number, title=title, body=body)
                return found
        if answer.code == 404:
            await self._api.check_repository()
            message = f"{self._api.place} has no branch {branch} or no branch {base}: is it deleted? Push it again"
            raise errors.Permanent("BranchNotFound", message)
        made = self._api.read(self._api.json(answer), values.pull_request)
        # Gitea looks and inserts without a lock: of several that were opened at once, the first one stays.
        first = next(iter(await self._open(branch, base)), made)
        if first.number < made.number:
            await self.close(made.number)
        return first

    async def update(self, number: int, *, title: str, body: str) -> None:
        """See Forge."""
        pull = await self._pull(number)
        wanted = {"title": title, "body": body}
        if {name: _lines(pull.get(name)) for name in wanted} == {name: _lines(text) for name, text in wanted.items()}:
            return
        self._api.good(await self._api.ask("PATCH", f"/pulls/{number}", body=wanted, repeat=True))

    async def close(self, number: int) -> None:
        """See Forge."""
        if (await self.get(number)).state != "open":
            return
        answer = await self._api.ask("PATCH", f"/pulls/{number}", body={"state": "closed"}, repeat=True)
        if answer.code != 412:  # merged in between
            self._api.good(answer)

    async def checks(self, commit: str) -> Checks:
        """See Forge. The combined state of the answer is not read: it is the page's, not the commit's."""
        return Checks(commit, self._api.read(await self._api.statuses(commit), values.newest_checks))

    # --- merging

    async def merge(
        self, number: int, commit: str, method: Method, *, delete_branch: bool, patient: bool
    ) -> MergeOutcome:
        """See Forge. Waits while the server says that it is still checking, some twenty seconds at most."""
        pull = await self._pull(number)
        request = self._api.read(pull, values.pull_request)
        if (over := await self._over(pull, commit, delete_branch=delete_branch)) is not None:
            return over
        if request.head != commit:
            return _moved(request.head, commit)
        # Gitea answers 500 where a fast-forward is not possible.
        if method == "fast-forward-only" and (behind := await self.ahead(commit, request.base)):
            return _conflict(f"{request.base} has {behind} commits that the branch lacks: no fast-forward is possible")
        body = {"Do": method, "head_commit_id": commit, "delete_branch_after_merge": delete_branch}
        waited = 0.0
        while True:
            answer = await self._api.ask("POST", f"/pulls/{number}/merge", body=body)
            if answer.good:
                made = (await self.get(number)).merge_commit
                # Gitea answers 200 where it could not delete the branch, too.
                kept = await self._delete_branch(pull, commit) if delete_branch else ""
                return MergeOutcome(MergeResult.MERGED, made, commit, branch_kept=kept)
            said = answer.message
            later = answer.code == 405 and "try again later" in said
            if not later and not (answer.code == 409 and "push out of date" in said):
                return await self._not_merged(answer, number, commit, delete_branch=delete_branch)
            if waited >= CHECK_SECONDS:
                return await self._cannot_merge(request, said, commit, patient=patient)
            await self._sleep(CHECK_EVERY_SECONDS)
            waited += CHECK_EVERY_SECONDS
            # Gitea puts off looking for conflicts of a pull request that nobody looks at.
            await self._pull(number)

    async def _over(self, pull: JSON, commit: str, *, delete_branch: bool) -> MergeOutcome | None:
        """What there is to say of a pull request that is merged or closed; None: it is open."""
        request = self._api.read(pull, values.pull_request)
        if request.state == "open":
            return None
        if request.state == "closed":
            return MergeOutcome(MergeResult.REFUSED, message=f"pull request {request.number} is closed")
        by = str((pull.get("merged_by") or {}).get("login") or "somebody")
        message = f"merged already by {by}"
        if request.head != commit:
            message = f"{message}, at {request.head[:12]} and not at {commit[:12]}"
        kept = await self._delete_branch(pull, commit) if delete_branch else ""
        return MergeOutcome(MergeResult.MERGED, request.merge_commit, message=message, branch_kept=kept)

    async def _delete_branch(self, pull: JSON, commit: str) -> str:
        """Why the branch of a merged pull request is still there; "": it is not."""
        branch = self._api.read(pull, lambda pull: str(pull["head"].get("label") or ""))
        head = await self.head(branch) if branch else None
        if head is None:
            return ""
        if head != commit:
            return f"branch {branch} was not deleted: it is at {head[:12]} by now"
        deleted = await self._api.ask("DELETE", f"/branches/{quote(branch)}")
        if deleted.good or deleted.code == 404:
            return ""
        return f"branch {branch} was not deleted: {deleted.message or deleted.code}"

    async def _not_merged(self, answer: Answer, number: int, commit: str, *, delete_branch: bool) -> MergeOutcome:
        if answer.code not in (404, 405, 409):
            raise self._api.refusal(answer)
        pull = await self._pull(number)
        request = self._api.read(pull, values.pull_request)
        if (over := await self._over(pull, commit, delete_branch=delete_branch)) is not None:
            return over
        said = answer.message
        if answer.code == 405 or "PushRejected" in said:
            return MergeOutcome(
                MergeResult.REFUSED, message=f"{self._api.place} refuses to merge pull request {number}: {said}"
            )
        if request.head != commit or "head out of date" in said:
            return _moved(request.head, commit)
        return _conflict(f"the branch conflicts with {request.base}")

    async def _cannot_merge(self, request: PullRequest, said: str, commit: str, *, patient: bool) -> MergeOutcome:
        """The same answer for a long time: a conflict, unless the base has nothing that could conflict."""
        if patient or await self.ahead(commit, request.base) == 0:
            message = f"{self._api.place} does not say whether pull request {request.number} can be merged: {said}"
            raise errors.Undecided(message, delay_seconds=CHECK_SECONDS)
        return _conflict(f"the branch conflicts with {request.base}")

    async def update_branch(self, number: int, style: Literal["merge", "rebase"]) -> None:
        """See Forge."""
        request = await self.get(number)
        if request.state != "open" or await self.ahead(request.head, request.base) == 0:
            return
        # Repeated, it finds that there is nothing left to do.
        answer = await self._api.ask("POST", f"/pulls/{number}/update", {"style": style})
        if answer.code == 409:
            message = f"the commits of {request.base} cannot be brought into pull request {number} by {style}: conflict"
            raise errors.Permanent("Conflict", message)
        self._api.good(answer)

    # --- people

    async def reviews(self, number: int) -> tuple[Review, ...]:
        """See Forge."""
        listed = [review async for review in self._api.pages(f"/pulls/{number}/reviews", {})]
        return self._api.read(listed, values.newest_reviews)

    async def ensure_webhook(self, url: str, secret: str, *, renew: bool, former: str = "") -> str:
        """See Forge."""
        return await gitea_webhooks.ensure(self._api, url, secret, renew=renew, former=former)

    # --- requests

    async def _pull(self, number: int) -> JSON:
        answer = await self._api.ask("GET", f"/pulls/{number}")
        if answer.code == 404:
            await self._api.check_repository()
            message = f"{self._api.place} has no pull request {number}: it was deleted"
            raise errors.Permanent("PullRequestNotFound", message)
        pull = self._api.read(self._api.json(answer), dict)
        if self._api.read(pull, lambda pull: pull["merged"] and pull["head"]["ref"] == pull["head"]["label"]):
            # The branch is still there, and Gitea names its head, whatever was pushed to it after the merge.
            kept = self._api.json(await self._api.ask("GET", f"/git/refs/pull/{number}/head"))
            pull["head"]["sha"] = self._api.read(kept, lambda refs: str(refs[0]["object"]["sha"]))
        return pull

    async def _commits(self, base: str, head: str, most: int, *, files: str = "false") -> Answer:
        query: dict[str, str | int] = {"sha": head, "not": base, "page": 1, "limit": most}
        query |= {"stat": "false", "verification": "false", "files": files}
        missing = f"{self._api.place} has neither a branch nor a commit"
        try:
            answer = await self._api.ask("GET", "/commits", query)
        except errors.Transient:
            # Gitea answers 500 where there is no base.
            about = {**query, "sha": base, "not": "", "limit": 1, "files": "false"}
            if (await self._api.ask("GET", "/commits", about)).code != 404:
                raise
            await self._api.check_repository()
            raise errors.Permanent("BranchNotFound", f"{missing} {base}") from None
        if answer.code == 404:
            await self._api.check_repository()
            raise errors.Permanent("BranchNotFound", f"{missing} {head}")
        return self._api.good(answer)


def client(connections: Connections, spec: RepositorySpec, token: str, ca_pem: str) -> Gitea:
    """The client of a Repository that names a Gitea or Forgejo server. Raises errors.Permanent if it does not."""
    chosen = spec.forge.gitea if spec.forge is not None else None
    if chosen is None:
        raise errors.Permanent("NoForge", "the Repository names no Gitea: name one in spec.forge.gitea")
    access = Access(chosen.url.rstrip("/"), {"Authorization": f"token {token}"}, (token,), ca_pem)
    secret = f"Secret {chosen.token.secret_name} (key {chosen.token.key})"
    return Gitea(Client(connections, access), Place(chosen.owner, chosen.name, secret))


def _lines(text: Any) -> str:
    """A text as it comes back from a form: other line ends, no blanks around."""
    return str(text or "").replace("\r\n", "\n").strip()


def _moved(head: str, commit: str) -> MergeOutcome:
    return MergeOutcome(MergeResult.HEAD_MOVED, message=f"the head is {head[:12]} and not {commit[:12]}")


def _conflict(message: str) -> MergeOutcome:
    return MergeOutcome(MergeResult.CONFLICT, message=message)
