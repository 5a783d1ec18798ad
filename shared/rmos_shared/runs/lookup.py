"""Where runs lie: the partition of one, and the days that hold any."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date, timedelta
from typing import TypeVar

from rmos_shared.errors import CorruptArtifact, RunNotFound
from rmos_shared.ids import is_safe_id, uuid7_time
from rmos_shared.runs import layout as keys
from rmos_shared.runs.files import reported
from rmos_shared.store.base import ArtifactStore

_ONE_DAY = timedelta(days=1)
#: Days that are looked at one by one; a longer span is halved first, because most of it may be empty.
_WALK_DAYS = 400

ContentT = TypeVar("ContentT")


class RunLookup:
    """Finds runs by id and days by span. All methods raise ``StoreUnavailable`` when the store is away."""

    def __init__(self, store: ArtifactStore) -> None:
        """Look in ``store``."""
        self._store = store

    def artifact_key(self, run_id: str) -> str | None:
        """Return where a run lies, without reading it, or None when it is not stored.

        A UUIDv7 tells its partition, so one path is touched; for an older id every partition is asked.

        Raises:
            CorruptArtifact: it was not found, and something that cannot be read may be hiding it.
        """
        place = self.find(run_id, self._store.head)
        return None if place is None else place[0]

    def partition(self, run_id: str) -> str:
        """Return the partition of a run.

        Raises:
            RunNotFound: there is no such run.
            CorruptArtifact: as ``artifact_key``.
        """
        key = self.artifact_key(run_id)
        if key is None:
            raise not_found(run_id)
        return keys.partition_of(key)

    def find(self, run_id: str, look: Callable[[str], ContentT | None]) -> tuple[str, ContentT] | None:
        """Return the first place of a run where ``look`` finds something, and what; or None.

        Raises:
            CorruptArtifact: it was found nowhere, and something that cannot be read may be hiding it.
        """
        damage: CorruptArtifact | None = None
        for key in self._places(run_id):
            try:
                content = look(key)
            except CorruptArtifact as error:
                # Another partition may hold the run all the same.
                damage = reported(error)
            else:
                if content is not None:
                    return key, content
        if damage is not None:
            raise damage
        return None

    def days(self, first: date, last: date) -> Iterator[date]:
        """Yield days from ``last`` down to ``first`` that may be partitions, and all that are.

        A store lists upwards only, so a long span is halved, and halves that hold nothing cost one look.
        """
        oldest = self._oldest_partition(first)
        if oldest is not None and oldest <= last:
            yield from self._days_down_to(oldest, last)

    def _places(self, run_id: str) -> Iterator[str]:
        if not is_safe_id(run_id):
            return
        moment = uuid7_time(run_id)
        if moment is not None:
            yield keys.run_key(moment.date().isoformat(), run_id)
            return
        for day in self.days(date.min, date.max):
            yield keys.run_key(day.isoformat(), run_id)

    def _days_down_to(self, oldest: date, last: date) -> Iterator[date]:
        span = (last - oldest).days
        if span <= _WALK_DAYS:
            yield from (last - timedelta(days=days) for days in range(span + 1))
            return
        middle = oldest + timedelta(days=span // 2)
        yield from self.days(middle + _ONE_DAY, last)
        yield from self._days_down_to(oldest, middle)

    def _oldest_partition(self, first: date) -> date | None:
        # "0" sorts just after "/", so this passes by all of the day before.
        after = f"{first - _ONE_DAY}0" if first > date.min else ""
        for key in self._store.list("", after):
            if key[0] > "9":
                break  # the partitions are behind us: names of ours that are none begin with "_"
            day = keys.partition_day(keys.partition_of(key))
            if day is not None:
                return day
        return None


def not_found(run_id: str) -> RunNotFound:
    """Return the error for a run that is nowhere."""
    # Ids come from outside; a lone surrogate in one must not break whoever prints the error.
    return RunNotFound(run_id.encode("ascii", "backslashreplace").decode())
