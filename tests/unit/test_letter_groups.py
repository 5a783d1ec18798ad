"""Dead letters by cause: what went wrong, and where in our own code."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from rmos_runs.operations.letter_groups import grouped, place_of
from rmos_shared.jobs.model import Failure, JobRecord, JobState, RawLetter

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)
TRACE = (
    '  File "/srv/app/rmos_worker/engine/executor.py", line 88, in _do\n    ends = _ends(handler, claims)\n'
    '  File "/srv/app/rmos_worker/handlers/suggest.py", line 61, in explain\n    self._save(asset)\n'
    '  File "/srv/lib/httpx/_client.py", line 9, in post\n    raise x\n'
)


def letter(job_id: str, minutes: int, *, reason: str = "conflict", trace: str = TRACE) -> JobRecord:
    failed = NOON + timedelta(minutes=minutes)
    return JobRecord(
        job_id=job_id,
        task="runs.create",
        queue="runs.create",
        state=JobState.DEAD,
        run_id="r",
        request_id=None,
        payload_sha256="0" * 64,
        accepted_at_utc=NOON,
        changed_at_utc=failed,
        crash_count=0,
        retry_count=0,
        failure=Failure(reason=reason, error_type="X", message="m", traceback=trace),
        first_failed_at_utc=failed - timedelta(minutes=1),
        last_failed_at_utc=failed,
    )


def test_the_place_is_the_last_line_of_our_own_code() -> None:
    assert place_of(TRACE) == "rmos_worker/handlers/suggest.py:61 in explain"
    assert place_of('  File "/srv/lib/httpx/_client.py", line 9, in post\n') == ""
    assert place_of("") == ""


def test_letters_of_one_cause_are_one_group_and_the_largest_is_first() -> None:
    other = TRACE.replace("line 61", "line 62")
    raw = RawLetter(
        raw_id="1-1",
        queue="runs.batch",
        reason="malformed_message",
        detail="d",
        kept_at_utc=NOON,
        size_bytes=1,
    )
    letters: list[JobRecord | RawLetter]
    letters = [letter("a", 5, trace=other), letter("b", 9), raw, letter("c", 3), letter("d", 4, reason="x")]
    largest, *others = grouped(letters)
    assert (largest.count, largest.reason, largest.error_type, largest.kind, largest.example) == (
        *(2, "conflict", "X", "runs.create"),
        "b",
    )
    assert largest.place == "rmos_worker/handlers/suggest.py:61 in explain"
    assert (largest.first_seen, largest.last_seen) == (
        NOON + timedelta(minutes=2),
        NOON + timedelta(minutes=9),
    )
    assert {(group.count, group.example) for group in others} == {(1, "a"), (1, "1-1"), (1, "d")}
    assert next(g for g in others if g.example == "1-1").kind == "message on runs.batch"
