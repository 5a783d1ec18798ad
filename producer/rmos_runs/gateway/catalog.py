"""What answers questions about many runs."""

from __future__ import annotations

from collections.abc import Callable

from rmos_shared.errors import StoreUnavailable
from rmos_shared.runs.query import RunCatalog, RunFilter, RunPage
from rmos_shared.runs.reader import RunReader
from rmos_shared.store.base import ArtifactStore

Catalogs = Callable[[RunReader, ArtifactStore], RunCatalog]


def no_catalog(_reader: RunReader, _store: ArtifactStore) -> RunCatalog:
    """Return what answers nothing, until there is an index."""
    return _NoCatalog()


class _NoCatalog:
    def page(self, choice: RunFilter, *, limit: int, cursor: str | None = None) -> RunPage:  # noqa: ARG002
        """Say that there is none."""
        raise StoreUnavailable("there is no catalog of the runs")
