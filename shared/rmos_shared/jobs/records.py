"""From the ledger's Redis fields to the records that are shown: pure decoding."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from rmos_shared.errors import BrokerDamaged, InvalidRequest
from rmos_shared.jobs.model import JobRecord, JobState, RawLetter
from rmos_shared.tasks.table import TASKS

#: The fields of a raw letter that may be shown; its item is fetched by itself.
RAW_FIELDS = ("queue", "reason", "detail", "kept_at", "size", "state", "history")


def job_record(job_id: str, fields: dict[bytes, bytes]) -> JobRecord:
    """Return what a job's hash tells, without its payload.

    Raises:
        BrokerDamaged: it is no record that the ledger wrote. The text names no value.
    """
    try:
        return _job_record(job_id, {key.decode(): value.decode() for key, value in fields.items()})
    except (KeyError, ValueError, TypeError, OverflowError, OSError, InvalidRequest) as error:
        raise BrokerDamaged(
            f"the record of job {job_id} cannot be read ({type(error).__name__}); rmos doctor says why"
        ) from None


def _job_record(job_id: str, fields: dict[str, str]) -> JobRecord:
    spec = TASKS.get(fields["task"])
    state = JobState(fields["state"])
    times: dict[str, Any] = {
        f"{name}_utc": _time(fields[name]) if fields.get(name) else None
        for name in ("first_failed_at", "last_failed_at")
    }
    return JobRecord.read(
        {
            "job_id": job_id,
            "task": fields["task"],
            "queue": "unknown" if spec is None else spec.queue,
            "state": state,
            "run_id": fields["run_id"],
            "request_id": fields["request_id"] or None,
            "traceparent": fields.get("traceparent"),
            "batch_id": fields.get("batch"),
            "payload_sha256": fields["sha256"],
            "accepted_at_utc": _time(fields["accepted_at"]),
            "changed_at_utc": _time(fields["changed_at"]),
            "due_at_utc": _time(fields["due_at"]) if state is JobState.WAITING else None,
            "crash_count": int(fields.get("crash_count", 0)),
            "retry_count": int(fields.get("retry_count", 0)),
            "worker": fields.get("lease", "").partition("|")[0] or None,
            "result": json.loads(fields["result"]) if "result" in fields else None,
            "failure": json.loads(fields["failure"]) if "failure" in fields else None,
            "code_version": fields.get("code_version"),
            "history": json.loads(fields.get("history", "[]")),
            **times,
        }
    )


def raw_letter(raw_id: str, values: list[bytes | None]) -> RawLetter | None:
    """Return what the values of ``RAW_FIELDS`` tell, or None when there is no such letter."""
    fields = {
        name: value.decode() for name, value in zip(RAW_FIELDS, values, strict=True) if value is not None
    }
    if "queue" not in fields:
        return None
    return RawLetter.read(
        {
            "raw_id": raw_id,
            "queue": fields["queue"],
            "reason": fields["reason"],
            "detail": fields["detail"],
            "kept_at_utc": _time(fields["kept_at"]),
            "size_bytes": int(fields["size"]),
            "state": fields["state"],
            "history": json.loads(fields.get("history", "[]")),
        }
    )


def _time(milliseconds: str) -> datetime:
    return datetime.fromtimestamp(int(milliseconds) / 1000, tz=UTC)
