"""Lists whatever becomes of the index: the store answers where it cannot."""

from __future__ import annotations

from rmos_shared.clock import Clock, SystemClock
from rmos_shared.errors import IndexDamaged, IndexUnavailable
from rmos_shared.index.catalog import IndexCatalog
from rmos_shared.index.database import IndexDatabase
from rmos_shared.runs.query import RunCatalog, RunFilter, RunPage
from rmos_shared.telemetry.events import IndexInUse, IndexUnused
from rmos_shared.telemetry.log import emit

#: An index that failed is not asked again so soon: a database that is away costs a time-out each time.
_REST_SECONDS = 5.0


class FallbackCatalog:
    """A ``RunCatalog`` that asks the index, and the store while the index is missing, damaged or away.

    Cursors hold through both. An outage is one event, and its end another.
    """

    def __init__(
        self,
        index: IndexCatalog,
        database: IndexDatabase,
        store: RunCatalog,
        *,
        clock: Clock | None = None,
    ) -> None:
        """Ask ``index``, which is in ``database``, else ``store``."""
        self._index = index
        self._database = database
        self._store = store
        self._clock = clock or SystemClock()
        self._ask_again_at: float | None = None
        self._told = False

    def page(self, choice: RunFilter, *, limit: int, cursor: str | None = None) -> RunPage:
        """Return up to ``limit`` runs that follow the cursor; see ``RunCatalog``."""
        if self._ask_again_at is None or self._clock.monotonic() >= self._ask_again_at:
            try:
                page = self._index.page(choice, limit=limit, cursor=cursor)
            except (IndexDamaged, IndexUnavailable) as error:
                self._failed(error)
            else:
                self._answered()
                return page
        return self._store.page(choice, limit=limit, cursor=cursor)

    def close(self) -> None:
        """Close the connections."""
        self._database.close()

    def _failed(self, error: IndexDamaged | IndexUnavailable) -> None:
        self._ask_again_at = self._clock.monotonic() + _REST_SECONDS
        if not self._told and self._is_there():
            self._told = True
            emit(IndexUnused(error=str(error)))

    def _answered(self) -> None:
        self._ask_again_at = None
        if self._told:
            self._told = False
            emit(IndexInUse())

    def _is_there(self) -> bool:
        """Say whether there should have been an answer; that an index was never made is no event."""
        try:
            return self._database.exists()
        except IndexUnavailable:
            return True
