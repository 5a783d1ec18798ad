"""A person's verdict on an advisory."""

from __future__ import annotations

from datetime import UTC, datetime

from rmos_shared.advisories.model import Review
from rmos_shared.ids import new_uuid7
from rmos_shared.runs.writer import RunWriter


def record_review(
    writer: RunWriter, run_id: str, advisory_id: str, *, approved: bool, reviewed_by: str, note: str | None
) -> Review:
    """Add a verdict on the words of an advisory, not on the cut, and return it; no other file changes.

    Raises:
        InvalidRequest: a field breaks the contract.
        RunNotFound: there is no such run.
        AdvisoryNotFound: no such advisory is linked to it.
    """
    review = Review.read(
        {
            "review_id": new_uuid7(),
            "run_id": run_id,
            "advisory_id": advisory_id,
            "created_at_utc": datetime.now(UTC),
            "approved": approved,
            "reviewed_by": reviewed_by,
            "note": note,
        }
    )
    writer.add_review(review)
    return review
