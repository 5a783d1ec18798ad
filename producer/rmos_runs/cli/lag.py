"""What a list may lack: an index can be behind the store."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta

from rmos_runs.cli.context import err
from rmos_shared.models.base import format_utc

#: An indexer that works is never farther behind.
_MAY_LAG = timedelta(seconds=60)


def tell_what_may_lack(title: str, complete_until: datetime | None) -> None:
    """Say up to when a list is complete, if that is not about now."""
    if complete_until is not None and datetime.now(UTC) - complete_until <= _MAY_LAG:
        return
    moment = "an unknown time" if complete_until is None else format_utc(complete_until)
    sys.stdout.flush()
    err.print(
        f"{title}: complete up to {moment}; later ones may be missing, for the index is behind", markup=False
    )
