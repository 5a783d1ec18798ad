"""What a list may lack: an index is always a little behind the store."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta

from rmos_runs.cli.context import err
from rmos_shared.models.base import format_utc

#: An indexer that works is never farther behind.
_MAY_LAG = timedelta(seconds=60)


def tell_what_may_lack(title: str, complete_until: datetime | None, *, began: datetime) -> None:
    """Say up to when a list is complete, if that is before ``began``, when it was asked for."""
    if complete_until is not None and complete_until >= began:
        return
    until = "an unknown time" if complete_until is None else format_utc(complete_until.replace(microsecond=0))
    lags = complete_until is None or datetime.now(UTC) - complete_until > _MAY_LAG
    sys.stdout.flush()
    err.print(
        f"{title}: complete up to {until}"
        + ("; the indexer is behind, see rmos index status" if lags else ""),
        markup=False,
    )
