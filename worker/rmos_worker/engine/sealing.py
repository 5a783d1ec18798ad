"""When the audit log is sealed: the job is accepted by the reconciler, and is one at a time."""

from __future__ import annotations

from datetime import datetime, timedelta

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
#: No seal promises the next one later than that, whatever the settings of the worker that made it.
LONGEST_PROMISE = timedelta(days=1)


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
    if state.next_at is None:
        return _is_over(timedelta(seconds=settings.audit_heartbeat_seconds), state.since, state.now)
    # The verifier grants a promise a minute more, so there is no need to come early. Where the clock was set
    # back, a promise of before stands until its time, and the sealer makes no empty seal before that; but one
    # that no seal can have given is another program's, and the job reads the true one from the log.
    promised = state.next_at - max(state.now, state.sealed_at or state.now)
    return state.now >= state.next_at or promised > LONGEST_PROMISE


def reconciliation_is_due(state: SealingState, settings: AuditSettings) -> bool:
    """Say whether the log is to be held against the store."""
    every = timedelta(seconds=settings.audit_reconcile_seconds)
    return _is_over(every, state.reconciled_at or state.since, state.now)


def _is_due(state: SealingState, settings: AuditSettings) -> bool:
    wait = timedelta(seconds=settings.audit_seal_seconds)
    return (
        state.unsealed >= DUE_PUBLICATIONS
        or (state.oldest_at is not None and _is_over(wait, state.oldest_at, state.now))
        or heartbeat_is_due(state, settings)
        or reconciliation_is_due(state, settings)
    )


def _is_over(wait: timedelta, since: datetime, now: datetime) -> bool:
    """Say whether ``wait`` is over; so it is where ``since`` is ahead.

    The ledger's clock was set back then, and how long it is since nobody knows.
    """
    return not since <= now < since + wait
