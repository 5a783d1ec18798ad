"""Which runs a filter means, all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rmos_shared.errors import FieldProblem, InvalidRequest
from rmos_shared.runs.query import MAX_LIMIT, RunCatalog, RunFilter, RunPage


@dataclass(frozen=True, slots=True)
class Selection:
    """The runs of a filter, at one moment."""

    #: In order.
    run_ids: list[str]
    #: Keys in its range that should be artifacts and cannot be read as such.
    corrupt: list[str]
    #: Up to when it is sure to hold everything that was stored; None: nothing is known.
    complete_until_utc: datetime | None


class Pages:
    """The pages of a filter, to its end, each asked for when the one before is through."""

    def __init__(self, catalog: RunCatalog, choice: RunFilter) -> None:
        """Ask ``catalog``."""
        self._catalog = catalog
        self._choice = choice
        #: Up to when the pages so far are sure to hold everything that was stored; None: nothing is known.
        self.complete_until_utc: datetime | None = None

    def __iter__(self) -> Iterator[RunPage]:
        """Yield the pages; raises as ``RunCatalog.page``."""
        moments: list[datetime | None] = []
        cursor: str | None = None
        while True:
            page = self._catalog.page(self._choice, limit=MAX_LIMIT, cursor=cursor)
            moments = [earliest([*moments, page.complete_until_utc])]
            self.complete_until_utc = moments[0]
            yield page
            cursor = page.next_cursor
            if cursor is None:
                return


def earliest(moments: Sequence[datetime | None]) -> datetime | None:
    """Return the earliest of some moments; an unknown one may be any."""
    known = [moment for moment in moments if moment is not None]
    return min(known) if len(known) == len(moments) else None


def select(catalog: RunCatalog, choice: RunFilter, *, most_runs: int) -> Selection:
    """Return all runs of a filter; memory holds their ids.

    Raises:
        InvalidRequest: they are more than ``most_runs``; or as ``RunCatalog.page``.
        StoreUnavailable: the store, or the index, is away.
    """
    run_ids: set[str] = set()
    corrupt: set[str] = set()
    pages = Pages(catalog, choice)
    for page in pages:
        run_ids.update(item.run_id for item in page.items)
        corrupt.update(page.corrupt)
        if len(run_ids) > most_runs:
            problem = FieldProblem("filter", f"means more than {most_runs} runs; narrow it")
            raise InvalidRequest((problem,), what="selection")
    return Selection(sorted(run_ids), sorted(corrupt), pages.complete_until_utc)


def told_of(choice: RunFilter) -> dict[str, Any]:
    """Return a filter as the record of an act tells it: what it asks for, and nothing else."""
    return {name: value for name, value in choice.dump().items() if value is not None}
