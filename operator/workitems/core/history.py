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
    """Write a run that is over into the history and add up what it used."""
    report = ended.report
    said = report.ending if report is not None else None
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
        usage=_usage(draft, report),
        model=said.model if said is not None else None,
        session=said.session if said is not None else None,
        denied=said.denied if said is not None else (),
    )
    draft.record_run(entry, RUNS_KEPT)
    total = draft.status.usage
    used = entry.usage
    # Infrastructure's failures are no runs of the agent: they count in infraRetries, not against maxRuns.
    counts = (
        0 if ended.infrastructure and not (ended.reason == runs.HEAD_MOVED and report and report.agent_started) else 1
    )
    draft.set(
        usage=TotalUsage(
            runs=total.runs + counts,
            input_tokens=total.input_tokens + (used.input_tokens if used else 0),
            output_tokens=total.output_tokens + (used.output_tokens if used else 0),
            cached_input_tokens=total.cached_input_tokens + (used.cached_input_tokens if used else 0),
            cost_usd=_money(Decimal(total.cost_usd) + Decimal(used.cost_usd if used else "0")),
            run_seconds=total.run_seconds + max(int((finished - run.started_at).total_seconds()), 0),
        )
    )


def _usage(draft: Draft, report: RunReport | None) -> Usage | None:
    """The usage as far as it can be true: an agent may have written it, and status adds it up."""
    if report is None or report.usage is None:
        return None
    said = report.usage
    try:
        cost = Decimal(said.cost_usd)
    except InvalidOperation:
        cost = Decimal(0)
    if not (cost.is_finite() and 0 <= cost <= MOST_USD):
        cost = Decimal(0)
    if report.ending is not None and report.ending.session is not None:
        # A conversation that is continued goes on adding up its cost; what it cost before is counted already.
        before = (r.usage for r in draft.status.runs if r.session == report.ending.session)
        cost = max(cost - sum(Decimal(usage.cost_usd) for usage in before if usage is not None), Decimal(0))
    return Usage(
        input_tokens=_between(said.input_tokens),
        output_tokens=_between(said.output_tokens),
        cached_input_tokens=_between(said.cached_input_tokens),
        turns=_between(said.turns),
        cost_usd=_money(cost),
    )


def _between(number: int) -> int:
    return max(0, min(number, MOST_TOKENS))


def _money(amount: Decimal) -> str:
    """Dollars as text with at most six decimals, never in scientific notation."""
    return format(round(amount, 6).normalize(), "f")
