"""The database of an index: opened, read, written, and made anew beside itself."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from typing import Protocol

from sqlalchemy import Connection, Engine, insert, select
from sqlalchemy.exc import (
    DBAPIError,
    InterfaceError,
    OperationalError,
    ProgrammingError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.schema import CreateIndex, CreateTable

from rmos_shared.errors import IndexDamaged, IndexUnavailable, InvalidRequest
from rmos_shared.index.tables import FINGERPRINT, INDEXES, METADATA, STATE
from rmos_shared.models.base import Frozen, UtcTime, format_utc

#: Primary result codes of SQLite that pass by themselves or by an operator's hand: the file itself is well.
_SQLITE_PASSES = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_NOMEM,
}
#: The one kind of failed read that means a file that was cut off.
_SQLITE_CUT_OFF = sqlite3.SQLITE_IOERR_SHORT_READ
_SHOWN = 200


class State(Frozen):
    """What an index says of itself."""

    fingerprint: str
    #: Of which store it is.
    store_id: str
    built_at_utc: UtcTime
    #: All that was stored before is in it.
    complete_until_utc: UtcTime


class OpenIndex:
    """One made index, or one that is being made.

    Both verbs raise ``IndexDamaged`` when the database says that it is not what we wrote, and
    ``IndexUnavailable`` when it does not answer.
    """

    def __init__(self, engine: Engine, *, writing: Engine | None = None) -> None:
        """Read by ``engine``, and write by ``writing`` if that differs; connects when first used."""
        self._engine = engine
        self._writing = writing or engine

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Yield a connection that sees one moment of the index, whatever others write meanwhile."""
        with index_errors(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Yield a connection whose writes are seen together, once the block is through, or not at all."""
        with (
            index_errors(),
            self._writing.connect().execution_options(writes=True) as connection,
            connection.begin(),
        ):
            yield connection

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()
        self._writing.dispose()


class IndexDatabase(Protocol):
    """Where an index is."""

    def current(self) -> OpenIndex:
        """Return the index that is there now; it may be another one at the next call.

        Raises:
            IndexDamaged: there is none.
            IndexUnavailable: that cannot be told now.
        """
        ...

    def exists(self) -> bool:
        """Say whether an index is there, be it damaged; raises ``IndexUnavailable``."""
        ...

    def building(self) -> AbstractContextManager[OpenIndex]:
        """Yield an empty index beside the one in use; it takes its place when the block is through.

        What a killed build left behind is removed.

        Raises:
            IndexUnavailable: another process is building one, or the database does not answer.
        """
        ...

    def check(self) -> None:
        """Look for damage in all of it, as far as the database can.

        Raises:
            IndexDamaged: it found some.
            IndexUnavailable: it does not answer.
        """
        ...

    def close(self) -> None:
        """Close the connections."""
        ...


def make_tables(connection: Connection) -> None:
    """Make the tables, without the indexes, which cost less once the rows are in."""
    for table in METADATA.sorted_tables:
        connection.execute(CreateTable(table))


def make_indexes(connection: Connection) -> None:
    """Make the indexes."""
    for index in INDEXES:
        connection.execute(CreateIndex(index))


def read_state(connection: Connection, store_id: str | None) -> State:
    """Return what the index says of itself.

    Raises:
        IndexDamaged: it is of another version, of another store than ``store_id``, or was never finished.
    """
    words = {row.name: row.value for row in connection.execute(select(STATE.c.name, STATE.c.value))}
    fingerprint = words.get("fingerprint")
    if fingerprint != FINGERPRINT:
        raise IndexDamaged("it is of another version of the program")
    try:
        state = State.read(words)
    except InvalidRequest:
        raise IndexDamaged("what it says of itself is none that was written") from None
    if store_id is not None and state.store_id != store_id:
        raise IndexDamaged("it is of another store")
    return state


def write_state(connection: Connection, state: State) -> None:
    """Write what the index says of itself; for a new one."""
    rows = [{"name": name, "value": value} for name, value in state.dump().items()]
    connection.execute(insert(STATE), rows)


def write_complete(connection: Connection, moment: datetime) -> None:
    """Write up to when the index is complete."""
    connection.execute(
        STATE.update().where(STATE.c.name == "complete_until_utc").values(value=format_utc(moment))
    )


@contextmanager
def index_errors() -> Iterator[None]:
    """Translate what SQLAlchemy raises; the text names no value and no address."""
    try:
        yield
    except PoolTimeout as error:
        raise IndexUnavailable("all connections to the index are in use") from error
    except DBAPIError as error:
        reason = _said(error)
        if _passes(error):
            raise IndexUnavailable(f"the index's database does not answer: {reason}") from error
        raise IndexDamaged(f"its database says: {reason}") from error
    except SQLAlchemyError as error:
        raise IndexDamaged(f"its database gave what is none of ours ({type(error).__name__})") from error


def _passes(error: DBAPIError) -> bool:
    """Say whether the same may work later, with the same index."""
    original = error.orig
    if isinstance(original, sqlite3.Error):
        code = getattr(original, "sqlite_errorcode", None)
        return code is not None and code != _SQLITE_CUT_OFF and code & 0xFF in _SQLITE_PASSES
    if isinstance(error, ProgrammingError):
        return False
    return error.connection_invalidated or isinstance(error, (OperationalError, InterfaceError))


def _said(error: DBAPIError) -> str:
    # The first line: what follows may quote values. An address in it has no password.
    lines = str(error.orig).splitlines() or [type(error.orig).__name__]
    return re.sub(r"://[^@\s]*@", "://…@", lines[0])[:_SHOWN]
