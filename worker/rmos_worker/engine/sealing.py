"""When the audit log is sealed: the job is accepted by the reconciler, and is one at a time."""

from __future__ import annotations

from datetime import timedelta

from rmos_shared.ids import seal_job_id
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.model import Job
from rmos_shared.jobs.unsealed import SealingState
from rmos_shared.settings.audit import AuditSettings
from rmos_shared.tasks.payloads import SealLog
from rmos_shared.tasks.table import SEAL

#: Publications that are sealed at once, however young they are.
SEAL_PUBLICATIONS = 1_000
#: What its jobs are about: there is one log.
AUDIT_LOG = "audit-log"
#: The next seal comes this much before it is promised, or a tenth of the heartbeat, whichever is less.
_EARLY = timedelta(seconds=30)


class SealRounds:
    """Accepts the seal job that is due; done by the reconciler, in whichever worker has its lock."""

    def __init__(self, ledger: JobLedger, settings: AuditSettings) -> None:
        """Use ``ledger``."""
        self._ledger = ledger
        self._settings = settings

    def round(self) -> None:
        """Accept the job, if one is due. Doing so twice, or at once, accepts nothing twice.

        Raises:
            BrokerUnavailable: the next round does it.
        """
        job = next_seal(self._ledger.unsealed.state(), self._settings)
        if job is not None:
            self._ledger.accept([job])


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
    promised = state.next_at or (state.sealed_at or state.since) + heartbeat
    return state.now >= promised - min(_EARLY, heartbeat / 10)


def reconciliation_is_due(state: SealingState, settings: AuditSettings) -> bool:
    """Say whether the log is to be held against the store."""
    last = state.reconciled_at or state.since
    return state.now >= last + timedelta(seconds=settings.audit_reconcile_seconds)


def _is_due(state: SealingState, settings: AuditSettings) -> bool:
    wait = timedelta(seconds=settings.audit_seal_seconds)
    waited = state.oldest_at is not None and state.now >= state.oldest_at + wait
    return (
        state.unsealed >= SEAL_PUBLICATIONS
        or waited
        or heartbeat_is_due(state, settings)
        or reconciliation_is_due(state, settings)
    )
