"""``audit.seal``: bring into the audit log what was published and done since the seal before."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.model import Failure, Job
from rmos_shared.jobs.unsealed import SealingState
from rmos_shared.jobs.work import Claim, Finish
from rmos_shared.sealing.parts import SealParts
from rmos_shared.sealing.run import SealingRun
from rmos_shared.store.publication import Publication
from rmos_shared.tasks.payloads import SealLog
from rmos_shared.telemetry.events import LogSealed
from rmos_shared.telemetry.log import emit
from rmos_worker.handlers.base import each, read_payload


class SealHandler:
    """Seals by ``SealingRun``; the end of the job tells the ledger what the log has come to."""

    def __init__(
        self,
        ledger: JobLedger,
        parts: Callable[[], SealParts],
        *,
        lock_seconds: float,
        is_reconciliation_due: Callable[[SealingState], bool],
        next_job: Callable[[int], Job],
    ) -> None:
        """Read the feed of ``ledger``; ``parts`` are made by the first job, for few processes have any."""
        self._ledger = ledger
        self._make = parts
        self._parts: SealParts | None = None
        self._lock_seconds = lock_seconds
        self._is_reconciliation_due = is_reconciliation_due
        self._next_job = next_job
        #: The parts are not for several threads at once, and two jobs at a time are rare.
        self._alone = threading.Lock()

    def handle(self, claims: Sequence[Claim]) -> list[Finish | Exception]:
        """Do each job."""
        return each(claims, self._seal)

    def on_dead(self, claim: Claim, failure: Failure) -> Sequence[Publication]:  # noqa: ARG002
        """Record nothing: what is published stays in the feed until the job is replayed."""
        return ()

    def _seal(self, claim: Claim) -> Finish:
        number = read_payload(claim, SealLog).number
        with self._alone:
            self._parts = parts = self._parts or self._make()
            run = SealingRun(self._ledger, parts, lock_seconds=self._lock_seconds)
            come = run.run(self._is_reconciliation_due)
        if come.newest is not None:
            emit(
                LogSealed(
                    size=come.newest.checkpoint.size,
                    seals=come.seals,
                    records=come.records,
                    late=come.late,
                    signed=bool(come.newest.note.signatures),
                ),
                quiet=not come.seals,
            )
        # What is left is sealed at once, by a job that is accepted in the same step.
        following = (self._next_job(number + 1),) if come.more else ()
        return Finish(claim.job_id, come.result(), following)
