"""The earliest time at which a file can have been sealed: where the search for it in the log begins."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from rmos_shared.ids import UUID7, uuid7_time

#: What lies by days, and of what: a run's files, an act's. The id of a run is no UUIDv7 where it was
#: migrated.
_BY_DAY = re.compile(rf"(?:\A|/)(\d{{4}}-\d\d-\d\d)/(?:({UUID7.pattern})(?![0-9a-f]))?", re.ASCII)
_BY_ID = re.compile(rf"\A_[a-z]+/({UUID7.pattern})(?![0-9a-f])", re.ASCII)


def earliest(key: str, modified_at: datetime | None, otherwise: datetime) -> datetime:
    """Return the earliest time that the file's name and its own time allow; ``otherwise`` without either.

    The earlier of the two: who puts back a copy may give it a later time, and who minted an id may have had a
    clock that was ahead.
    """
    times = [time for time in (time_in(key), modified_at) if time is not None]
    return min(times, default=otherwise)


def time_in(key: str) -> datetime | None:
    """Return the time before which nothing was published under ``key``, by its name; None: it tells none."""
    by_day = _BY_DAY.search(key)
    by_id = by_day or _BY_ID.match(key)
    if by_id is None:
        return None
    moment = uuid7_time(by_id[by_id.lastindex or 1])
    if moment is None and by_day is not None:
        try:
            moment = datetime.fromisoformat(by_day[1]).replace(tzinfo=UTC)
        except ValueError:
            return None
    return moment
