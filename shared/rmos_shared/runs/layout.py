"""Where each record lies (contract section 3): the names, and nothing that touches a disk.

A partition is a UTC date, ``YYYY-MM-DD``. It holds artifacts and links; all else of ours is under ``_``.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from rmos_shared.advisories.model import Attempt, Review
from rmos_shared.errors import FieldProblem, InvalidRequest
from rmos_shared.ids import uuid7_time
from rmos_shared.runs.model import RunArtifact

#: Where the reviews, and the failed attempts, of each day's runs lie.
REVIEWS = "_reviews/"
ATTEMPTS = "_attempts/"

_ADVISORY = "_advisory_"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def partition_day(name: str) -> date | None:
    """Return the day that a partition's name stands for; None for any other name."""
    try:
        day = date.fromisoformat(name)
    except ValueError:
        return None
    # fromisoformat also takes 20260801 and 2026-W31-6.
    return day if day.isoformat() == name else None


def partition_of(key: str) -> str:
    """Return the partition that a run's or link's key lies in."""
    return key.partition("/")[0]


def run_key(partition: str, run_id: str) -> str:
    """Return the key of an artifact."""
    return f"{partition}/{run_id}.json"


def artifact_key(artifact: RunArtifact) -> str:
    """Return the key that an artifact belongs under.

    Raises:
        InvalidRequest: the date inside its UUIDv7 is not that of ``created_at_utc``, so that reading it
            by its id would not find it.
    """
    moment = uuid7_time(artifact.run_id)
    if moment is not None and moment.date() != artifact.created_at_utc.date():
        raise InvalidRequest(
            (FieldProblem("created_at_utc", "its UTC date differs from the one inside run_id"),),
            what="artifact",
        )
    return run_key(artifact.date, artifact.run_id)


def link_key(partition: str, run_id: str, advisory_id: str) -> str:
    """Return the key of a link, which lies in the partition of its run."""
    return f"{link_prefix(partition, run_id)}{advisory_id}.json"


def link_prefix(partition: str, run_id: str) -> str:
    """Return what the keys of a run's links begin with.

    Those of another run may begin so too (``a`` and ``a_advisory``), so the links have the last word.
    """
    return f"{partition}/{run_id}{_ADVISORY}"


def is_link(key: str) -> bool:
    """Say whether a file of a partition is a link by its name, not an artifact."""
    return _ADVISORY in key


def run_of_link(key: str) -> str:
    """Return the run that a link's name speaks of; the link itself has the last word."""
    return key.rpartition("/")[2].partition(_ADVISORY)[0]


def review_prefix(partition: str, run_id: str) -> str:
    """Return what the keys of a run's reviews begin with."""
    return f"{REVIEWS}{partition}/{run_id}/"


def review_key(partition: str, review: Review) -> str:
    """Return the key of a person's review."""
    return f"{review_prefix(partition, review.run_id)}{review.review_id}.json"


def attempt_prefix(partition: str, run_id: str) -> str:
    """Return what the keys of a run's failed attempts begin with."""
    return f"{ATTEMPTS}{partition}/{run_id}/"


def attempt_key(partition: str, attempt: Attempt) -> str:
    """Return the key of a failed attempt: one per job and millisecond of its failure."""
    milliseconds = (attempt.failed_at_utc - _EPOCH) // timedelta(milliseconds=1)
    return f"{attempt_prefix(partition, attempt.run_id)}{attempt.job_id}_{milliseconds}.json"
