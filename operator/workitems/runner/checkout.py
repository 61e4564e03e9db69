"""Before the agent: decides on which commit the run starts, brings the tree there, and writes what the agent reads.

Where the branch may stand, and what each case means (expected: the head that status knows):

    remote        expected   then
    none          none       the branch begins at the pinned base commit
    there         none       adopted, if the item says so; or a first run whose report was lost; else BranchExists
    none          there      BranchNotFound: a person deleted it
    expected      there      go
    ahead of it   there      only our own trailers in between: a run whose report was lost, go; else HeadMoved
    elsewhere     there      HeadMoved: a person rewrote the branch; the operator looks at its gates again

A first run may be lost before anything of it was committed: then the branch has no commit of its own. From the second
run on such a branch is taken for ours, because it holds nothing that adopting it could harm.
"""

from __future__ import annotations

import dataclasses
import logging

from workitems.protocol import PROMPT_FILE, SYSTEM_PROMPT_FILE, RunTask
from workitems.runner import belongings, facts, merge, problems, remote, tree
from workitems.runner.cache import Branches, Cache
from workitems.runner.exchange import Exchange, Termination
from workitems.runner.places import Patience, Places
from workitems.runner.worktree import Worktree

log = logging.getLogger("runner")

INCLUDE_BYTES = 256 * 1024
SYSTEM_PROMPT_BYTES = 1024 * 1024
ROLE_FIRST = b"These are the instructions of your role, the task follows them.\n\n"
TASK_NEXT = b"\nThis is the task.\n\n"


@dataclasses.dataclass(frozen=True)
class Session:
    """All that one run of the runner works with."""

    task: RunTask
    places: Places
    patience: Patience
    cache: Cache
    worktree: Worktree
    termination: Termination

    @classmethod
    def open(cls, task: RunTask, places: Places, patience: Patience, termination: Termination) -> Session:
        """Put the parts together. Raises RunProblemError where the credentials cannot be used."""
        git = remote.connect(places, task.url, patience)
        cache = Cache(git, places, task, patience)
        return cls(task, places, patience, cache, Worktree(cache, places.tree(task)), termination)


@dataclasses.dataclass(frozen=True)
class Start:
    """Where a run begins."""

    head: str
    """The parent of what the run commits."""
    remote: str | None
    """Where the remote has the branch, for the push's lease; None: nowhere yet."""
    base: str
    merge: merge.Merge | None = None
    """The base branch, merged into `head`."""

    @property
    def basis(self) -> str:
        """The commit that the tree is."""
        return self.merge.commit if self.merge is not None else self.head


class HeadMovedError(problems.RunProblemError):
    """A person has pushed. The report is about `head`, so that the gates can be looked at again."""

    def __init__(self, message: str, head: str, base: str | None) -> None:
        """Take the sentence, the remote's head, and the pinned base commit."""
        super().__init__("HeadMoved", message)
        self.head, self.base = head, base


def fetch(session: Session) -> Branches:
    """Fetch, with patience for a remote that does not answer. Raises RunProblemError."""
    patience = session.patience
    return remote.persist(
        session.cache.refresh, patience.fetch_retries, patience.first_delay, session.termination.sleep
    )


def prepare(session: Session, exchange: Exchange) -> Start:
    """Do everything up to the moment before the agent may start. Raises RunProblemError, HeadMovedError, OSError."""
    branches = fetch(session)
    belongings.settle(session.cache, session.places, session.task)
    try:
        start = _begin(session, exchange, branches)
    except problems.GitError as error:
        start = _begin(session, exchange, session.cache.mend(error))
    session.cache.tidy()
    return start


def _begin(session: Session, exchange: Exchange, branches: Branches) -> Start:
    """All that reads objects, any of which may be damaged."""
    start = _bring(session, branches)
    write_inputs(session, exchange, start)
    return start


def bring_exactly(session: Session) -> None:
    """Make the tree the commit that a gate judges, wherever the branch is by now. Raises RunProblemError."""
    fetch(session)
    try:
        _bring_commit(session)
    except problems.GitError as error:
        session.cache.mend(error)
        _bring_commit(session)


def _bring_commit(session: Session) -> None:
    task, head = session.task, session.task.expected_head
    if head is None or not session.cache.fetch_commit(head):
        sentence = f"the commit {head} to judge is no longer in {task.url}: the branch was rewritten"
        raise problems.RunProblemError("CommitNotFound", sentence)
    session.worktree.bring(task.branch, head)


def _bring(session: Session, branches: Branches) -> Start:
    start = locate(session, branches)
    if session.task.merge_base and branches.base is not None:
        merged = merge.begin(session.cache.bare, start.head, branches.base, session.task.base_branch)
        start = dataclasses.replace(start, merge=merged)
    removed = session.worktree.bring(session.task.branch, start.basis)
    log.info("the tree is at %s (base %s); %d leftovers removed", start.basis, start.base, removed)
    return start


def locate(session: Session, branches: Branches) -> Start:
    """Decide where the run starts: the table above. Raises RunProblemError, HeadMovedError."""
    task = session.task
    base = pinned_base(session, branches)
    if task.expected_head is None:
        if branches.branch is None:
            return Start(base, None, base)
        if task.adopt_branch or _first_run_was_lost(session, branches.branch, base):
            return Start(branches.branch, branches.branch, base)
        raise problems.RunProblemError(
            "BranchExists",
            f"the branch {task.branch} is already in {task.url}, at {branches.branch[:12]}: set spec.adoptBranch: true "
            f"to work on it, choose another spec.branch, or delete it (git push {task.url} --delete {task.branch})",
        )
    if branches.branch is None:
        raise problems.RunProblemError("BranchNotFound", branch_gone(task, task.expected_head))
    if branches.branch == task.expected_head or _all_ours(session, task.expected_head, branches.branch):
        return Start(branches.branch, branches.branch, base)
    raise HeadMovedError(
        f"the branch {task.branch} is at {branches.branch[:12]} and not at {task.expected_head[:12]}, where the last "
        f"run left it: somebody pushed; its gates are looked at again",
        branches.branch,
        base,
    )


def pinned_base(session: Session, branches: Branches) -> str:
    """The base commit of the item: the pinned one, or now and for ever the base branch's head."""
    task = session.task
    if task.base_commit is None:
        if branches.base is None:
            raise problems.RunProblemError(
                "BaseBranchNotFound",
                f"there is no branch {task.base_branch} in {task.url}: push it, or correct the item's base branch",
            )
        return branches.base
    if not session.cache.fetch_commit(task.base_commit):
        raise problems.RunProblemError(
            "BaseCommitNotFound",
            f"the base commit {task.base_commit} is no longer in {task.url}: {task.base_branch} was rewritten; "
            f"push the commit again under any branch name, or create the item anew",
        )
    return task.base_commit


def branch_gone(task: RunTask, head: str) -> str:
    """The sentence for a branch that somebody deleted."""
    return (
        f"the branch {task.branch} is gone from {task.url}: push it again "
        f"(git push {task.url} {head}:refs/heads/{task.branch}), or abort the item"
    )


def _all_ours(session: Session, expected: str, head: str) -> bool:
    """Whether all that lies between is commits of this very item."""
    bare = session.cache.bare
    if not session.cache.has(expected):
        return False
    if bare.attempt("merge-base", "--is-ancestor", expected, head).code != 0:
        return False
    return set(_owners(session, expected, head)) == {session.task.uid}


def _first_run_was_lost(session: Session, head: str, base: str) -> bool:
    owners = set(_owners(session, base, head))
    return owners == {session.task.uid} or (not owners and session.task.run > 1)


def _owners(session: Session, old: str, new: str) -> list[str]:
    """The uid in each commit's `WorkItem` trailer; empty text where there is none.

    What a merge of ours brought in from the base is not asked whose it is.
    """
    form = "--format=%(trailers:key=WorkItem,valueonly,separator=%x2C)"
    output = session.cache.bare.run("log", "--first-parent", form, f"{old}..{new}", "--")
    return output.stdout.decode(errors="replace").splitlines()


def write_inputs(session: Session, exchange: Exchange, start: Start) -> None:
    """Write prompt, system prompt and task file, and take this stage's outcome files away. Raises RunProblemError."""
    task, bare, root = session.task, session.cache.bare, session.worktree.path
    prompt = task.prompt.encode(errors="replace")
    for path in task.include:
        blob = facts.blob_at(bare, start.head, path)
        if blob is not None:
            # Read from the commit before the files of `remove` go: a verdict to rework is often one of them.
            prompt += _section(path, facts.blob_bytes(bare, blob, INCLUDE_BYTES + 1))
    if start.merge is not None:
        prompt += merge.words(start.merge, task.base_branch)
    system = _system_prompt(session, start.base)
    if system:
        exchange.put(SYSTEM_PROMPT_FILE, system)
        if task.output not in (None, "claude"):
            # These CLIs take no file of instructions. The first line is ours: some obey a prompt's `/` or `@`.
            prompt = ROLE_FIRST + system + TASK_NEXT + prompt
    exchange.put(PROMPT_FILE, prompt)
    for path in task.remove:
        if tree.unlink(root, path):
            log.info("removed %s: this run has to write it anew", path)
    if task.task_file is not None:
        try:
            tree.write(root, task.task_file, prompt)
        except (tree.SymlinkError, IsADirectoryError) as error:
            raise problems.RunProblemError(
                "TaskFileRefused",
                f"the task file {task.task_file} cannot be written at {start.head[:12]}, because it is a folder or a "
                f"part of its path is a symlink or a file: choose another taskFile in the Pipeline",
            ) from error


def _section(path: str, content: bytes) -> bytes:
    cut = len(content) > INCLUDE_BYTES
    text = content[:INCLUDE_BYTES]
    if cut:
        text = text.decode(errors="ignore").encode() + b"\n[cut: the file is longer, read it in the worktree]"
    return f"\n\n## {path}\n\n".encode() + text.rstrip(b"\n") + b"\n"


def _system_prompt(session: Session, base: str) -> bytes:
    """The operator's words, the Pipeline's file, the repository's own instructions, as of the base commit."""
    task, bare = session.task, session.cache.bare
    parts = [task.system_prompt.encode(errors="replace")]
    if task.system_prompt_file is not None:
        parts.append(_prompt_file(session, task.system_prompt_file, base))
    for path in task.instruction_files:
        blob = facts.blob_at(bare, base, path)
        if blob is not None:
            parts.append(_section(path, facts.blob_bytes(bare, blob, INCLUDE_BYTES + 1)).lstrip(b"\n"))
    return b"\n".join(part.rstrip(b"\n") + b"\n" for part in parts if part.strip())


def _prompt_file(session: Session, path: str, base: str) -> bytes:
    blob = facts.blob_at(session.cache.bare, base, path)
    content = b"" if blob is None else facts.blob_bytes(session.cache.bare, blob, SYSTEM_PROMPT_BYTES + 1)
    if not content.strip():
        state = "is not a file" if blob is None else "is empty"
        where = f"{path}, the agent's systemPromptFile, {state} at the base commit {base}"
        commit = f"commit it to {session.task.base_branch}"
        mend = f"{commit}; if the path in the Pipeline is wrong, correct it there and create the WorkItem anew"
        if session.task.base_commit is not None:
            where = f"{where}, where the item's branch began"
            mend = (
                f"{commit} (or correct the path in the Pipeline), then create the WorkItem anew, with adoptBranch: "
                "true: a Retry reads that same commit"
            )
        raise problems.RunProblemError("PromptFileNotFound", f"{where}: {mend}")
    if len(content) > SYSTEM_PROMPT_BYTES:
        raise problems.RunProblemError("PromptFileTooLarge", f"{path} is larger than 1 MiB at the base commit {base}")
    return content
