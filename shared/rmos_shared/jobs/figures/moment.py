"""Times as the ledger keeps them, which another program may have spoilt: pure."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: The last millisecond that a datetime holds.
_LAST_MS = 253_402_300_799_999


def number_of(text: bytes) -> float | None:
    """Return a number of the ledger's; None of what is none."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def moment_of(milliseconds: float) -> datetime:
    """Return the time of so many milliseconds since 1970, or the nearest that there is."""
    return _EPOCH + timedelta(milliseconds=min(max(milliseconds, 0), _LAST_MS))


def moment_in(text: bytes) -> datetime | None:
    """Return the time that a text holds in milliseconds since 1970; None when it holds none."""
    value = number_of(text)
    return None if value is None else moment_of(value)
