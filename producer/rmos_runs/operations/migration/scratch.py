"""What a migration must remember of every record, on disk, so that memory stays flat."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from typing import Self

from rmos_shared.errors import StoreUnavailable

_SCHEMA = (
    # Nothing of it outlives the process.
    "PRAGMA journal_mode = OFF",
    "PRAGMA synchronous = OFF",
    "CREATE TABLE names (branch BLOB, name BLOB, PRIMARY KEY (branch, name)) WITHOUT ROWID",
    "CREATE TABLE seen (run_id TEXT PRIMARY KEY, place TEXT, digest TEXT) WITHOUT ROWID",
    "CREATE TABLE stored (run_id TEXT PRIMARY KEY, key TEXT) WITHOUT ROWID",
)
_PAGE = 1_000


class Scratch:
    """A private database in the system's directory for temporary files, gone when it is closed."""

    def __init__(self) -> None:
        """Begin empty."""
        # SQLite's own name for such a database; it goes to disk once it is larger than its cache.
        self._database = sqlite3.connect("", isolation_level=None)
        for statement in _SCHEMA:
            self._database.execute(statement)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        """Give the space back.

        Raises:
            StoreUnavailable: that directory is full, or cannot be written.
        """
        self._database.close()
        if isinstance(error, sqlite3.Error):
            raise StoreUnavailable(
                f"the directory for temporary files cannot be used ({error}); make room, or set SQLITE_TMPDIR"
            ) from error

    # -- the names of a directory ---------------------------------------------------------------------

    def add_name(self, branch: bytes, name: bytes) -> None:
        """Remember a file of a directory of the source."""
        self._database.execute("INSERT OR IGNORE INTO names VALUES (?, ?)", (branch, name))

    def has_name(self, branch: bytes, name: bytes) -> bool:
        """Say whether a file is remembered."""
        found = self._database.execute("SELECT 1 FROM names WHERE branch = ? AND name = ?", (branch, name))
        return found.fetchone() is not None

    def branches(self) -> Iterator[bytes]:
        """Yield the directories of which a file is remembered, in order."""
        last: bytes | None = None
        while True:
            found = self._database.execute(
                "SELECT MIN(branch) FROM names WHERE ?1 IS NULL OR branch > ?1", (last,)
            ).fetchone()
            if found[0] is None:
                return
            last = bytes(found[0])
            yield last

    def names(self, branch: bytes) -> Iterator[bytes]:
        """Yield the files of a directory in order; one forgotten meanwhile may be yielded."""
        last = b""
        while page := self._database.execute(
            "SELECT name FROM names WHERE branch = ? AND name > ? ORDER BY name LIMIT ?",
            (branch, last, _PAGE),
        ).fetchall():
            yield from (bytes(name) for (name,) in page)
            last = bytes(page[-1][0])

    def names_with(self, branch: bytes, prefix: bytes) -> list[bytes]:
        """Return the files whose names begin with ``prefix``, in order."""
        after = prefix[:-1] + bytes([prefix[-1] + 1])
        found = self._database.execute(
            "SELECT name FROM names WHERE branch = ? AND name >= ? AND name < ? ORDER BY name",
            (branch, prefix, after),
        ).fetchall()
        return [bytes(name) for (name,) in found]

    def forget_name(self, branch: bytes, name: bytes) -> None:
        """Forget a file that was dealt with."""
        self._database.execute("DELETE FROM names WHERE branch = ? AND name = ?", (branch, name))

    # -- the records ----------------------------------------------------------------------------------

    def first_of(self, run_id: str, place: str, digest: str) -> tuple[str, str] | None:
        """Remember where a run's record lies; return place and digest of an earlier one of the same id."""
        values = (run_id, place, digest)
        if self._database.execute("INSERT OR IGNORE INTO seen VALUES (?, ?, ?)", values).rowcount:
            return None
        found = self._database.execute(
            "SELECT place, digest FROM seen WHERE run_id = ?", (run_id,)
        ).fetchone()
        return str(found[0]), str(found[1])

    def add_stored(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Remember under which keys runs are stored; of one id the first counts."""
        self._database.execute("BEGIN")
        self._database.executemany("INSERT OR IGNORE INTO stored VALUES (?, ?)", pairs)
        self._database.execute("COMMIT")

    def stored_key(self, run_id: str) -> str | None:
        """Return the key that is remembered for a run."""
        found = self._database.execute("SELECT key FROM stored WHERE run_id = ?", (run_id,)).fetchone()
        return None if found is None else str(found[0])

    def stored_count(self) -> int:
        """Return how many runs are remembered."""
        return int(self._database.execute("SELECT COUNT(*) FROM stored").fetchone()[0])
