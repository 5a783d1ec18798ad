"""Lists of runs and indexes for tests."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

from rmos_shared.clock import SystemClock
from rmos_shared.index.catalog import IndexCatalog
from rmos_shared.index.choice import chosen_catalog, chosen_database, store_id_of
from rmos_shared.index.database import IndexDatabase
from rmos_shared.index.fallback import FallbackCatalog
from rmos_shared.index.rebuild import rebuild
from rmos_shared.index.store_catalog import StoreCatalog
from rmos_shared.runs.query import MAX_LIMIT, RunCatalog, RunFilter, RunItem
from rmos_shared.runs.reader import RunReader
from rmos_shared.settings.index import IndexSettings
from rmos_shared.store.local import LocalStore


class Later(SystemClock):
    """A clock that is ahead, so that stamps of just now are old."""

    def __init__(self, seconds: float = 10) -> None:
        self._ahead = timedelta(seconds=seconds)

    def now(self) -> datetime:
        return super().now() + self._ahead


def listed(catalog: RunCatalog, **fields: object) -> list[RunItem | str]:
    """Return the items and corrupt files of all pages."""
    choice, cursor = RunFilter.read(fields), None
    found: list[tuple[str, RunItem | str]] = []
    while True:
        page = catalog.page(choice, limit=MAX_LIMIT, cursor=cursor)
        found += [(item.artifact_path, item) for item in page.items] + [(file, file) for file in page.corrupt]
        cursor = page.next_cursor
        if cursor is None:
            return [entry for _, entry in sorted(found, key=lambda each: each[0], reverse=True)]


class Indexed:
    """A store on disk with an index of it."""

    def __init__(self, runs_dir: Path, url: str) -> None:
        self.store = LocalStore(runs_dir)
        self.settings = IndexSettings.load(index_url=url, index_timeout_seconds=2.0)
        self.database: IndexDatabase = chosen_database(self.settings)
        self.reader = RunReader(self.store)
        self._opened: list[FallbackCatalog | StoreCatalog] = []

    @property
    def store_id(self) -> str | None:
        return store_id_of(self.store)

    @property
    def by_store(self) -> StoreCatalog:
        return StoreCatalog(self.reader, self.store)

    @property
    def by_index(self) -> IndexCatalog:
        return IndexCatalog(self.database, self.reader, store_id=lambda: self.store_id)

    def chosen(self) -> FallbackCatalog | StoreCatalog:
        """Return the catalog that the settings choose."""
        made = chosen_catalog(self.settings, self.reader, self.store)
        self._opened.append(made)
        return made

    def close(self) -> None:
        for opened in (self.database, *self._opened):
            opened.close()

    def rebuild(self, processes: int = 1) -> None:
        rebuild(self.database, self.store, store_id=self.store_id, processes=processes, clock=Later())

    def agree(self, **fields: object) -> list[RunItem | str]:
        """Return the list of a filter, which both must give."""
        told = listed(self.by_index, **fields)
        assert told == listed(self.by_store, **fields)
        return told
