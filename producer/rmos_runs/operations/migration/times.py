"""The times of old records; pure."""

from __future__ import annotations

from datetime import datetime

from pydantic import TypeAdapter, ValidationError

from rmos_shared.models.base import UtcTime

_UTC_TIME: TypeAdapter[datetime] = TypeAdapter(UtcTime)


def moment_of(value: object) -> tuple[datetime | None, bool]:
    """Return an old record's time in UTC, None if it is none; and whether it named its zone.

    One without a zone is UTC: the old systems' fields say so in their names, and they wrote no other.
    """
    if not isinstance(value, str):
        return None, False
    for text, zoned in ((value, True), (f"{value}Z", False)):
        try:
            return _UTC_TIME.validate_python(text), zoned
        except ValidationError:
            continue
    return None, False
