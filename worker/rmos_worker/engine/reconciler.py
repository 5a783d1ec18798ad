"""The reconciler: comes for every job that nobody would come for otherwise, and carries batches on."""

from __future__ import annotations

import secrets
import threading

from rmos_shared.canonical import sha256_hex
from rmos_shared.errors import BrokerDamaged, BrokerUnavailable
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.settings.worker import WorkerSettings
from rmos_shared.tasks.table import TASKS
from rmos_shared.telemetry.events import (
    JobsReadyAgain,
    LedgerDamaged,
    ReconciliationFailed,
    ReconciliationSkipped,
)
from rmos_shared.telemetry.log import emit
from rmos_worker.advisories.breaker import Reading, RedisBreaker
from rmos_worker.engine.batches import BatchRounds
from rmos_worker.engine.sealing import SealRounds

#: Of each version its own: an old worker that lives on must not keep the jobs of a newer one waiting.
LOCK = f"reconciler:{sha256_hex(','.join(sorted(TASKS)).encode())[:8]}"
#: A job that an outage puts off may be written down as such only after its end.
_SETTLING_MS = 10_000


class Reconciler:
    """Runs in every worker; a lock lets one of them work at a time."""

    def __init__(self, ledger: JobLedger, breaker: RedisBreaker, settings: WorkerSettings) -> None:
        """Prepare; ``start`` begins the rounds."""
        self._queues = ledger.queues
        self._work = ledger.work
        self._batches = BatchRounds(ledger)
        self._seals = SealRounds(ledger, settings)
        self._settings = settings
        self._breaker = breaker
        self._name = secrets.token_hex(8)
        self._damaged: tuple[str, ...] = ()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reconciler", daemon=True)

    def start(self) -> None:
        """Begin the rounds, in a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """End after the round under way."""
        self._stopping.set()
        self._thread.join(timeout=self._settings.broker_timeout_seconds)

    def round(self) -> int:
        """Do one round, if this is the one whose turn it is. Returns the number of jobs ready again.

        Raises:
            BrokerUnavailable: the round may be half done; the next does the rest.
        """
        if not self._queues.try_lock(LOCK, self._name, seconds=self._settings.reconcile_seconds * 5):
            return 0
        forward = brought_forward(self._breaker.read(), batch=self._settings.reconcile_batch_jobs)
        if forward is not None:
            self._work.bring_forward(most=forward[0], put_off_by_ms=forward[1])
        done = self._queues.reconcile(
            batch=self._settings.reconcile_batch_jobs,
            grace_seconds=self._settings.notification_grace_seconds,
            max_crashes=self._settings.max_crashes,
        )
        if done.ready:
            # In an outage some jobs come due in every round.
            emit(JobsReadyAgain(jobs=done.ready))
        if done.damaged != self._damaged:
            self._damaged = done.damaged
            # Once, not each second, and once more when it is repaired.
            emit(LedgerDamaged(keys=done.damaged))
        # Last, for it is refused where the server's memory is full.
        self._batches.round()
        self._seals.round()
        return done.ready

    def _run(self) -> None:
        while not self._stopping.wait(self._settings.reconcile_seconds):
            try:
                self.round()
            except (BrokerUnavailable, BrokerDamaged) as error:
                emit(ReconciliationSkipped(error=str(error)))
            except Exception:  # noqa: BLE001 - the last net below every job must not end with the first bug in it
                emit(ReconciliationFailed(), traceback=True)


def brought_forward(reading: Reading, *, batch: int) -> tuple[int, int | None] | None:
    """Return how many jobs that wait for the advisory store come now, and up to when they were put off.

    One, while the store is out of reach and a call may probe; after an outage the jobs that it put off, a
    batch each round. A job that failed since then waits for its own time, for it may itself be to blame.
    None: no job comes.
    """
    if reading.open:
        return None if reading.holds else (1, None)
    return (batch, reading.ended_ms + _SETTLING_MS) if reading.ended_ms else None
