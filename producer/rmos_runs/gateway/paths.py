"""Where things are (contract section 6)."""

from __future__ import annotations

PREFIX = "/api/rmos/runs"
#: Of the audit log, as C2SP tlog-tiles has it.
AUDIT_PREFIX = "/api/rmos/audit"


def run_url(run_id: str) -> str:
    """Return where a run is read."""
    return f"{PREFIX}/{run_id}"


def job_url(job_id: str) -> str:
    """Return where to ask how a job fares."""
    return f"{PREFIX}/jobs/{job_id}"
