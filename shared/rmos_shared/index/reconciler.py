"""The index held against the store: whatever it lacks is read, whatever the store lacks is taken out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from itertools import islice
from typing import TypeVar

from sqlalchemy import Connection, select

from rmos_shared.clock import Clock, SystemClock
from rmos_shared.errors import CorruptArtifact
from rmos_shared.index.database import OpenIndex, write_complete
from rmos_shared.index.day import DayNames, DayReader, RunNames
from rmos_shared.index.row import CorruptRow, IndexRow, file_at, place_of
from rmos_shared.index.stamps import ABSENT, UNKNOWN, Stamps, same, stamps_of
from rmos_shared.index.tables import CORRUPT, RUN
from rmos_shared.index.writer import IndexWriter, stored_stamps
from rmos_shared.runs.lookup import RunLookup
from rmos_shared.store.base import ArtifactStore

#: Runs read before their rows are written: what a killed indexer has to read again.
CHUNK = 500

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Indexed:
    """What the index holds of one day."""

    #: Links, reviews and attempts of each run, by place.
    runs: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    #: Size and time of each file that cannot be read, by place.
    corrupt: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Difference:
    """What must be done for the index to hold what the store does."""

    #: To be read whole: of no row yet, or with fewer files beside it than the index knows of.
    missing: list[RunNames]
    #: To have what lies beside them read.
    changed: list[RunNames]
    #: Places in the index without a name in the store.
    gone: list[str]


def difference(names: DayNames, indexed: Indexed) -> Difference:
    """Return how the index of a day differs from its names; corrupt files that are still there do not."""
    missing, changed = [], []
    there = set()
    for run in names.runs():
        place = place_of(run.file)
        there.add(place)
        known = indexed.runs.get(place)
        if known is None:
            if place not in indexed.corrupt:
                missing.append(run)
        elif sum(known) > sum(run.counts):
            missing.append(run)  # another copy of the store: what is known is of files that are gone
        elif known != run.counts:
            changed.append(run)
    gone = [place for place in (*indexed.runs, *indexed.corrupt) if place not in there]
    return Difference(missing, changed, gone)


class Reconciler:
    """Completes what notices miss. Every step may be repeated, and broken off at any point.

    All methods raise ``StoreUnavailable``, ``IndexUnavailable`` and ``IndexDamaged``.
    """

    def __init__(self, store: ArtifactStore, *, clock: Clock | None = None) -> None:
        """Read ``store``."""
        self._store = store
        self._clock = clock or SystemClock()
        self._lookup = RunLookup(store)
        self._days = DayReader(store)

    def round(self, index: OpenIndex) -> int:
        """Look at every day; return how many runs and files were read or taken out.

        When it returns, all that was stored before it began is in the index, and the index says so.
        """
        began = self._clock.now()
        with index.read() as connection:
            stored = dict(stored_stamps(connection))
            partly = _partly_reviewed(connection)
        forced = {*self._reviewed_since(partly)}
        days = {*stored, *self.days(), *forced}
        changes = sum(
            self.day(index, day, stored.get(day, UNKNOWN), forced=day in forced)
            for day in sorted(days, reverse=True)
        )
        with index.write() as connection:
            write_complete(connection, began)
        return changes

    def days(self) -> Iterator[str]:
        """Yield every day that may be a partition, newest first."""
        return (day.isoformat() for day in self._lookup.days(date.min, date.max))

    def look_at(self, index: OpenIndex, day: str) -> int:
        """Look at one day, whatever its stamps say; return as ``round``."""
        return self.day(index, day, UNKNOWN, forced=True)

    def day(self, index: OpenIndex, day: str, stored: Stamps, *, forced: bool = False) -> int:
        """Look at one day, unless its stamps are those ``stored``; return as ``round``."""
        # Stamps come first: what comes while the names are read changes them.
        stamps = stamps_of(self._store, day, self._clock.now())
        if not forced and (same(stamps, stored) or (stamps[0] == ABSENT and stored == UNKNOWN)):
            return 0
        try:
            names = self._days.names(day)
        except CorruptArtifact as error:
            with index.write() as connection:
                writer = IndexWriter(connection)
                writer.put([CorruptRow(day, error.reason, None)])
                writer.forget_day(day)  # so that it is looked at until it can be read
            return 1
        with index.read() as connection:
            indexed = _indexed(connection, day)
        changes = self._apply(index, names, indexed)
        with index.write() as connection:
            writer = IndexWriter(connection)
            if names.files:
                writer.put_stamps(day, stamps)
            else:
                writer.forget_day(day)
        return changes

    def _apply(self, index: OpenIndex, names: DayNames, indexed: Indexed) -> int:
        unlike = difference(names, indexed)
        again = [
            names.run(file_at(place))
            for place, seen in indexed.corrupt.items()
            if "/" in place and place not in unlike.gone and self._is_another(place, seen)
        ]
        gone = [place for place in unlike.gone if "/" not in place or self._days.is_gone(file_at(place))]
        replaced = [place_of(run.file) for run in unlike.missing if place_of(run.file) in indexed.runs]
        for runs in chunks([*unlike.missing, *again], CHUNK):
            rows = [self._days.row(run) for run in runs]
            with index.write() as connection:
                writer = IndexWriter(connection)
                writer.remove(place for place in replaced if place in {row.place for row in rows})
                writer.put(rows)
                writer.no_longer_corrupt(row.place for row in rows if isinstance(row, IndexRow))
        for runs in chunks(unlike.changed, CHUNK):
            facts = {place_of(run.file): self._days.facts(run) for run in runs}
            with index.write() as connection:
                IndexWriter(connection).put_facts(facts)
        for places in chunks(gone, CHUNK):
            with index.write() as connection:
                IndexWriter(connection).remove(places)
        return len(unlike.missing) + len(again) + len(unlike.changed) + len(gone)

    def _is_another(self, place: str, seen: str | None) -> bool:
        """Say whether a corrupt file is not the one that was seen: an operator put back a good one."""
        now = self._days.seen(file_at(place))
        return now is None or now != seen

    def _reviewed_since(self, partly: Mapping[str, int]) -> Iterator[str]:
        """Yield the days of runs, some of whose advisories waited, that have other reviews now."""
        for place, reviews in partly.items():
            day, _, run_id = place.partition("/")
            if self._days.reviews(day, run_id) != reviews:
                yield day


def chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield the items in lists of at most ``size``."""
    rest = iter(items)
    while chunk := list(islice(rest, size)):
        yield chunk


def _indexed(connection: Connection, day: str) -> Indexed:
    low, high = f"{day}/", f"{day}0"
    runs = connection.execute(
        select(RUN.c.place, RUN.c.links, RUN.c.reviews, RUN.c.attempts).where(
            RUN.c.place >= low, RUN.c.place < high
        )
    )
    corrupt = connection.execute(
        select(CORRUPT.c.place, CORRUPT.c.seen).where(CORRUPT.c.place >= day, CORRUPT.c.place < high)
    )
    return Indexed(
        {place: (links, reviews, attempts) for place, links, reviews, attempts in runs},
        {row.place: row.seen for row in corrupt},
    )


def _partly_reviewed(connection: Connection) -> dict[str, int]:
    found = connection.execute(
        select(RUN.c.place, RUN.c.reviews).where(RUN.c.needs_review == 1, RUN.c.reviews > 0)
    )
    return {row.place: row.reviews for row in found}
