"""The ledger held against itself: is every job exactly where its state says?"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from rmos_shared.ledger.script import LedgerScript
from rmos_shared.tasks import QUEUES

_BATCH = 500
#: What the script says of an id without a record.
_GONE = "has no record"


class LedgerAudit:
    """Finds and mends jobs whose record and index disagree. Safe on a live system.

    Each batch is checked in one atomic step, so jobs that move meanwhile are never taken for faulty.
    """

    def __init__(self, script: LedgerScript) -> None:
        """Look through ``script`` of a ``JobLedger``."""
        self._script = script

    def faults(self) -> dict[str, str]:
        """Return every faulty job with what is wrong with it. Every id is held in memory."""
        found: dict[str, str] = {}
        indexed = set(self._indexed())
        ids = iter(sorted({*self._script.job_ids(), *indexed}))
        while batch := list(islice(ids, _BATCH)):
            told = zip(batch, self._script.texts("check", *batch), strict=True)
            found |= {
                job_id: fault
                for job_id, fault in told
                # A record listed a moment ago and gone now was a done one that expired.
                if fault and (fault != _GONE or job_id in indexed)
            }
        return found

    def mend(self, job_id: str) -> str:
        """Put a faulty job where its state says, and ring for one that is not finished.

        One whose record is gone becomes a discarded record, so that it stays counted and visible. Returns
        its state afterwards, or ``ok`` when nothing was wrong with it.
        """
        workers = self._script.members("workers")
        return bytes(self._script.run("mend", job_id, *workers)).decode()

    def _indexed(self) -> Iterator[str]:
        leases = (f"leases:{worker}" for worker in self._script.members("workers"))
        for index in ("waiting", "dead", "discarded", *(f"rung:{queue}" for queue in QUEUES), *leases):
            yield from self._script.members(index)
