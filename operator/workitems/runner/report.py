"""Fits what the runner saw into the 4,096 bytes of a termination message, the indispensable first.

Order of importance: the commit and its blobs, the problem, the verdicts, what was left out, the excerpts. What does
not fit is shortened or missing, never the report as a whole: a run without a report is a lost run, and is repeated.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path

from workitems import plain
from workitems.protocol import REPORT_LIMIT, Excerpt, Problem, RunReport

log = logging.getLogger("runner")

LEFT_OUT_BYTES = 700
LEFT_OUT_NAMES = 20
EXCERPT_BYTES = 900
EXCERPT_CHARACTERS = 500
"""Of an excerpt, even where they take more bytes: so much of a conflict is told, in any language."""
SHORT_MESSAGE_CHARACTERS = 200
SHORTEST_MESSAGE_CHARACTERS = 60
SHORT_VALUE_CHARACTERS = 20


def fit(report: RunReport, limit: int = REPORT_LIMIT) -> str:
    """The report as JSON of at most `limit` bytes."""
    full = report
    report = dataclasses.replace(full, verdicts=(), left_out=(), excerpts=())
    if _size(report) > limit:
        report = _indispensable(report)
    for verdict in full.verdicts:
        # Two different verdicts fail a gate whatever they are, so only a single one needs its whole text.
        values = verdict.values[:1] if len(verdict.values) == 1 else verdict.values[:2]
        short = tuple(value if len(values) == 1 else value[:SHORT_VALUE_CHARACTERS] for value in values)
        distinct = short if len(set(short)) == len(short) else values
        candidates = [verdict, dataclasses.replace(verdict, values=distinct)]
        for candidate in candidates:
            longer = dataclasses.replace(report, verdicts=(*report.verdicts, candidate))
            if _size(longer) <= limit:
                report = longer
                break
    report = _with_left_out(report, full.left_out, limit)
    for excerpt in full.excerpts:
        report = _with_excerpt(report, excerpt, limit)
    return text(report)


def write(report: RunReport, path: Path) -> None:
    """Write the termination message: into the file itself, which the kubelet has mounted. Raises OSError."""
    fitted = fit(report)
    path.write_bytes(fitted.encode())
    log.info("report: %s", fitted)


def text(report: RunReport) -> str:
    """The report as JSON, absent instead of null, except in `blobs`, where null has its place in the order."""
    return report.dumps()


def _size(report: RunReport) -> int:
    return len(text(report).encode())


def _indispensable(report: RunReport) -> RunReport:
    """Shorten the messages; where that is not enough, the blobs are too many for any report."""
    if report.problem is not None:
        message = plain.readable(report.problem.message, SHORT_MESSAGE_CHARACTERS)
        report = dataclasses.replace(report, problem=dataclasses.replace(report.problem, message=message))
    if report.ending is not None:
        message = plain.readable(report.ending.message, SHORTEST_MESSAGE_CHARACTERS)
        ending = dataclasses.replace(report.ending, message=message, model=None, denied=())
        report = dataclasses.replace(report, ending=ending)
    if _size(report) <= REPORT_LIMIT:
        return report
    sentence = (
        f"the stage's gates name {len(report.blobs)} documents, more than a report of {REPORT_LIMIT} bytes can "
        f"describe: name fewer files in the Pipeline's gates"
    )
    problem = report.problem or Problem(reason="TooManyDocuments", message=sentence)
    return dataclasses.replace(report, blobs=(), problem=problem)


def _with_left_out(report: RunReport, names: Sequence[str], limit: int) -> RunReport:
    start = _size(report)
    for name in names[:LEFT_OUT_NAMES]:
        longer = dataclasses.replace(report, left_out=(*report.left_out, name))
        if _size(longer) > min(limit, start + LEFT_OUT_BYTES):
            break
        report = longer
    return report


def _with_excerpt(report: RunReport, excerpt: Excerpt, limit: int) -> RunReport:
    """The report with as much of the excerpt as fits: found by halving, since JSON escapes have their own length."""

    def longer(characters: int) -> RunReport:
        text = excerpt.text[:characters]
        shortened = dataclasses.replace(excerpt, text=text, cut=excerpt.cut or text != excerpt.text or None)
        return dataclasses.replace(report, excerpts=(*report.excerpts, shortened))

    allowed = _size(longer(0)) + EXCERPT_BYTES

    def has_room(characters: int) -> bool:
        size = _size(longer(characters))
        return size <= limit and (characters <= EXCERPT_CHARACTERS or size <= allowed)

    low, high = 0, len(excerpt.text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if has_room(middle) else (low, middle - 1)
    return longer(low) if low else report
