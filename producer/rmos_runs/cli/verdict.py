"""The decisions on a run, in lines for people: the run's own verdict first, then those on its advisories.

An approval is of an advisory's words. It never allows a cut that the server blocked, so each line names what
it speaks of.
"""

from __future__ import annotations

from collections.abc import Iterator

from rmos_runs.cli.table import shown
from rmos_shared.advisories.model import ComposedAdvisory, Review
from rmos_shared.models.base import format_utc
from rmos_shared.runs.model import ComposedRun, ExplanationStatus, RunRecord


def run_lines(run: RunRecord) -> Iterator[str]:
    """Yield what the server decided on the run itself."""
    decision = run.decision
    score = "" if decision.score is None else f", score {decision.score}"
    yield f"run {run.run_id}: {run.status}, risk {decision.risk_level}{score}"
    if decision.block_reason is not None:
        yield f"  because: {shown(decision.block_reason)}"
    for warning in decision.warnings:
        yield f"  warning: {shown(warning)}"


def verdict_lines(run: ComposedRun) -> Iterator[str]:
    """Yield the run's verdict, how far its explanation is, and who judged each of its advisories."""
    yield from run_lines(run)
    if run.explanation_status is not ExplanationStatus.READY:
        summary = "" if run.explanation_summary is None else f": {shown(run.explanation_summary)}"
        yield f"explanation: {run.explanation_status}{summary}"
    for advisory in run.advisory_inputs:
        yield f"{advisory.link.kind}: {_judged(advisory)} (its words, not the cut)"
        yield f"  {shown(advisory.link.summary)}"
        for review in advisory.reviews[:-1]:
            yield f"  before that, {format_utc(review.created_at_utc)}: {said(review)}"


def said(review: Review) -> str:
    """Return a person's verdict in words: which, whose, and why."""
    what = "approved" if review.approved else "rejected"
    reason = "" if review.reason is None else f" as {review.reason.value}"
    note = "" if review.note is None else f", {shown(review.note)}"
    return f"{what} by {shown(review.reviewed_by)}{reason}{note}"


def _judged(advisory: ComposedAdvisory) -> str:
    link, review = advisory.link, advisory.review
    if review is not None:
        return said(review)
    if link.approved:
        return f"approved by {shown(link.reviewed_by)}"
    return "waits for a person"
