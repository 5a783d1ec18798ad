"""Whether a day may hold what the index does not: told by its directories' stamps, without a list of names.

What lies beside an artifact is told as well. A link lies in the partition. The first attempt of a run, and
its first review, make a directory of the run's own, which changes the directory of that day's attempts or
reviews. Later attempts change nothing that a list shows. Later reviews do only where a run has several
advisories and some of them still wait; those few runs are looked at one by one (``Reconciler``).
"""

from __future__ import annotations

from datetime import datetime, timedelta

from rmos_shared.errors import CorruptArtifact
from rmos_shared.runs import layout as keys
from rmos_shared.store.base import ArtifactStore, StampedStore

#: A stamp that is younger may be kept by names that come after it: clocks of file systems tick slowly, some
#: every two seconds.
SETTLED_AFTER = timedelta(seconds=2.5)
#: Stands for a directory that is not there.
ABSENT = "absent"
#: Of a day's partition, its reviews and its attempts; None: to be looked at again.
Stamps = tuple[str | None, str | None, str | None]
#: Of a day that no index knows.
UNKNOWN: Stamps = (None, None, None)


def stamps_of(store: ArtifactStore, day: str, now: datetime) -> Stamps:
    """Return the stamps of a day's directories, taken at ``now`` or later.

    Raises:
        StoreUnavailable: the store is away.
    """
    return (
        _stamp(store, day, now),
        _stamp(store, f"{keys.REVIEWS}{day}", now),
        _stamp(store, f"{keys.ATTEMPTS}{day}", now),
    )


def same(stamps: Stamps, stored: Stamps) -> bool:
    """Say whether nothing can have come since the stored ones were taken."""
    return None not in stamps and stamps == stored


def _stamp(store: ArtifactStore, directory: str, now: datetime) -> str | None:
    if not isinstance(store, StampedStore):
        return None
    try:
        stamp = store.stamp(directory)
    except CorruptArtifact:
        return None  # what stands there is told by whoever reads it
    if stamp is None:
        return ABSENT
    return stamp.token if now - stamp.changed_at > SETTLED_AFTER else None
