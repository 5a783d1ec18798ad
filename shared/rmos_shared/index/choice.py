"""From the settings to the catalog of runs: an index where there is one, else the store itself."""

from __future__ import annotations

from rmos_shared.index.store_catalog import StoreCatalog
from rmos_shared.runs.query import RunCatalog
from rmos_shared.runs.reader import RunReader
from rmos_shared.settings.index import IndexSettings
from rmos_shared.store.base import ArtifactStore


def chosen_catalog(settings: IndexSettings, reader: RunReader, store: ArtifactStore) -> RunCatalog:
    """Return what answers lists of the runs in ``store``; opens nothing yet.

    Without an index, or with one that cannot be used, the store itself answers, slower.
    """
    del settings  # the index itself follows
    return StoreCatalog(reader, store)
