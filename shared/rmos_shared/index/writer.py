"""Writing rows. Each write may be repeated, and come late: older facts never replace newer ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Insert, bindparam, delete, select, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from rmos_shared.index.row import CorruptRow, Facts, IndexRow
from rmos_shared.index.stamps import Stamps
from rmos_shared.index.tables import CORRUPT, DAY, RUN

#: The columns that a run's artifact fills, which never change; the others are its facts.
_FACTS = ("explanation", "needs_review", "links", "reviews", "attempts")
_ARTIFACT = tuple(column.name for column in RUN.columns if column.name not in _FACTS)


class IndexWriter:
    """Writes within one transaction of its caller's."""

    def __init__(self, connection: Connection) -> None:
        """Write by ``connection``."""
        self._connection = connection

    def put(self, rows: Sequence[IndexRow | CorruptRow]) -> None:
        """Write what was read of some artifacts."""
        runs = [_run_values(row) for row in rows if isinstance(row, IndexRow)]
        corrupt = [
            {"place": row.place, "reason": row.reason, "seen": row.seen}
            for row in rows
            if isinstance(row, CorruptRow)
        ]
        if runs:
            self._connection.execute(self._insert_runs(), runs)
        if corrupt:
            self._connection.execute(self._insert_corrupt(), corrupt)

    def put_facts(self, facts: Mapping[str, Facts]) -> None:
        """Write what is new beside artifacts that are in the index, by their places."""
        newer = RUN.c.links + RUN.c.reviews + RUN.c.attempts <= bindparam("all_files")
        statement = (
            update(RUN)
            .where(RUN.c.place == bindparam("at"), newer)
            # A parameter may not have the name of its column.
            .values({name: bindparam(f"new_{name}") for name in _FACTS})
        )
        rows = [
            {
                "at": place,
                "all_files": each.files,
                **{f"new_{name}": value for name, value in _facts(each).items()},
            }
            for place, each in facts.items()
        ]
        if rows:
            self._connection.execute(statement, rows)

    def remove(self, places: Iterable[str]) -> None:
        """Take out runs that the store does not hold, and files that are no longer corrupt."""
        gone = [{"at": place} for place in places]
        if gone:
            for table in (RUN, CORRUPT):
                self._connection.execute(delete(table).where(table.c.place == bindparam("at")), gone)

    def no_longer_corrupt(self, places: Iterable[str]) -> None:
        """Take out files that turned out to be readable."""
        gone = [{"at": place} for place in places]
        if gone:
            self._connection.execute(delete(CORRUPT).where(CORRUPT.c.place == bindparam("at")), gone)

    def put_stamps(self, day: str, stamps: Stamps) -> None:
        """Write that all of a day which these stamps stand for is in the index."""
        statement = self._insert(DAY)
        changed = {name: statement.excluded[name] for name in ("runs", "reviews", "attempts")}
        statement = statement.on_conflict_do_update(index_elements=[DAY.c.day], set_=changed)
        runs, reviews, attempts = stamps
        self._connection.execute(
            statement, {"day": day, "runs": runs, "reviews": reviews, "attempts": attempts}
        )

    def forget_day(self, day: str) -> None:
        """Take out a day that the store does not hold."""
        self._connection.execute(delete(DAY).where(DAY.c.day == day))

    def _insert(self, table: Any) -> Any:
        # The same words in both dialects, by two functions.
        postgresql = self._connection.dialect.name == "postgresql"
        return (postgresql_insert if postgresql else sqlite_insert)(table)

    def _insert_runs(self) -> Insert:
        statement = self._insert(RUN)
        new = statement.excluded
        newer = RUN.c.links + RUN.c.reviews + RUN.c.attempts <= new.links + new.reviews + new.attempts
        changed: Insert = statement.on_conflict_do_update(
            index_elements=[RUN.c.place], set_={name: new[name] for name in _FACTS}, where=newer
        )
        return changed

    def _insert_corrupt(self) -> Insert:
        statement = self._insert(CORRUPT)
        new = statement.excluded
        changed: Insert = statement.on_conflict_do_update(
            index_elements=[CORRUPT.c.place], set_={"reason": new.reason, "seen": new.seen}
        )
        return changed


def stored_stamps(connection: Connection) -> Iterator[tuple[str, Stamps]]:
    """Yield each day that is in the index, with its stamps."""
    for day, runs, reviews, attempts in connection.execute(
        select(DAY.c.day, DAY.c.runs, DAY.c.reviews, DAY.c.attempts)
    ):
        yield day, (runs, reviews, attempts)


def _run_values(row: IndexRow) -> dict[str, Any]:
    return {**{name: getattr(row, name) for name in _ARTIFACT}, **_facts(row.facts)}


def _facts(facts: Facts) -> dict[str, Any]:
    return {
        "explanation": facts.explanation.value,
        "needs_review": int(facts.needs_review),
        "links": facts.links,
        "reviews": facts.reviews,
        "attempts": facts.attempts,
    }
