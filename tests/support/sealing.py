"""How far the sealing of a log is, for tests of those who show it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from rmos_runs.operations.sealing_status import SealingStatus

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)


def sealing(**changes: Any) -> SealingStatus:
    """Return one that is well, but for the changes."""
    values: dict[str, Any] = {
        "entries": 12,
        "sealed_at_utc": NOW,
        "next_at_utc": NOW,
        "sealed_seconds": 12.0,
        "overdue_seconds": 0.0,
        "signed_by": "0123abcd",
        "unsealed": 3,
        "oldest_unsealed_seconds": 4.0,
        "seals": 2,
        "late": 0,
        "dead_job": None,
    }
    return SealingStatus(**(values | changes))
