"""A run as readers see it: the artifact, its links, their reviews and how far its explanation is.

Pure: values in, values out (contract section 5).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rmos_shared.advisories.model import AdvisoryLink, Attempt, ComposedAdvisory, Review
from rmos_shared.jobs.model import JobRecord, JobState
from rmos_shared.runs.model import ComposedRun, ExplanationStatus, RunArtifact, RunRecord


def compose(
    artifact: RunArtifact,
    links: Sequence[AdvisoryLink],
    reviews: Sequence[Review],
    attempts: Sequence[Attempt],
    job: JobRecord | None,
) -> ComposedRun:
    """Return the run as readers see it.

    ``job`` is its unfinished or dead explanation job; None when the ledger knows of none.
    """
    status, summary = explanation(links, attempts, job)
    return ComposedRun(
        **{name: getattr(artifact, name) for name in RunRecord.model_fields},
        advisory_inputs=compose_advisories(links, reviews),
        explanation_status=status,
        explanation_summary=summary,
    )


def compose_advisories(links: Sequence[AdvisoryLink], reviews: Sequence[Review]) -> list[ComposedAdvisory]:
    """Return each link, oldest first, with the reviews of its advisory."""
    by_advisory: dict[str, list[Review]] = {}
    for review in in_order(reviews):
        by_advisory.setdefault(review.advisory_id, []).append(review)
    composed = []
    for link in sorted(links, key=lambda link: (link.created_at_utc, link.advisory_id)):
        judged = by_advisory.get(link.advisory_id, [])
        composed.append(ComposedAdvisory(link=link, review=judged[-1] if judged else None, reviews=judged))
    return composed


def in_order(reviews: Iterable[Review]) -> list[Review]:
    """Return reviews oldest first; of one advisory the last counts."""
    return sorted(reviews, key=lambda review: (review.created_at_utc, review.review_id))


def explanation(
    links: Sequence[AdvisoryLink], attempts: Sequence[Attempt], job: JobRecord | None
) -> tuple[ExplanationStatus, str | None]:
    """Return the explanation's status and text: the newest summary, or why the last attempt died.

    A job that is unfinished outranks the attempts on file: they are of before its replay.
    """
    explanations = [link for link in links if link.kind == "explanation"]
    if explanations:
        newest = max(explanations, key=lambda link: (link.created_at_utc, link.advisory_id))
        return ExplanationStatus.READY, newest.summary
    if job is not None and job.state is JobState.DEAD:
        failure = job.failure
        summary = (
            "the job is dead and gave no reason" if failure is None else _why(failure.reason, failure.message)
        )
        return ExplanationStatus.ERROR, summary
    if job is not None and job.state.pending:
        return ExplanationStatus.PENDING, None
    if attempts:
        last = max(attempts, key=lambda attempt: (attempt.failed_at_utc, attempt.job_id))
        return ExplanationStatus.ERROR, _why(last.reason, last.message)
    return ExplanationStatus.NONE, None


def _why(reason: str, message: str) -> str:
    return f"{reason}: {message}"
