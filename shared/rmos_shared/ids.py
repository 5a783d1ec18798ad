"""Run, job and advisory ids: how they are made, what they tell, and which may touch a path."""

from __future__ import annotations

import os
import re
import time
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from hashlib import sha256

from rmos_shared.canonical import canonical_sha256

#: Contract section 2; older runs carry such ids. ``_advisory_`` is refused besides, because a file
#: name holding it is read as a link (contract section 3).
SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}", re.ASCII)
UUID7 = re.compile(r"[0-9a-f]{12}7[0-9a-f]{3}[89ab][0-9a-f]{15}", re.ASCII)
#: The name of a webhook endpoint; it becomes part of job ids.
ENDPOINT_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,31}", re.ASCII)
#: A job's own id, that of the job which follows it (see ``explain_job_id``), that of a page or of the report
#: of a batch, or that of the delivery which tells of the end of any: the endpoint and the time of the end, in
#: milliseconds, follow.
JOB_ID = re.compile(
    r"[0-9a-f]{12}7[0-9a-f]{3}[89ab][0-9a-f]{15}(\.(explain|page-[0-9]{1,9}|report))?"
    rf"(\.hook-{ENDPOINT_ID.pattern}\.[0-9]{{1,15}})?",
    re.ASCII,
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_MILLISECOND = 253_402_300_799_999  # 9999-12-31T23:59:59.999Z, the last that datetime holds


def new_uuid7(at: datetime | None = None, *, noise: bytes | None = None) -> str:
    """Return a new UUIDv7 (RFC 9562) as 32 lower-case hex digits.

    ``at`` is its time (aware; now if omitted), kept to the millisecond; ``noise`` are its other ten bytes,
    random if omitted. ``uuid.uuid7`` exists only from Python 3.14 on and takes neither.
    """
    milliseconds = time.time_ns() // 1_000_000 if at is None else (at - _EPOCH) // timedelta(milliseconds=1)
    bits = int.from_bytes(os.urandom(10) if noise is None else noise)
    value = milliseconds << 80 | 0x7 << 76 | (bits >> 68) << 64 | 0b10 << 62 | bits & (1 << 62) - 1
    return f"{value:032x}"


@lru_cache(maxsize=16)  # checking one request asks for the same id three times
def uuid7_time(identifier: str) -> datetime | None:
    """Return the UTC time inside a UUIDv7, to the millisecond; None for any other id."""
    if not UUID7.fullmatch(identifier):
        return None
    milliseconds = int(identifier[:12], 16)
    if milliseconds > _LAST_MILLISECOND:
        return None
    return _EPOCH + timedelta(milliseconds=milliseconds)


def is_safe_id(identifier: str) -> bool:
    """Say whether a run or advisory id may become part of a path."""
    return SAFE_ID.fullmatch(identifier) is not None and "_advisory_" not in identifier


def explain_job_id(create_job_id: str) -> str:
    """Return the id of the explanation job that follows a create-run job.

    It is derived, so that the producer knows it before the worker accepts it.
    """
    return f"{create_job_id}.explain"


def create_job_id(job_id: str) -> str | None:
    """Return the id of the job which ``job_id`` follows, or None if it follows none."""
    head, dot, _ = job_id.partition(".")
    return head if dot else None


def page_job_id(batch_id: str, page: int) -> str:
    """Return the id of the job that looks through a page of a batch, counted from 0."""
    return f"{batch_id}.page-{page}"


def report_job_id(batch_id: str) -> str:
    """Return the id of the job that writes the report of a batch."""
    return f"{batch_id}.report"


def reexplain_job_id(batch_id: str, run_id: str) -> str:
    """Return the id of the job by which a batch explains a run: the same however often it is planned."""
    return new_uuid7(uuid7_time(batch_id), noise=sha256(f"{batch_id}\n{run_id}".encode()).digest()[:10])


def scheduled_batch_id(entry: str, due: datetime) -> str:
    """Return the id of the batch that an entry of the schedule opens at a time: the same whoever opens it."""
    return new_uuid7(due, noise=sha256(entry.encode()).digest()[:10])


def seal_job_id(number: int) -> str:
    """Return the id of the seal job of this number: the same whoever accepts it, and however often.

    The first number of a ledger is its time in milliseconds, and each is one more than that before.
    """
    at = _EPOCH + timedelta(milliseconds=min(number, _LAST_MILLISECOND))
    return new_uuid7(at, noise=sha256(f"audit.seal\n{number}".encode()).digest()[:10])


def timestamp_job_id(day: date) -> str:
    """Return the id of the job that has a checkpoint stamped on this UTC day: the same whoever accepts it."""
    at = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return new_uuid7(at, noise=sha256(b"audit.timestamp").digest()[:10])


def webhook_message_id(delivery_job_id: str) -> str:
    """Return the ``webhook-id`` of a delivery: the same for every try, so that receivers know a repeat.

    Without full stops, which separate the parts of what is signed.
    """
    return delivery_job_id.replace(".", "_")


def advisory_id(*, run_id: str, engine_id: str, engine_version: str, detail: str, inputs_sha256: str) -> str:
    """Return the id of an explanation: 32 hex digits, the same for the same inputs for ever.

    The request id is left out on purpose (contract section 5): a retry must not make a second advisory.
    """
    return canonical_sha256(
        {
            "run_id": run_id,
            "engine_id": engine_id,
            "engine_version": engine_version,
            "detail": detail,
            "inputs_sha256": inputs_sha256,
        }
    )[:32]
