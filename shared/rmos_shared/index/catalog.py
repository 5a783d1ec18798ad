"""Lists from the index: a page costs the same wherever it is and however many runs there are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from rmos_shared.errors import IndexDamaged, IndexUnavailable, InvalidRequest
from rmos_shared.index.cursor import read_cursor
from rmos_shared.index.database import IndexDatabase, OpenIndex, read_state
from rmos_shared.index.pages import Found, Span, check_limit, examined_at_most, merged, page_of, span_of
from rmos_shared.index.row import Listed, live_explanation
from rmos_shared.index.streams import Window, drivers_of, read_corrupt, read_window
from rmos_shared.jobs.model import JobState
from rmos_shared.runs.model import ExplanationStatus
from rmos_shared.runs.query import RunFilter, RunPage
from rmos_shared.runs.reader import RunReader

#: Of which stored states a run may be that reads so once the ledger is asked: a job may be dead without an
#: attempt on file, and one may be under way after an attempt that failed.
_STORED = {
    ExplanationStatus.READY: (ExplanationStatus.READY,),
    ExplanationStatus.NONE: (ExplanationStatus.NONE,),
    ExplanationStatus.ERROR: (ExplanationStatus.ERROR, ExplanationStatus.NONE),
    ExplanationStatus.PENDING: (ExplanationStatus.NONE, ExplanationStatus.ERROR),
}
#: Runs read for each that is wanted where the ledger has the last word, most of which it nearly always lets
#: pass.
_ASKED_PER_ROW = 2


class IndexCatalog:
    """A ``RunCatalog`` on an index.

    The explanation status in a filter is the live one: READY comes from the index alone; for any other the
    ledger is asked about each run that is looked at. Without a ledger no run is PENDING.
    """

    def __init__(
        self, database: IndexDatabase, reader: RunReader, *, store_id: Callable[[], str | None]
    ) -> None:
        """Ask ``database``, and of explanation jobs the ledger behind ``reader``.

        ``store_id`` tells of which store the index must be; it is asked until it has once answered.
        """
        self._database = database
        self._reader = reader
        self._ask_store_id = store_id
        self._store_id: str | None = None

    def page(self, choice: RunFilter, *, limit: int, cursor: str | None = None) -> RunPage:
        """Return up to ``limit`` runs that follow the cursor; see ``RunCatalog``.

        Raises:
            IndexDamaged: the index is missing, damaged, of another version or of another store.
            IndexUnavailable: its database does not answer.
            StoreUnavailable: which store there is was never told.
            BrokerUnavailable: the filter asks for what only the ledger knows, and it does not answer.
        """
        check_limit(limit)
        span = span_of(choice, None if cursor is None else read_cursor(cursor, choice))
        index = self._database.current()
        try:
            return self._page(index, choice, span, limit)
        except (IndexDamaged, IndexUnavailable):
            # A rebuild may have put another one in its place just now.
            if (renewed := self._database.current()) is index:
                raise
            return self._page(renewed, choice, span, limit)

    def _page(self, index: OpenIndex, choice: RunFilter, span: Span, limit: int) -> RunPage:
        if self._store_id is None:
            self._store_id = self._ask_store_id()
        wanted = choice.explanation_status
        asks = wanted not in {None, ExplanationStatus.READY} and self._reader.knows_jobs
        rows = limit + 1
        if asks:
            sparse = wanted is not ExplanationStatus.NONE
            rows = examined_at_most(limit) if sparse else _ASKED_PER_ROW * rows
        with index.read() as connection:
            state = read_state(connection, self._store_id)
            drivers = drivers_of(connection, choice, _stored(wanted, asks=asks))
            window = read_window(
                connection, choice, drivers, span, rows=rows, examined=examined_at_most(limit)
            )
            low = window.rest or span.low
            corrupt = read_corrupt(connection, Span(low, span.high), rows=limit + 1)
        passing: Iterable[Listed] = self._live(window, wanted) if asks and wanted else window.rows
        return page_of(
            merged(map(_found, passing), ((place, None) for place in corrupt)),
            choice,
            limit=limit,
            rest=window.rest,
            complete_until=state.complete_until_utc,
        )

    def _live(self, window: Window, wanted: ExplanationStatus) -> list[Listed]:
        """Return the rows whose explanation reads as ``wanted`` now."""
        jobs = self._reader.explanation_jobs([row.run_id for row in window.rows])
        states = {run_id: job.state for run_id, job in jobs.items()}
        return [row for row in window.rows if _explanation(row, states.get(row.run_id)) is wanted]


def _explanation(row: Listed, job: JobState | None) -> ExplanationStatus:
    try:
        return live_explanation(ExplanationStatus(row.explanation), job)
    except ValueError:
        raise IndexDamaged("a row of it is no run") from None


def _stored(wanted: ExplanationStatus | None, *, asks: bool) -> Sequence[ExplanationStatus] | None:
    if wanted is None:
        return None
    if asks:
        return _STORED[wanted]
    # Nothing stored is PENDING.
    return () if wanted is ExplanationStatus.PENDING else (wanted,)


def _found(row: Listed) -> Found:
    try:
        return row.place, row.item()
    except (InvalidRequest, ValueError):
        raise IndexDamaged("a row of it is no run") from None
