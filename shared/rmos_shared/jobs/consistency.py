"""The ledger held against itself: is every job exactly where its state says?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from rmos_shared.jobs.script import LedgerScript

_BATCH = 500
#: What the script says of an id without a record.
_GONE = "has no record"
#: How it ends what it says of a job that is well, and not for this version.
OTHER_VERSION = "of a task that only another version knows"


@dataclass(frozen=True, slots=True)
class Records:
    """How many records there are, at the least: done ones expire."""

    total: int = 0
    done: int = 0


class LedgerAudit:
    """Finds and mends jobs whose record and index disagree. Safe on a live system.

    Each batch is checked in one atomic step, so jobs that move meanwhile are never taken for faulty.
    """

    def __init__(self, script: LedgerScript) -> None:
        """Look through ``script`` of a ``JobLedger``."""
        self._script = script
        #: What the last ``faults`` has counted.
        self.records = Records()

    def faults(self) -> dict[str, str]:
        """Return every faulty job with what is wrong with it. Every id is held in memory."""
        found: dict[str, str] = {}
        self.records = Records()
        indexed = set(self._indexed())
        ids = iter(sorted({*self._script.job_ids(), *indexed}))
        while batch := list(islice(ids, _BATCH)):
            told = [text.partition(" ") for text in self._script.texts("check", *batch)]
            states = Counter(state for state, _, _ in told)
            self.records = Records(
                self.records.total + states.total() - states["none"], self.records.done + states["done"]
            )
            found |= {
                job_id: fault
                for job_id, (_, _, fault) in zip(batch, told, strict=True)
                # A record listed a moment ago and gone now was a done one that expired.
                if fault and (fault != _GONE or job_id in indexed)
            }
        return found

    def mend(self, job_id: str) -> str:
        """Put a faulty job where its state says, and ring for one that is not finished.

        One whose record is gone, or is none, becomes a discarded record, so that it stays counted and
        visible. Returns its state afterwards, ``ok`` when nothing was wrong with it, or ``of another
        version`` when this one does not know its task: then it stays where it is.
        """
        workers = self._script.members("workers")
        return bytes(self._script.run("mend", job_id, *workers)).decode()

    def _indexed(self) -> Iterator[str]:
        leases = (f"leases:{worker}" for worker in self._script.members("workers"))
        for index in (
            "waiting",
            "dead",
            "discarded",
            *(f"rung:{queue}" for queue in self._script.queues()),
            *leases,
        ):
            yield from self._script.members(index)
