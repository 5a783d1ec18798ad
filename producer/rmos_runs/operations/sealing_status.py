"""How far the sealing of the audit log is, as the ledger knows it: for status, doctor and metrics."""

from __future__ import annotations

from datetime import timedelta

from rmos_shared.ids import seal_job_id
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.model import JobState
from rmos_shared.models.base import Frozen, SingleLine, UtcTime

#: How much later than promised a seal may come; the verifier grants as much.
LATENESS = timedelta(seconds=60)
#: Publications are sealed within a minute; one that waits for so long waits for somebody to look.
MOST_UNSEALED = timedelta(minutes=5)


class SealingStatus(Frozen):
    """The audit log, and what it does not hold yet."""

    #: Entries of the newest checkpoint; 0 before the first.
    entries: int
    #: When that was sealed, and when the next seal is promised at the latest.
    sealed_at_utc: UtcTime | None
    next_at_utc: UtcTime | None
    sealed_seconds: float | None
    overdue_seconds: float
    #: Id of the key that signed it, 8 hex digits; None: nobody has.
    signed_by: SingleLine | None
    #: Publications and acts that no seal holds, and how long the oldest of them waits. Where it is of a time
    #: that is ahead, the ledger's clock was set back, and this is how far: how long it waits, nobody knows.
    unsealed: int
    oldest_unsealed_seconds: float | None
    #: Since the ledger's record of them began: seals, and entries that nobody had told of in time.
    seals: int
    late: int
    #: Keys that acts named and the key in use had not introduced: somebody planted them.
    unintroduced: int = 0
    #: The seal job for which sealing stands still until it is replayed or discarded.
    dead_job: SingleLine | None

    @property
    def has_stopped(self) -> bool:
        """Whether nothing is sealed that should be."""
        waits = timedelta(seconds=self.oldest_unsealed_seconds or 0.0)
        overdue = timedelta(seconds=self.overdue_seconds)
        return self.dead_job is not None or overdue > LATENESS or waits > MOST_UNSEALED


def sealing_status(ledger: JobLedger) -> SealingStatus:
    """Return it, changing nothing; raises as ``JobLedger`` does."""
    state = ledger.unsealed.state()
    job_id = seal_job_id(state.number)
    job = ledger.find(job_id) if state.number else None
    oldest, sealed, promised = state.oldest_at, state.sealed_at, state.next_at
    return SealingStatus(
        entries=state.size,
        sealed_at_utc=sealed,
        next_at_utc=promised,
        sealed_seconds=None if sealed is None else max(0.0, (state.now - sealed).total_seconds()),
        overdue_seconds=0.0 if promised is None else max(0.0, (state.now - promised).total_seconds()),
        signed_by=state.signed_by or None,
        unsealed=state.unsealed,
        oldest_unsealed_seconds=None if oldest is None else abs((state.now - oldest).total_seconds()),
        seals=state.seals,
        late=state.late,
        unintroduced=state.unintroduced,
        dead_job=job_id if job is not None and job.state is JobState.DEAD else None,
    )
