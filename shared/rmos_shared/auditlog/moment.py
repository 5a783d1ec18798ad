"""The earliest time at which a file can have been sealed: where the search for it in the log begins."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from rmos_shared.ids import UUID7, uuid7_time

_ID = rf"({UUID7.pattern})(?![0-9a-f])"
_DAY = r"(\d{4}-\d\d-\d\d)"
#: What has an id or a time of its own, beside that of its run, which may be much older.
_REVIEW = re.compile(rf"_reviews/{_DAY}/[^/]+/{_ID}", re.ASCII)
_ATTEMPT = re.compile(r"_attempts/[^/]+/[^/]+/[^/]+_(\d{1,15})\.json", re.ASCII)
#: What lies by days, and the id of what: a run, an act, a batch. That of a migrated run tells no time.
_BY_DAY = re.compile(rf"(?:_[a-z]+/)?{_DAY}/(?:{_ID})?", re.ASCII)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def earliest(key: str, modified_at: datetime | None, otherwise: datetime) -> datetime:
    """Return the earliest time that the file's name and its own time allow; ``otherwise`` without either.

    The earlier of the two: who puts back a copy may give it a later time, and who minted an id may have had a
    clock that was ahead.
    """
    times = [time for time in (time_in(key), modified_at) if time is not None]
    return min(times, default=otherwise)


def time_in(key: str) -> datetime | None:
    """Return the time before which nothing was published under ``key``, by its name; None: it tells none."""
    if (review := _REVIEW.match(key)) and (moment := uuid7_time(review[2])):
        return moment
    try:
        if attempt := _ATTEMPT.fullmatch(key):
            return _EPOCH + timedelta(milliseconds=int(attempt[1]))
        if found := _BY_DAY.match(key):
            moment = uuid7_time(found[2]) if found[2] else None
            return moment or datetime.fromisoformat(found[1]).replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        pass  # no day, or beyond the last that there is
    return None
