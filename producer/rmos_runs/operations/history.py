"""What happened to one run, in order of time: from its files, and from what the ledger knows of its jobs.

Nothing of a payload is in it. Files are kept for ever; the ledger forgets a done job after a week, and
remembers the last of each task for a run.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Literal

from rmos_shared.advisories.model import AdvisoryLink, Attempt, Review
from rmos_shared.canonical import sha256_hex
from rmos_shared.errors import RunNotFound
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.model import JobRecord, JobState
from rmos_shared.models.base import Frozen, JsonObject, SingleLine, UtcTime
from rmos_shared.runs.model import RunArtifact
from rmos_shared.runs.reader import RunReader


class HistoryEntry(Frozen):
    """One thing that happened."""

    at_utc: UtcTime
    #: Such as ``run.created``, ``job.died``, ``advisory.linked``, ``review.approved``.
    what: SingleLine
    #: What tells of it: a file of the store, or the job ledger.
    source: Literal["store", "ledger"]
    details: JsonObject


def history(run_id: str, reader: RunReader, ledger: JobLedger | None) -> list[HistoryEntry]:
    """Return all that is known of a run, oldest first; without a ledger, what the files tell.

    A run that is accepted and not stored yet has the history of its job.

    Raises:
        RunNotFound: neither the store nor the ledger knows the run.
        CorruptArtifact: it, or one of its links, reviews or attempts, cannot be read; a shorter history would
            be a lie.
        BrokerUnavailable: the ledger was given, and is away.
    """
    missing: RunNotFound | None = None
    stored: list[HistoryEntry] = []
    attempts: list[Attempt] = []
    try:
        attempts = reader.attempts(run_id)
        stored = stored_history(
            reader.get_artifact(run_id),
            reader.get_bytes(run_id),
            reader.links(run_id),
            reader.reviews(run_id),
            attempts,
        )
    except RunNotFound as error:
        missing = error
    jobs = [] if ledger is None else ledger.jobs_of_run(run_id, [attempt.job_id for attempt in attempts])
    if missing is not None and not jobs:
        raise missing
    return in_order([*stored, *(entry for job in jobs for entry in job_entries(job))])


def stored_history(
    artifact: RunArtifact,
    data: bytes,
    links: list[AdvisoryLink],
    reviews: list[Review],
    attempts: list[Attempt],
) -> list[HistoryEntry]:
    """Return what the files of a run tell, oldest first; the same for the same files, for ever."""
    return in_order(
        [
            _created(artifact, data),
            *map(_linked, links),
            *map(_reviewed, reviews),
            *map(_failed, attempts),
        ]
    )


def in_order(entries: list[HistoryEntry]) -> list[HistoryEntry]:
    """Return entries in order of time; those of one moment in the order given."""
    return sorted(entries, key=lambda entry: entry.at_utc)


def job_entries(job: JobRecord) -> Iterator[HistoryEntry]:
    """Yield what the ledger's record tells of a job: its acceptance, each thing since, and how it is now."""
    about = {"job_id": job.job_id, "task": job.task}
    yield _entry(job.accepted_at_utc, "job.accepted", "ledger", about, request_id=job.request_id)
    ended = False
    for item in job.history:
        what = str(item.get("what", "unknown"))
        ended = what == job.state.value
        fields = {name: value for name, value in item.items() if name not in {"at", "what", "since"}}
        since = _moment(item.get("since"))
        yield _entry(
            _moment(item.get("at")) or job.changed_at_utc,
            f"job.{what}",
            "ledger",
            about,
            **fields,
            since_utc=None if since is None else since.isoformat().replace("+00:00", "Z"),
        )
    if job.state is JobState.DONE and not ended:
        yield _entry(job.changed_at_utc, "job.done", "ledger", about, **_outcome(job))
    elif job.state is JobState.RUNNING:
        yield _entry(job.changed_at_utc, "job.running", "ledger", about, worker=job.worker)


def _outcome(job: JobRecord) -> dict[str, Any]:
    result = job.result or {}
    return {name: result[name] for name in ("outcome", "status", "advisory_id", "approved") if name in result}


def _created(artifact: RunArtifact, data: bytes) -> HistoryEntry:
    decision = artifact.decision
    return _entry(
        artifact.created_at_utc,
        "run.created",
        "store",
        {},
        request_id=artifact.request_id,
        event_type=artifact.event_type,
        status=artifact.status.value,
        risk_level=decision.risk_level.value,
        block_reason=decision.block_reason,
        artifact_sha256=sha256_hex(data),
    )


def _linked(link: AdvisoryLink) -> HistoryEntry:
    return _entry(
        link.created_at_utc,
        "advisory.linked",
        "store",
        {"advisory_id": link.advisory_id, "kind": link.kind, "approved": link.approved},
        request_id=link.request_id,
        engine_id=link.engine_id,
        engine_version=link.engine_version,
        policy_id=link.policy_id,
        policy_version=link.policy_version,
        reviewed_by=link.reviewed_by,
        reason=link.reason,
        advisory_sha256=link.advisory_sha256,
    )


def _reviewed(review: Review) -> HistoryEntry:
    return _entry(
        review.created_at_utc,
        "review.approved" if review.approved else "review.rejected",
        "store",
        {"advisory_id": review.advisory_id, "review_id": review.review_id},
        reviewed_by=review.reviewed_by,
        reason=None if review.reason is None else review.reason.value,
        note=review.note,
        act_id=review.act_id,
    )


def _failed(attempt: Attempt) -> HistoryEntry:
    return _entry(
        attempt.failed_at_utc,
        "explanation.failed",
        "store",
        {"job_id": attempt.job_id, "reason": attempt.reason},
        request_id=attempt.request_id,
        message=attempt.message,
    )


def _entry(
    at: datetime, what: str, source: Literal["store", "ledger"], about: dict[str, Any], **details: Any
) -> HistoryEntry:
    known = {name: value for name, value in details.items() if value is not None}
    return HistoryEntry(at_utc=at, what=what, source=source, details=about | known)


def _moment(milliseconds: object) -> datetime | None:
    # The script writes numbers, large ones as floats; what another hand wrote there must not end a history.
    if not isinstance(milliseconds, int | float):
        return None
    try:
        return datetime.fromtimestamp(milliseconds / 1000, tz=UTC)
    except (ValueError, OverflowError, OSError):
        return None
