"""The reconciler: comes for every job that nobody would come for otherwise."""

from __future__ import annotations

import logging
import secrets
import threading

from rmos_shared.errors import BrokerDamaged, BrokerUnavailable
from rmos_shared.ledger.job_ledger import JobLedger
from rmos_shared.settings import WorkerSettings

logger = logging.getLogger(__name__)

_LOCK = "reconciler"


class Reconciler:
    """Runs in every worker; a lock lets one of them work at a time."""

    def __init__(self, ledger: JobLedger, settings: WorkerSettings) -> None:
        """Prepare; ``start`` begins the rounds."""
        self._ledger = ledger
        self._settings = settings
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
        """Do one round, if this is the one whose turn it is. Returns the number of jobs rung for.

        Raises:
            BrokerUnavailable: the round may be half done; the next does the rest.
        """
        if not self._ledger.try_lock(_LOCK, self._name, seconds=self._settings.reconcile_seconds * 5):
            return 0
        done = self._ledger.reconcile(
            batch=self._settings.reconcile_batch_jobs,
            grace_seconds=self._settings.bell_grace_seconds,
            max_starts=self._settings.max_starts,
        )
        if done.rung:
            logger.info("rang again", extra={"jobs": done.rung})
        if done.damaged != self._damaged:
            self._damaged = done.damaged
            # Once, not each second, and once more when it is mended.
            logger.error("keys of the ledger are damaged; see rmos doctor", extra={"keys": done.damaged})
        return done.rung

    def _run(self) -> None:
        while not self._stopping.wait(self._settings.reconcile_seconds):
            try:
                self.round()
            except BrokerUnavailable:
                logger.warning("no reconciliation; the broker is away")
            except BrokerDamaged as error:
                logger.error("no reconciliation: %s", error)  # noqa: TRY400 - the text says all
            except Exception:
                # The last net below every job must not end with the first bug in it.
                logger.exception("reconciliation failed")
