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


class LedgerConsistency:
    """Finds and repairs jobs whose record and index disagree. Safe on a live system.

    Each batch is checked in one atomic step, so jobs that move meanwhile are never taken for faulty.
    """

    def __init__(self, script: LedgerScript) -> None:
        """Look through ``script`` of a ``JobLedger``."""
        self._script = script
        #: What the last ``inconsistencies`` has counted.
        self.records = Records()

    def inconsistencies(self) -> dict[str, str]:
        """Return every inconsistent job with what is wrong with it. Every id is held in memory."""
        inconsistencies: dict[str, str] = {}
        self.records = Records()
        indexed = set(self._indexed())
        ids = iter(sorted({*self._script.job_ids(), *indexed}))
        while batch := list(islice(ids, _BATCH)):
            answers = [text.partition(" ") for text in self._script.texts("check", *batch)]
            states = Counter(state for state, _, _ in answers)
            self.records = Records(
                self.records.total + states.total() - states["none"], self.records.done + states["done"]
            )
            inconsistencies |= {
                job_id: inconsistency
                for job_id, (_, _, inconsistency) in zip(batch, answers, strict=True)
                # A record listed a moment ago and gone now was a done one that expired.
                if inconsistency and (inconsistency != _GONE or job_id in indexed)
            }
        return inconsistencies

    def repair(self, job_id: str) -> str:
        """Put an inconsistent job where its state says, and make one that is not finished ready again.

        One whose record is gone, or is none, becomes a discarded record, so that it stays counted and
        visible. Returns its state afterwards, ``ok`` when nothing was wrong with it, or ``of another
        version`` when this one does not know its task: then it stays where it is.
        """
        return self._script.text("repair", job_id, *self._script.members("workers"))

    def _indexed(self) -> Iterator[str]:
        leases = (f"leases:{worker}" for worker in self._script.members("workers"))
        for index in (
            "taken",
            "waiting",
            "dead",
            "discarded",
            *(f"ready:{queue}" for queue in self._script.queues()),
            *leases,
        ):
            yield from self._script.members(index)
