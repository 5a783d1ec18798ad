"""Which runs a tree is made of: those of a filter, or those that one run came from and that came from it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import islice

from rmos_runs.operations.selection import Pages, earliest
from rmos_runs.operations.tree import TreeItem
from rmos_shared.errors import CorruptArtifact, RunNotFound
from rmos_shared.runs.query import RunCatalog, RunFilter
from rmos_shared.runs.reader import RunReader


class Relatives:
    """Gathers the items of a tree; of each run the artifact is read, for a list lacks its parent.

    Every method raises ``StoreUnavailable`` when the store, or the index, is away.
    """

    def __init__(
        self, catalog: RunCatalog, reader: RunReader, on_damage: Callable[[CorruptArtifact], None]
    ) -> None:
        """Ask ``catalog``, and call ``on_damage`` with what cannot be read."""
        self._catalog = catalog
        self._reader = reader
        self._on_damage = on_damage
        #: Keys of damage that was reported already: the next question may meet it again.
        self._reported: set[str] = set()
        self._complete: list[datetime | None] = []

    @property
    def complete_until_utc(self) -> datetime | None:
        """Up to when the answers so far hold everything that was stored for sure; None: nothing is known."""
        return earliest(self._complete) if self._complete else None

    def chosen(self, choice: RunFilter, *, most_runs: int) -> tuple[list[TreeItem], bool]:
        """Return up to so many runs of a filter, newest day first, and whether there are more."""
        items = list(islice(self._items(choice), most_runs + 1))
        return items[:most_runs], len(items) > most_runs

    def family(self, run_id: str, *, most_runs: int) -> tuple[list[TreeItem], bool]:
        """Return a run, all that it came from, all that came from it, and whether there are more.

        Each run costs one question to the catalog: with an index that is little, without one it is a walk
        through the store.

        Raises:
            RunNotFound: there is no such run.
            CorruptArtifact: it cannot be read.
        """
        family = {run_id: TreeItem.of(self._reader.get_artifact(run_id))}
        more = False
        for item in self._ancestors(family[run_id]):
            more = len(family) >= most_runs
            if item.run_id in family or more:
                break
            family[item.run_id] = item
        waiting = deque([run_id])
        while waiting and not more:
            for child in self._items(RunFilter(parent_run_id=waiting.popleft())):
                if child.run_id in family:
                    continue
                if len(family) >= most_runs:
                    more = True
                    break
                family[child.run_id] = child
                waiting.append(child.run_id)
        return list(family.values()), more

    def _ancestors(self, item: TreeItem) -> Iterator[TreeItem]:
        """Yield the parents upwards, round and round where they go in a circle."""
        while item.parent_run_id is not None:
            parent = self._item(item.parent_run_id)
            if parent is None:
                return
            yield parent
            item = parent

    def _items(self, choice: RunFilter) -> Iterator[TreeItem]:
        pages = Pages(self._catalog, choice)
        for page in pages:
            self._complete = [earliest([*self._complete, pages.complete_until_utc])]
            for key in page.corrupt:
                self._report(CorruptArtifact(key, "it cannot be read as an artifact"))
            for row in page.items:
                item = self._item(row.run_id)
                if item is not None:
                    yield item

    def _item(self, run_id: str) -> TreeItem | None:
        try:
            return TreeItem.of(self._reader.get_artifact(run_id))
        except RunNotFound:
            return None  # a parent that is elsewhere; the tree names it
        except CorruptArtifact as error:
            self._report(error)
            return None

    def _report(self, error: CorruptArtifact) -> None:
        if error.key not in self._reported:
            self._reported.add(error.key)
            self._on_damage(error)
