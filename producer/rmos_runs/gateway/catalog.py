"""What answers questions about many runs."""

from __future__ import annotations

from collections.abc import Callable

from rmos_shared.index.choice import chosen_catalog
from rmos_shared.runs.query import RunCatalog
from rmos_shared.runs.reader import RunReader
from rmos_shared.settings.index import IndexSettings
from rmos_shared.store.base import ArtifactStore

Catalogs = Callable[[RunReader, ArtifactStore], RunCatalog]


def catalogs_of(settings: IndexSettings) -> Catalogs:
    """Return what makes the catalog of these settings: the index, or the store itself."""
    return lambda reader, store: chosen_catalog(settings, reader, store)
