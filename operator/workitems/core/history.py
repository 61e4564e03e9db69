"""What remains of a run: one entry of the history, and what it adds to the totals.

The numbers come from a report that an agent may have shaped, so they are taken as far as they can be true.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

from workitems.api import MESSAGE_LIMIT, RUNS_KEPT, CurrentRun, FinishedRun, RunReport, TotalUsage, Usage
from workitems.core import runs
from workitems.core.draft import Draft

MOST_TOKENS = 10**12
MOST_USD = Decimal(10**9)


def record(draft: Draft, run: CurrentRun, ended: runs.Ended) -> None:
    """Write a run that is over into the history and add up what it usage."""
    report = ended.report
    said = report.ending if report is not None else None
    usage, conversation_cost = _usage(draft, report)
    pod = draft.facts.run_job.pod if draft.facts.run_job is not None else None
    ends = [c.finished_at for c in pod.containers.values() if c.finished_at is not None] if pod is not None else []
    finished = max([*ends, run.started_at]) if ends else draft.now
    entry = FinishedRun(
        number=run.number,
        agent=run.agent,
        stage=run.stage,
        attempt=run.attempt,
        job=run.job,
        result=ended.result,
        reason=ended.reason,
        message=ended.message[:MESSAGE_LIMIT] or None,
        exit_code=ended.exit_code,
        started_at=run.started_at,
        finished_at=finished,
        commit=report.head if report is not None else None,
        pushed=report.pushed if report is not None else False,
        diverted_to=report.diverted_to if report is not None else None,
        left_out=report.left_out if report is not None else (),
        usage=usage,
        model=said.model if said is not None else None,
        session=said.session if said is not None else None,
        session_cost_usd=conversation_cost,
        denied=said.denied if said is not None else (),
    )
    draft.record_run(entry, RUNS_KEPT)
    total = draft.status.usage
    # Infrastructure's failures are no runs of the agent: they count in infraRetries, not against maxRuns.
    counts = (
        0 if ended.infrastructure and not (ended.reason == runs.HEAD_MOVED and report and report.agent_started) else 1
    )
    draft.set(
        usage=TotalUsage(
            runs=total.runs + counts,
            input_tokens=total.input_tokens + (usage.input_tokens if usage else 0),
            output_tokens=total.output_tokens + (usage.output_tokens if usage else 0),
            cached_input_tokens=total.cached_input_tokens + (usage.cached_input_tokens if usage else 0),
            cost_usd=_money(Decimal(total.cost_usd) + Decimal(usage.cost_usd if usage else "0")),
            run_seconds=total.run_seconds + max(int((finished - run.started_at).total_seconds()), 0),
        )
    )


def _usage(draft: Draft, report: RunReport | None) -> tuple[Usage | None, str | None]:
    """The usage as far as it can be true (an agent may have written it), and what the run's conversation has cost."""
    if report is None or report.usage is None:
        return None, None
    said = report.usage
    cost, conversation_cost = _dollars(said.cost_usd), None
    if report.ending is not None and report.ending.session is not None:
        # A conversation that is continued goes on adding up its cost; what it cost before is counted already.
        session = report.ending.session
        runs_of_it = (run for run in reversed(draft.status.runs) if run.session == session)
        before = next((run.session_cost_usd for run in runs_of_it if run.session_cost_usd is not None), "0")
        # A run that was killed tells no cost: the conversation's is what it was.
        total = max(cost, _dollars(before))
        cost, conversation_cost = total - _dollars(before), _money(total)
    usage = Usage(
        input_tokens=_between(said.input_tokens),
        output_tokens=_between(said.output_tokens),
        cached_input_tokens=_between(said.cached_input_tokens),
        turns=_between(said.turns),
        cost_usd=_money(cost),
    )
    return usage, conversation_cost


def _dollars(text: str) -> Decimal:
    try:
        amount = Decimal(text)
    except InvalidOperation:
        return Decimal(0)
    return amount if amount.is_finite() and 0 <= amount <= MOST_USD else Decimal(0)


def _between(number: int) -> int:
    return max(0, min(number, MOST_TOKENS))


def _money(amount: Decimal) -> str:
    """Dollars as text with at most six decimals, never in scientific notation."""
    return format(round(amount, 6).normalize(), "f")
