"""What the audit sees of one job."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class JobSeen:
    """What the ledger has of one job."""

    job_id: str
    task: str
    run_id: str
    request_id: str
    state: str
    seconds: float
    reason: str
