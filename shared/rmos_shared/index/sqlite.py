"""The index as a file of SQLite.

The name in the settings is a symbolic link to the file in use. A rebuild writes another file beside it and
turns the link over in one step. So each file has a write-ahead log of its own: were a file put in the place
of another, SQLite would play the old one's log into it.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import QueuePool

from rmos_shared.errors import IndexDamaged, IndexUnavailable
from rmos_shared.index.database import OpenIndex, index_errors, make_indexes, make_tables

_CONNECTIONS = 16
#: Where SQLite writes the size of a page and the number of pages, and how many bytes of header that needs.
_HEADER_BYTES = 32
_LARGEST_PAGE = 65_536


class SqliteIndex:
    """An ``IndexDatabase`` in a file."""

    def __init__(self, path: Path, *, timeout_seconds: float) -> None:
        """Use the file ``path``; nothing is made or opened yet."""
        self._path = path
        self._timeout = timeout_seconds
        self._lock = threading.Lock()
        self._open: tuple[Path, OpenIndex] | None = None

    def current(self) -> OpenIndex:
        """Return the index that the link names now; see ``IndexDatabase``."""
        file = self._file()
        with self._lock:
            if self._open is None or self._open[0] != file:
                _check_size(file)
                if self._open is not None:
                    self._open[1].close()  # connections that are in use go on, on the file that was removed
                self._open = (file, OpenIndex(_engine(file, timeout=self._timeout)))
            return self._open[1]

    def exists(self) -> bool:
        """Say whether there is a file; see ``IndexDatabase``."""
        return os.path.lexists(self._path)

    def check(self) -> None:
        """Have SQLite look at every page; see ``IndexDatabase``."""
        with self.current().read() as connection:
            answer = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
        if answer != "ok":
            raise IndexDamaged("SQLite found damage in it")

    @contextmanager
    def building(self) -> Iterator[OpenIndex]:
        """Yield an empty index in a file of its own; see ``IndexDatabase``."""
        try:
            with self._alone():
                self._remove_strays()
                file = self._path.with_name(f"{self._path.name}.{secrets.token_hex(8)}")
                engine = _engine(file, timeout=self._timeout, making=True)
                try:
                    with index_errors(), engine.begin() as connection:
                        make_tables(connection)
                    yield OpenIndex(engine)
                    with index_errors(), engine.begin() as connection:
                        make_indexes(connection)
                finally:
                    engine.dispose()
                _keep_log(file)
                self._turn_to(file)
                self._remove_strays()
        except OSError as error:
            raise IndexUnavailable(
                f"the index cannot be written beside {self._path}: {error.strerror}"
            ) from error

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            if self._open is not None:
                self._open[1].close()
                self._open = None

    def _file(self) -> Path:
        file = Path(os.path.realpath(self._path))
        if not file.is_file():
            raise IndexDamaged("it is missing")
        return file

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep others from building meanwhile; a killed holder holds nothing."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(self._path.with_name(f"{self._path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise IndexUnavailable("another process is rebuilding the index") from None
            yield
        finally:
            os.close(lock)

    def _turn_to(self, file: Path) -> None:
        link = self._path.with_name(f"{self._path.name}.link")
        link.unlink(missing_ok=True)
        link.symlink_to(file.name)
        _sync(file)
        link.replace(self._path)
        _sync(file.parent)

    def _remove_strays(self) -> None:
        """Remove all that is named after the index and is neither in use nor the lock."""
        used = os.path.realpath(self._path)
        kept = {f"{used}{end}" for end in ("", "-wal", "-shm")}
        kept.add(os.path.realpath(f"{self._path}.lock"))
        for stray in self._path.parent.glob(f"{self._path.name}[.-]*"):
            if os.path.realpath(stray) not in kept:
                stray.unlink(missing_ok=True)


def _engine(file: Path, *, timeout: float, making: bool = False) -> Engine:
    address = f"file:{quote(str(file))}?mode={'rwc' if making else 'rw'}"

    def connect() -> sqlite3.Connection:
        # isolation_level None: transactions begin where we say, not where the module guesses.
        opened = sqlite3.connect(
            address, uri=True, timeout=timeout, isolation_level=None, check_same_thread=False
        )
        # Losing the end of the log in a power cut is losing what the next round finds again.
        opened.execute(f"PRAGMA synchronous={'OFF' if making else 'NORMAL'}")
        if making:
            opened.execute("PRAGMA journal_mode=OFF")
            opened.execute("PRAGMA cache_size=-65536")
        return opened

    engine = create_engine(
        "sqlite://",
        creator=connect,
        poolclass=QueuePool,
        pool_size=_CONNECTIONS,
        max_overflow=0,
        pool_timeout=timeout,
    )
    event.listen(engine, "begin", _begin)
    return engine


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _begin(connection: Connection) -> None:
    # A transaction that begins by reading and then writes could be refused half-way.
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _keep_log(file: Path) -> None:
    """Have a file that was written without any log use one from now on."""
    try:
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
    except sqlite3.Error as error:
        raise IndexUnavailable(f"the index cannot be written: {error}") from error


def _check_size(file: Path) -> None:
    """Find a file that was cut off before SQLite does, which may be late.

    While there is a log its pages may be on their way into the file; then only SQLite can tell.

    Raises:
        IndexDamaged: it is shorter than its header says.
    """
    try:
        with file.open("rb") as stream:
            header = stream.read(_HEADER_BYTES)
            size = os.fstat(stream.fileno()).st_size
    except OSError as error:
        raise IndexUnavailable(f"the index cannot be read: {error.strerror}") from error
    if not header.startswith(b"SQLite format 3\0") or len(header) < _HEADER_BYTES:
        raise IndexDamaged("it is no file of SQLite")
    log = file.with_name(f"{file.name}-wal")
    if log.exists() and log.stat().st_size:
        return
    page = int.from_bytes(header[16:18])
    pages = int.from_bytes(header[28:32])
    if size < pages * (_LARGEST_PAGE if page == 1 else page):
        raise IndexDamaged("it was cut off")
