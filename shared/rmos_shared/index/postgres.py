"""The index as a schema of PostgreSQL, in a database that may hold other things."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from sqlalchemy import Connection, Engine, create_engine, make_url, text

from rmos_shared.errors import IndexDamaged, IndexUnavailable
from rmos_shared.index.database import OpenIndex, index_errors, make_indexes, make_tables

#: The schema in use; one that is being made has this and a random word for its name.
SCHEMA = "rmos_index"
_CONNECTIONS = 16
#: Held while an index is made. A number of ours, for advisory locks have no names.
_BUILD_LOCK = 0x726D6F73  # "rmos"
#: Each query has one index that serves it, and is written so that no other can. Where statistics are old or
#: missing the planner would rather read and sort a whole table than believe that.
_PLANNER = (
    "enable_seqscan=off",
    "enable_bitmapscan=off",
    "enable_sort=off",
    "jit=off",
)


class PostgresIndex:
    """An ``IndexDatabase`` in the schema ``rmos_index``."""

    def __init__(self, url: str, *, timeout_seconds: float) -> None:
        """Use the database at ``url``; connects when first used."""
        self._url = make_url(url).set(drivername="postgresql+psycopg")
        self._timeout = timeout_seconds
        longest = f"statement_timeout={int(1000 * timeout_seconds)}"
        self._engine = self._engine_of(SCHEMA, *_PLANNER, longest, isolation="REPEATABLE READ")
        self._open = OpenIndex(self._engine, writing=self._engine_of(SCHEMA))

    def current(self) -> OpenIndex:
        """Return the index; that there is none is found when it is used."""
        return self._open

    def exists(self) -> bool:
        """Say whether the schema is there; see ``IndexDatabase``."""
        with index_errors(), self._engine.connect() as connection:
            named = text("SELECT count(*) FROM pg_namespace WHERE nspname = :name")
            return bool(connection.execute(named, {"name": SCHEMA}).scalar())

    def check(self) -> None:
        """Trust PostgreSQL, which proves what it reads; see ``IndexDatabase``."""
        if not self.exists():
            raise IndexDamaged("it is missing")

    @contextmanager
    def building(self) -> Iterator[OpenIndex]:
        """Yield an empty index in a schema of its own; see ``IndexDatabase``."""
        schema = f"{SCHEMA}_{secrets.token_hex(8)}"
        with index_errors(), self._engine.connect() as keeper:
            # The lock is this connection's alone: whoever dies or closes it lets the lock go.
            keeper.detach()
            if not keeper.execute(text(f"SELECT pg_try_advisory_lock({_BUILD_LOCK})")).scalar():
                raise IndexUnavailable("another process is rebuilding the index")
            keeper.commit()
            engine = self._engine_of(schema, "synchronous_commit=off")
            try:
                with engine.begin() as connection:
                    _remove_strays(connection)
                    connection.execute(text(f'CREATE SCHEMA "{schema}"'))
                    make_tables(connection)
                yield OpenIndex(engine)
                with engine.begin() as connection:
                    make_indexes(connection)
                    connection.execute(text(f'DROP SCHEMA IF EXISTS "{SCHEMA}" CASCADE'))
                    connection.execute(text(f'ALTER SCHEMA "{schema}" RENAME TO "{SCHEMA}"'))
                # So that no reader finds each page by looking at rows that are newer than it is.
                with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                    connection.execute(text(f'VACUUM (ANALYZE) "{SCHEMA}".run'))
            finally:
                engine.dispose()

    def close(self) -> None:
        """Close the connections."""
        self._open.close()

    def _engine_of(
        self,
        schema: str,
        *settings: str,
        isolation: Literal["READ COMMITTED", "REPEATABLE READ"] = "READ COMMITTED",
    ) -> Engine:
        words = (f"search_path={schema}", "timezone=UTC", *settings)
        return create_engine(
            self._url,
            connect_args={
                "options": " ".join(f"-c {word}" for word in words),
                "connect_timeout": max(2, round(self._timeout)),
            },
            isolation_level=isolation,
            pool_size=_CONNECTIONS,
            max_overflow=0,
            pool_timeout=self._timeout,
            pool_pre_ping=True,
        )


def _remove_strays(connection: Connection) -> None:
    names = connection.execute(text("SELECT nspname FROM pg_namespace")).scalars().all()
    for name in names:
        if name.startswith(f"{SCHEMA}_"):
            connection.execute(text(f'DROP SCHEMA "{name}" CASCADE'))
