"""Ids that a caller mints before its first try, so that repeating the call is safe."""

from __future__ import annotations

from rmos_shared.ids import new_uuid7


def new_run_id() -> str:
    """Return a new run id: a UUIDv7 of the present time, as 32 lower-case hex digits (contract section 3)."""
    return new_uuid7()
