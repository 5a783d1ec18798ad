"""Lists without an index: the same questions, answered by reading the artifacts themselves."""

from __future__ import annotations

from collections.abc import Iterator

from rmos_shared.clock import Clock, SystemClock
from rmos_shared.errors import CorruptArtifact
from rmos_shared.index.cursor import read_cursor
from rmos_shared.index.day import DayNames, DayReader
from rmos_shared.index.pages import Found, check_limit, days_of, examined_at_most, page_of
from rmos_shared.index.row import IndexRow, file_at, live_explanation, place_of
from rmos_shared.runs.layout import partition_of
from rmos_shared.runs.query import RunFilter, RunPage
from rmos_shared.runs.reader import RunEntry, RunReader
from rmos_shared.store.base import ArtifactStore


class StoreCatalog:
    """A ``RunCatalog`` that reads every run it looks at: slow, always complete, and flat in memory.

    Order and cursors are those of the index, so that a list may change over from one to the other.
    """

    def __init__(self, reader: RunReader, store: ArtifactStore, *, clock: Clock | None = None) -> None:
        """Read artifacts by ``reader``, and what lies beside them in ``store``."""
        self._reader = reader
        self._store = store
        self._clock = clock or SystemClock()

    def page(self, choice: RunFilter, *, limit: int, cursor: str | None = None) -> RunPage:
        """Return up to ``limit`` runs that follow the cursor; see ``RunCatalog``."""
        check_limit(limit)
        began = self._clock.now()
        found: list[Found] = []
        rest = None
        after = None if cursor is None else file_at(read_cursor(cursor, choice))
        look = _Look(self._reader, DayReader(self._store), choice)
        for number, entry in enumerate(self._reader.list_runs(*days_of(choice), after=after), start=1):
            found += look.at(entry)
            if len(found) > limit:
                break
            if number == examined_at_most(limit):
                rest = place_of(entry.key)
                break
        return page_of(found, choice, limit=limit, rest=rest, complete_until=began)

    def close(self) -> None:
        """Do nothing: no connection is kept."""


class _Look:
    """Holds the entries of one page against its filter; keeps the names of the day that it is in."""

    def __init__(self, reader: RunReader, days: DayReader, choice: RunFilter) -> None:
        self._reader = reader
        self._days = days
        self._choice = choice
        self._day = ""
        self._names = DayNames()

    def at(self, entry: RunEntry) -> Iterator[Found]:
        """Yield the entry, if it passes."""
        run, choice = entry.artifact, self._choice
        if run is None:
            yield place_of(entry.key), None
            return
        names = self._names_of(entry.key).run(entry.key)
        row = IndexRow.of(run, entry.key, self._days.facts(names))
        if row.passes(choice) and self._explained(row, run.run_id):
            yield row.place, row.item()

    def _explained(self, row: IndexRow, run_id: str) -> bool:
        wanted, stored = self._choice.explanation_status, row.facts.explanation
        if wanted is None:
            return True
        job = self._reader.explanation_jobs([run_id]).get(run_id)
        return live_explanation(stored, None if job is None else job.state) is wanted

    def _names_of(self, file: str) -> DayNames:
        """Return the names of the file's day, if the filter asks for what they tell."""
        if self._choice.explanation_status is None and self._choice.needs_review is None:
            return self._names
        day = partition_of(file)
        if day != self._day:
            try:
                self._names = self._days.names(day)
            except CorruptArtifact:
                self._names = DayNames()  # it was listed a moment ago; the list itself tells of the damage
            self._day = day
        return self._names
