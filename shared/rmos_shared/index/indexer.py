"""The indexing process: follows notices, reconciles what they miss, and makes the index anew when it must."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from rmos_shared.clock import Clock, SystemClock
from rmos_shared.errors import (
    BrokerDamaged,
    BrokerUnavailable,
    IndexDamaged,
    IndexUnavailable,
    StoreUnavailable,
)
from rmos_shared.ids import uuid7_time
from rmos_shared.index.database import IndexDatabase, read_state
from rmos_shared.index.day import DayReader
from rmos_shared.index.notices import Notice, Notices
from rmos_shared.index.rebuild import Progress
from rmos_shared.index.reconciler import Reconciler
from rmos_shared.index.row import IndexRow
from rmos_shared.index.writer import IndexWriter
from rmos_shared.runs.layout import run_key
from rmos_shared.store.base import ArtifactStore
from rmos_shared.telemetry.events import IndexerFailed, IndexerWaiting, IndexRebuilding, IndexRebuilt
from rmos_shared.telemetry.log import emit

#: The name of the ledger's lock that keeps a second indexer waiting, and how long a silent holder keeps it.
LOCK = "indexer"
LOCK_SECONDS = 30.0
#: Longest wait for a notice, after which the lock is renewed.
_WAIT_SECONDS = 1.0
#: Of its time, the share that reconciling and listing busy days may take: one in so many.
_SHARE = 5
#: Days with something new beside their runs are listed no more often.
_LOOK_SECONDS = 0.2
_FIRST_PAUSE_SECONDS, _LAST_PAUSE_SECONDS = 0.5, 10.0


class Stopped(Exception):
    """The process is asked to end; a rebuild that is under way is broken off by it."""


class Rebuild(Protocol):
    """Makes the index anew."""

    def __call__(self) -> Progress:
        """Return what is in it; raises as ``rebuild.rebuild``."""
        ...


class Indexer:
    """One of these works at a time; another waits for its lock. Two at once would do all twice, and no harm.

    Killed at any point it loses nothing: what it had not written down, the next one finds unlike the store.
    """

    def __init__(
        self,
        database: IndexDatabase,
        store: ArtifactStore,
        notices: Notices,
        *,
        rebuild: Rebuild,
        store_id: str | None,
        lock: Callable[[], bool] = lambda: True,
        reconcile_seconds: float = 10.0,
        clock: Clock | None = None,
    ) -> None:
        """Keep the index in ``database`` as ``store`` is; ``lock`` says whether it is this one's turn."""
        self._database = database
        self._store = store
        self._notices = notices
        self._rebuild = rebuild
        self._store_id = store_id
        self._lock = lock
        self._reconcile_seconds = reconcile_seconds
        self._clock = clock or SystemClock()
        self._reconciler = Reconciler(store, clock=self._clock)
        self._days = DayReader(store)
        self._checked = False
        self._dirty: set[str] = set()
        self._next_round = self._next_look = 0.0
        self._waiting = False

    def run(self, stopping: threading.Event) -> None:
        """Work until ``stopping`` is set. What is away is waited for; nothing ends it but that."""
        pause = _FIRST_PAUSE_SECONDS
        while not stopping.is_set():
            try:
                if self._turn():
                    self.step()
                else:
                    stopping.wait(_WAIT_SECONDS)
            except Stopped:
                return
            except IndexDamaged as error:
                # Another program may have taken it away, or it is of another version by now.
                self._checked = False
                emit(IndexRebuilding(reason=error.reason), quiet=True)
            except (StoreUnavailable, IndexUnavailable, BrokerUnavailable, BrokerDamaged) as error:
                emit(IndexerWaiting(error=str(error)), quiet=self._waiting)
                self._waiting = True
            except Exception:  # noqa: BLE001 - lists would fall behind for good with the first bug in it
                emit(IndexerFailed(), traceback=True)
            else:
                self._waiting, pause = False, _FIRST_PAUSE_SECONDS
                continue
            stopping.wait(pause)
            pause = min(2 * pause, _LAST_PAUSE_SECONDS)

    def step(self) -> None:
        """Do what is to be done now, and wait a moment for the next notice.

        Raises:
            IndexDamaged: the index must be made anew; the next step does so.
            IndexUnavailable: its database is away.
            StoreUnavailable: the store is away.
        """
        if not self._checked:
            self._make_sure()
        now = self._clock.monotonic()
        if now >= self._next_round:
            self._next_round = now + max(self._reconcile_seconds, _SHARE * self._timed(self._round))
            now = self._clock.monotonic()
        if self._dirty and now >= self._next_look:
            self._next_look = now + max(_LOOK_SECONDS, _SHARE * self._timed(self._look))
        soonest = min(self._next_round, self._next_look if self._dirty else self._next_round)
        self._take(self._wait(max(0.01, min(_WAIT_SECONDS, soonest - self._clock.monotonic()))))

    def _turn(self) -> bool:
        try:
            return self._lock()
        except (BrokerUnavailable, BrokerDamaged):
            # The store may be fed without the broker, by a migration; and whoever else works does no harm.
            return True

    def _make_sure(self) -> None:
        """Make the index anew unless it is whole, of this version and of this store."""
        try:
            self._database.check()
            with self._database.current().read() as connection:
                read_state(connection, self._store_id)
        except IndexDamaged as error:
            emit(IndexRebuilding(reason=error.reason))
            began = self._clock.monotonic()
            made = self._rebuild()
            seconds = round(self._clock.monotonic() - began, 3)
            emit(IndexRebuilt(runs=made.runs, corrupt=made.corrupt, seconds=seconds))
        self._checked = True
        self._next_round = self._clock.monotonic()

    def _round(self) -> None:
        self._reconciler.round(self._database.current())

    def _look(self) -> None:
        days, self._dirty = self._dirty, set()
        for day in sorted(days, reverse=True):
            self._reconciler.look_at(self._database.current(), day)

    def _wait(self, seconds: float) -> Sequence[Notice]:
        try:
            return self._notices.wait(seconds)
        except (BrokerUnavailable, BrokerDamaged) as error:
            emit(IndexerWaiting(error=str(error)), quiet=self._waiting)
            self._waiting = True
            self._clock.sleep(seconds)
            return ()

    def _take(self, notices: Sequence[Notice]) -> None:
        """Read what is new at once, and note the days in which something else may be."""
        rows = []
        for run_id, new in {(notice.run_id, notice.new) for notice in notices}:
            moment = uuid7_time(run_id)
            if moment is None:
                continue  # an older id tells no day; the next round finds it
            day = moment.date().isoformat()
            row = self._days.new_row(run_key(day, run_id)) if new else None
            if row is None:
                self._dirty.add(day)
            else:
                rows.append(row)
        if rows:
            with self._database.current().write() as connection:
                writer = IndexWriter(connection)
                writer.put(rows)
                writer.no_longer_corrupt(row.place for row in rows if isinstance(row, IndexRow))

    def _timed(self, work: Callable[[], None]) -> float:
        began = self._clock.monotonic()
        work()
        return self._clock.monotonic() - began
