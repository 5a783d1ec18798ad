"""The heartbeat of one worker process: while it beats, its leases hold."""

from __future__ import annotations

import os
import secrets
import socket
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rmos_shared.errors import BrokerDamaged, BrokerUnavailable
from rmos_shared.jobs.work import JobWork
from rmos_shared.settings.worker import WorkerSettings
from rmos_shared.telemetry.events import HeartbeatFailed, HeartbeatLost, RetireFailed
from rmos_shared.telemetry.log import emit


class Heartbeat:
    """Tells the ledger that this process lives, and which jobs it is working on.

    One per process that runs tasks: each prefork child has its own, so that the death of one child ends
    that child's leases and nobody else's.
    """

    def __init__(self, work: JobWork, settings: WorkerSettings) -> None:
        """Prepare; ``start`` begins to beat."""
        self.name = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._work = work
        self._settings = settings
        self._working: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Begin to beat, in a thread of its own."""
        self._thread.start()

    def retire(self) -> None:
        """Stop beating and end the leases at once, so that nobody waits for them to lapse."""
        self._stopping.set()
        self._thread.join(timeout=self._settings.broker_timeout_seconds)
        try:
            self._work.retire(self.name, max_crashes=self._settings.max_crashes)
        except (BrokerUnavailable, BrokerDamaged):
            emit(RetireFailed(worker=self.name))

    @contextmanager
    def working(self, job_ids: Sequence[str]) -> Iterator[None]:
        """Count the jobs as being worked on; entered before they are claimed, left after they are settled."""
        with self._lock:
            self._working.update(job_ids)
        try:
            yield
        finally:
            with self._lock:
                self._working.subtract(job_ids)
                self._working += Counter()  # drops what is back to zero

    def beat(self) -> None:
        """Beat once, and give back leases that this process does not know of.

        Raises:
            BrokerUnavailable: the beat did not arrive; the next may.
        """
        with self._lock:
            working = list(self._working)
        self._work.beat(
            self.name,
            working,
            lease_seconds=self._settings.lease_seconds,
            stale_seconds=self._settings.lease_seconds,
        )

    def _run(self) -> None:
        while not self._stopping.wait(self._settings.heartbeat_seconds):
            try:
                self.beat()
            except (BrokerUnavailable, BrokerDamaged) as error:
                emit(HeartbeatLost(worker=self.name, error=str(error)))
            except Exception:  # noqa: BLE001 - a heart that stops for a bug would cost every lease of this process
                emit(HeartbeatFailed(worker=self.name), traceback=True)
