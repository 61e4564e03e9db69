"""The three things a runner does, each ending in a report: run beside an agent, look at a branch, prepare a gate.

A report is written whatever happened, because it is all that the operator will ever see of the volume. Only a defect
of ours ends without one, with a traceback in the log; the agent is told to stop even then.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from workitems import plain
from workitems.agents.output import Ending, settled
from workitems.protocol import AgentEnding, Problem, RunKind, RunReport, RunTask
from workitems.runner import checkout, facts, problems, report
from workitems.runner.exchange import Exchange, TerminatedError, Termination
from workitems.runner.places import SAFE_NAME, TERMINATION_LOG, Patience, Places
from workitems.runner.publish import Published, publish
from workitems.runner.stream import Stream
from workitems.wire import UnreadableError

log = logging.getLogger("runner")

TASK_BYTES = 1024 * 1024


@dataclasses.dataclass(frozen=True)
class Runner:
    """One start of the program."""

    places: Places
    patience: Patience
    termination: Termination

    def run(self, kind: RunKind) -> int:
        """Do what a kind of Job needs; the exit code: 0 wherever a report was written, except before a gate."""
        exchange = Exchange(self.places.exchange)
        try:
            task = read_task(self.places.task_file, kind)
            actions: dict[RunKind, Callable[[RunTask, Exchange], RunReport]] = {
                RunKind.AGENT: self._agent,
                RunKind.LOOK: self._look,
                RunKind.GATE: self._gate,
            }
            result = actions[kind](task, exchange)
        except problems.RunProblemError as error:  # the task itself: there is nothing to say whose report this is
            result = RunReport(run=0, uid="", problem=error.problem)
        finally:
            if kind is RunKind.AGENT and not exchange.decided:
                # Also when we fail by a defect: the agent must not wait for ever.
                exchange.stop("the runner could not prepare this run: see the log of the container runner")
        report.write(result, self.places.report)
        # A gate's command is the next container of the pod: it must not judge a tree that is not there.
        return 1 if kind is RunKind.GATE and result.problem is not None else 0

    def _agent(self, task: RunTask, exchange: Exchange) -> RunReport:
        outcome = _Outcome(self.termination)
        session = self._session(task, outcome)
        start = None if session is None else outcome.attempt(lambda: checkout.prepare(session, exchange))
        if session is None or start is None:
            exchange.stop(outcome.sentence)
            return self._described(task, session, outcome)
        outcome.base, outcome.head = start.base, start.remote
        stream = _stream(task, exchange, self.places)
        exchange.go()
        if not exchange.wait(self.patience.hello, self.patience.parting, self.termination):
            exchange.stop("too late: the runner has given up waiting for this container")
            waited = "before the pod was deleted" if self.termination.requested else f"in {self.patience.hello:.0f} s"
            sentence = f"the agent's container did not start {waited}: see the pod's events and that container's state"
            outcome.note(problems.RunProblemError("AgentNotStarted", sentence, retry=True))
            return self._described(task, session, outcome)
        # The work is there now: from here on a SIGTERM only makes us hurry.
        published = outcome.attempt(lambda: publish(session, start), interruptible=False) or Published(start.remote)
        report_of = self._described(task, session, outcome, published)
        return report_of if stream is None else _ended(report_of, stream.ending(self.patience.output))

    def _look(self, task: RunTask, _exchange: Exchange) -> RunReport:
        outcome = _Outcome(self.termination)
        session = self._session(task, outcome)
        branches = None if session is None else outcome.attempt(lambda: checkout.fetch(session))
        if branches is not None and branches.branch is None:
            sentence = checkout.branch_gone(task, task.expected_head or "<commit>")
            outcome.note(problems.RunProblemError("BranchNotFound", sentence))
        outcome.head = branches.branch if branches else None
        return self._described(task, session, outcome)

    def _gate(self, task: RunTask, _exchange: Exchange) -> RunReport:
        outcome = _Outcome(self.termination)
        session = self._session(task, outcome)
        if session is not None:
            outcome.attempt(lambda: checkout.bring_exactly(session))
        report_of = RunReport(run=task.run, uid=task.uid, base_commit=task.base_commit, head=task.expected_head)
        return report_of if outcome.problem is None else dataclasses.replace(report_of, problem=outcome.problem)

    def _session(self, task: RunTask, outcome: _Outcome) -> checkout.Session | None:
        return outcome.attempt(lambda: checkout.Session.open(task, self.places, self.patience, self.termination))

    def _described(
        self, task: RunTask, session: checkout.Session | None, outcome: _Outcome, published: Published | None = None
    ) -> RunReport:
        """The report about the branch as the remote has it, and about what this run did."""
        head = outcome.head
        update: dict[str, Any] = {"base_commit": outcome.base or task.base_commit}
        if published is not None:
            head = published.head
            if published.problem is not None:
                outcome.note(published.problem)
            update |= {
                "agent_started": True,
                "committed": published.committed,
                "pushed": published.pushed,
                "diverted_to": published.diverted_to,
                "left_out": published.left_out[: report.LEFT_OUT_NAMES],
                "left_out_total": len(published.left_out),
            }
        if session is not None and head is not None:
            found = outcome.attempt(lambda: self._facts(session, head), interruptible=False)
            if found is not None:
                update |= {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}
        update["problem"] = outcome.problem
        return RunReport(run=task.run, uid=task.uid, **update)

    def _facts(self, session: checkout.Session, head: str) -> facts.Facts:
        if not session.cache.has(head):
            # Somebody's push, seen only when ours was refused.
            checkout.fetch(session)
        try:
            return facts.read(session.cache, session.task, head)
        except problems.GitError as error:
            session.cache.mend(error)
            return facts.read(session.cache, session.task, head)


def _stream(task: RunTask, exchange: Exchange, places: Places) -> Stream | None:
    """The reading of the agent's output, under way; None where the task asks for none. Raises OSError."""
    if task.output is None:
        return None
    # Imported here: a run waits for this program's start, and most need no reader or one.
    from workitems.agents import readers  # noqa: PLC0415

    stream = Stream(exchange.folder, places.output(task), readers.READERS[task.output]())
    stream.open()
    return stream


def _ended(report_of: RunReport, found: Ending) -> RunReport:
    """The report with what the agent's output said."""
    found = settled(found, changed=report_of.committed)
    said = AgentEnding(
        reason=found.reason,
        message=plain.readable(found.message, 500),
        model=found.model and plain.readable(found.model, 100),
        session=found.session and plain.readable(found.session, 100),
        denied=tuple(plain.readable(tool, 64) for tool in found.denied[:8]),
    )
    return dataclasses.replace(report_of, ending=said, usage=found.usage)


T = TypeVar("T")


@dataclasses.dataclass
class _Outcome:
    """What went wrong first, and the commits that the report is to be about."""

    termination: Termination
    problem: Problem | None = None
    head: str | None = None
    base: str | None = None

    @property
    def sentence(self) -> str:
        """The problem as the agent's log shows it."""
        return f"{self.problem.reason}: {self.problem.message}" if self.problem else ""

    def note(self, error: problems.RunProblemError) -> None:
        """Keep a problem, unless there is one already: later ones are mostly its consequences."""
        log.error("%s: %s", error.problem.reason, error.problem.message)
        self.problem = self.problem or error.problem

    def attempt(self, action: Callable[[], T], *, interruptible: bool = True) -> T | None:
        """The action's result; None if there is a problem instead. Defects pass through."""
        try:
            return self._carry_out(action, interruptible=interruptible)
        except checkout.HeadMovedError as error:
            self.head, self.base = error.head, error.base
            self.note(error)
        except problems.RunProblemError as error:
            self.note(error)
        except problems.GitError as error:
            self.note(problems.RunProblemError("GitFailed", str(error)))
        except TerminatedError:
            sentence = "the pod was deleted before its agent could start"
            self.note(problems.RunProblemError("Interrupted", sentence, retry=True))
        except OSError as error:
            found = problems.from_os_error(error)
            if found is None:
                raise
            self.note(found)
        return None

    def _carry_out(self, action: Callable[[], T], *, interruptible: bool) -> T:
        try:
            self.termination.interrupts = interruptible
            return action()
        finally:
            self.termination.interrupts = False


def read_task(path: Path, kind: RunKind) -> RunTask:
    """Read the task. Raises RunProblemError with a sentence that does not repeat the task's texts."""
    try:
        with path.open("rb") as file:
            task = RunTask.loads(file.read(TASK_BYTES))
    except OSError as error:
        raise problems.RunProblemError("TaskUnreadable", f"the task {path} cannot be read: {error.strerror}") from error
    except UnreadableError as error:
        raise problems.RunProblemError("TaskUnreadable", f"the task {path} is not a task: {error}") from error
    if task.kind is not kind:
        raise problems.RunProblemError(
            "TaskUnreadable", f"the task is for {task.kind.value}, the command for {kind.value}"
        )
    for name in (task.item, task.repository):
        if not SAFE_NAME.match(name) or ".." in name:
            raise problems.RunProblemError("TaskUnreadable", f"{name!r} is not the name of a Kubernetes object")
    return task


def main(argv: Sequence[str], report_file: Path = Path(TERMINATION_LOG)) -> int:
    """Run `agent`, `look` or `gate`; `argv` is without the program's name.

    Only the operator's Jobs call this. There are no options, and no parser for them: its import took a tenth of the
    start that every run waits for.
    """
    kinds = {kind.value.lower(): kind for kind in RunKind}
    if len(argv) != 1 or argv[0] not in kinds:
        sys.stderr.write(f"usage: python -m workitems runner {'|'.join(kinds)}\n")
        return 2
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    os.umask(0o022)
    termination = Termination()
    termination.install()
    return Runner(Places(report=report_file), Patience(), termination).run(kinds[argv[0]])
