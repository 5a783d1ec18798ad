"""When the audit log is sealed: the job is accepted by the reconciler, and is one at a time."""

from __future__ import annotations

from datetime import timedelta

from rmos_shared.ids import seal_job_id
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.model import Job
from rmos_shared.jobs.unsealed import SealingState
from rmos_shared.settings.audit import AuditSettings
from rmos_shared.settings.worker import WorkerSettings
from rmos_shared.tasks.payloads import SealLog
from rmos_shared.tasks.table import SEAL
from rmos_worker.timestamps.schedule import TimestampRounds

#: What its jobs are about: there is one log.
AUDIT_LOG = "audit-log"
#: Publications and acts that are not made to wait for more of them.
DUE_PUBLICATIONS = 1_000


class SealRounds:
    """Accepts the seal job that is due, and the day's time stamp.

    Done by the reconciler, in whichever worker has its lock.
    """

    def __init__(self, ledger: JobLedger, settings: WorkerSettings) -> None:
        """Use ``ledger``."""
        self._ledger = ledger
        self._settings = settings
        self._timestamps = TimestampRounds(ledger, settings)

    def round(self) -> None:
        """Accept what is due. Doing so twice, or at once, accepts nothing twice.

        Raises:
            BrokerUnavailable: the next round does it.
        """
        state = self._ledger.unsealed.state(begin=True)
        job = next_seal(state, self._settings)
        if job is not None:
            self._ledger.accept([job])
        self._timestamps.round(state)


def next_seal(state: SealingState, settings: AuditSettings) -> Job | None:
    """Return the seal job that is due, if any; the same until it has ended.

    Its id derives from how many have ended, so accepting it again is a repeat. While it is dead none follows
    it: it waits to be replayed.
    """
    return seal_job(state.number) if _is_due(state, settings) else None


def seal_job(number: int) -> Job:
    """Return the seal job of this number."""
    return Job(
        job_id=seal_job_id(number),
        task=SEAL.name,
        run_id=AUDIT_LOG,
        request_id=None,
        payload=SealLog(number=number).to_json(),
    )


def heartbeat_is_due(state: SealingState, settings: AuditSettings) -> bool:
    """Say whether a seal is due though nothing is published."""
    heartbeat = timedelta(seconds=settings.audit_heartbeat_seconds)
    # The verifier grants a promise a minute more, so there is no need to come early.
    return state.now >= (state.next_at or state.since + heartbeat)


def reconciliation_is_due(state: SealingState, settings: AuditSettings) -> bool:
    """Say whether the log is to be held against the store."""
    last = state.reconciled_at or state.since
    return state.now >= last + timedelta(seconds=settings.audit_reconcile_seconds)


def _is_due(state: SealingState, settings: AuditSettings) -> bool:
    wait = timedelta(seconds=settings.audit_seal_seconds)
    waited = state.oldest_at is not None and state.now >= state.oldest_at + wait
    return (
        state.unsealed >= DUE_PUBLICATIONS
        or waited
        or heartbeat_is_due(state, settings)
        or reconciliation_is_due(state, settings)
    )
