"""From the settings to the catalog of runs: an index where there is one, else the store itself."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from rmos_shared.errors import IndexDamaged, SettingsInvalid
from rmos_shared.index.store_catalog import StoreCatalog
from rmos_shared.runs.reader import RunReader
from rmos_shared.settings.index import SQLITE, IndexSettings
from rmos_shared.store.base import ArtifactStore
from rmos_shared.store.identity import StoreIdentity

if TYPE_CHECKING:
    from rmos_shared.index.database import IndexDatabase, State
    from rmos_shared.index.fallback import FallbackCatalog


@runtime_checkable
class _Identified(Protocol):
    def identity(self) -> StoreIdentity: ...


def chosen_catalog(
    settings: IndexSettings, reader: RunReader, store: ArtifactStore
) -> FallbackCatalog | StoreCatalog:
    """Return the ``RunCatalog`` of the runs in ``store``; who opened it closes it.

    Without an index, or with one that cannot be used, the store itself answers, slower.

    Raises:
        SettingsInvalid: there is an index, and the program that it needs is not installed.
    """
    by_reading = StoreCatalog(reader, store)
    if settings.index_url is None or not (has_index(settings) or _missing(settings) is None):
        return by_reading
    database = chosen_database(settings)
    # SQLAlchemy comes with an extra, which who has no index does not need.
    from rmos_shared.index.catalog import IndexCatalog  # noqa: PLC0415
    from rmos_shared.index.fallback import FallbackCatalog  # noqa: PLC0415

    index = IndexCatalog(database, reader, store_id=lambda: store_id_of(store))
    return FallbackCatalog(index, database, by_reading)


def has_index(settings: IndexSettings) -> bool:
    """Say whether an index is set and may be there: of a file that is told at once."""
    if settings.index_url is None:
        return False
    path = sqlite_path(settings)
    return path is None or os.path.lexists(path)


def chosen_database(settings: IndexSettings) -> IndexDatabase:
    """Return the database that the settings name; opens nothing yet.

    Raises:
        SettingsInvalid: they name none, or the program that it needs is not installed.
    """
    if settings.index_url is None:
        raise SettingsInvalid("RMOS_INDEX_URL: names no index; give sqlite:////path/index.db")
    missing = _missing(settings)
    if missing is not None:
        raise SettingsInvalid(
            f"RMOS_INDEX_URL: {missing} is not installed; pip install 'rmos-runs[index,postgres]'"
        )
    path = sqlite_path(settings)
    from rmos_shared.index.postgres import PostgresIndex  # noqa: PLC0415
    from rmos_shared.index.sqlite import SqliteIndex  # noqa: PLC0415

    if path is not None:
        return SqliteIndex(path, timeout_seconds=settings.index_timeout_seconds)
    return PostgresIndex(
        settings.index_url.get_secret_value(), timeout_seconds=settings.index_timeout_seconds
    )


def index_state(settings: IndexSettings, store_id: str | None) -> State:
    """Return what the index says of itself.

    Raises:
        SettingsInvalid: no index is set, or what it needs is not installed.
        IndexDamaged: it is missing, damaged, or of another version or store.
        IndexUnavailable: its database does not answer.
    """
    if settings.index_url is not None and not has_index(settings):
        raise IndexDamaged("it is missing")
    database = chosen_database(settings)
    from rmos_shared.index.database import read_state  # noqa: PLC0415

    try:
        with database.current().read() as connection:
            return read_state(connection, store_id)
    finally:
        database.close()


def sqlite_path(settings: IndexSettings) -> Path | None:
    """Return the file of the index, if it is one."""
    address = "" if settings.index_url is None else settings.index_url.get_secret_value()
    return Path(address.removeprefix(SQLITE)) if address.startswith(SQLITE) else None


def _missing(settings: IndexSettings) -> str | None:
    """Return a module that the index needs and that is not installed."""
    needed = ("sqlalchemy", "psycopg") if sqlite_path(settings) is None else ("sqlalchemy",)
    return next((module for module in needed if find_spec(module) is None), None)


def store_id_of(store: ArtifactStore) -> str | None:
    """Return which store it is; None for one that has no identity.

    Raises:
        StoreUnavailable: it is away.
    """
    return store.identity().store_id if isinstance(store, _Identified) else None
