"""The index made anew from the store, beside the one in use; lists are answered meanwhile."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from datetime import datetime
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from typing import Protocol

from rmos_shared.clock import Clock, SystemClock
from rmos_shared.errors import CorruptArtifact, IndexUnavailable
from rmos_shared.index.database import IndexDatabase, OpenIndex, State, write_state
from rmos_shared.index.day import DayReader, RunNames
from rmos_shared.index.reconciler import CHUNK, Reconciler, chunks
from rmos_shared.index.row import CorruptRow, IndexRow
from rmos_shared.index.stamps import ABSENT, Stamps, stamps_of
from rmos_shared.index.tables import FINGERPRINT
from rmos_shared.index.writer import IndexWriter
from rmos_shared.store.base import ArtifactStore

#: Rows written in one transaction.
_ROWS = 5_000
#: Chunks that each process may have before it, which bounds memory.
_AHEAD = 3


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a rebuild is."""

    day: str
    days_done: int
    days: int
    runs: int
    corrupt: int


@dataclass(frozen=True, slots=True)
class Part:
    """Some runs of a day; the last part of it has its stamps."""

    day: str
    runs: list[RunNames]
    stamps: Stamps | None = None
    #: Why the partition cannot be listed, when it cannot.
    damage: str | None = None


Rows = list[IndexRow | CorruptRow]


class Reading(Protocol):
    """Reads parts, in order."""

    def __call__(self, parts: Iterable[Part]) -> Iterator[tuple[Part, Rows]]:
        """Yield each part with its rows; takes few parts more than it has yielded."""
        ...


def rebuild(
    database: IndexDatabase,
    store: ArtifactStore,
    *,
    store_id: str | None,
    processes: int = 1,
    clock: Clock | None = None,
    tell: Callable[[Progress], object] = lambda _: None,
) -> Progress:
    """Make the index anew from every file of ``store``, and put it in use; return what is in it.

    Each artifact is proven as any reader proves it, in ``processes`` processes. Memory holds the names of
    one partition and some thousand rows. Until the end the old index stays in use; a rebuild that is killed
    leaves it so. ``tell`` is called some times a second at most, from this thread.

    Raises:
        StoreUnavailable: the store is away.
        IndexUnavailable: the database is, or another process is rebuilding.
    """
    clock = clock or SystemClock()
    began = clock.now()
    with database.building() as index:
        done = _fill(index, _Source(store, clock), _reading(store, processes), tell)
        with index.write() as connection:
            write_state(
                connection,
                State(
                    fingerprint=FINGERPRINT,
                    store_id=store_id or "none",
                    built_at_utc=began,
                    complete_until_utc=began,
                ),
            )
    return done


class _Source:
    """The days of a store as parts."""

    def __init__(self, store: ArtifactStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._days = DayReader(store)
        # From the oldest on, so that each row comes after those before it in the tables, too.
        self.days = [
            day for day in sorted(Reconciler(store).days()) if stamps_of(store, day, clock.now())[0] != ABSENT
        ]

    def parts(self) -> Iterator[Part]:
        """Yield all runs, in order."""
        for day in self.days:
            # Stamps come first: what comes while the names are read changes them.
            stamps = stamps_of(self._store, day, self._now())
            try:
                names = self._days.names(day)
            except CorruptArtifact as error:
                yield Part(day, [], damage=error.reason)
                continue
            for runs in chunks(names.runs(), CHUNK):
                yield Part(day, runs)
            yield Part(day, [], stamps if names.files else None)

    def _now(self) -> datetime:
        return self._clock.now()


def _fill(
    index: OpenIndex, source: _Source, reading: Reading, tell: Callable[[Progress], object]
) -> Progress:
    done = Progress("", 0, len(source.days), 0, 0)
    rows: Rows = []
    stamps: dict[str, Stamps] = {}
    for part, read in reading(source.parts()):
        rows += read if part.damage is None else [CorruptRow(part.day, part.damage, None)]
        if part.stamps is not None:
            stamps[part.day] = part.stamps
        corrupt = sum(isinstance(row, CorruptRow) for row in read)
        done = Progress(
            part.day,
            done.days_done + (not part.runs),
            done.days,
            done.runs + len(read) - corrupt,
            done.corrupt + corrupt + (part.damage is not None),
        )
        if len(rows) >= _ROWS:
            _write(index, rows, stamps)
            rows, stamps = [], {}
        tell(done)
    _write(index, rows, stamps)
    return done


def _write(index: OpenIndex, rows: Rows, stamps: dict[str, Stamps]) -> None:
    with index.write() as connection:
        writer = IndexWriter(connection)
        writer.put(rows)
        for day, each in stamps.items():
            writer.put_stamps(day, each)


# -- reading in several processes -----------------------------------------------------------------


def _reading(store: ArtifactStore, processes: int) -> Reading:
    if processes > 1:
        return _Pool(store, processes)
    days = DayReader(store)
    return lambda parts: ((part, [days.row(run) for run in part.runs]) for part in parts)


class _Pool:
    """Has parts read by processes of its own, which are there only while it is used."""

    def __init__(self, store: ArtifactStore, processes: int) -> None:
        self._store = store
        self._processes = processes

    def __call__(self, parts: Iterable[Part]) -> Iterator[tuple[Part, Rows]]:
        """Yield each part with its rows, in order."""
        waiting: deque[tuple[Part, Future[Rows] | None]] = deque()
        # Spawned: a fork of a process with threads may inherit a lock that nobody lets go.
        pool = ProcessPoolExecutor(
            self._processes, mp_context=get_context("spawn"), initializer=_end_with_parent
        )
        try:
            for part in parts:
                waiting.append((part, pool.submit(_read, self._store, part.runs) if part.runs else None))
                while len(waiting) > _AHEAD * self._processes:
                    yield _result(waiting.popleft())
            while waiting:
                yield _result(waiting.popleft())
        except BrokenProcessPool as error:
            raise IndexUnavailable("a process that read the store for it was killed") from error
        finally:
            pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """Leave no process behind when the one that rebuilds is killed: it could not tell us."""
    parent = parent_process()

    def watch(sentinel: int) -> None:
        wait([sentinel])
        os._exit(1)

    if parent is not None:
        threading.Thread(target=watch, args=(parent.sentinel,), daemon=True).start()


def _read(store: ArtifactStore, runs: list[RunNames]) -> Rows:
    days = DayReader(store)
    return [days.row(run) for run in runs]


def _result(waiting: tuple[Part, Future[Rows] | None]) -> tuple[Part, Rows]:
    part, future = waiting
    return part, [] if future is None else future.result()
