"""Receipts: proof that a job is accepted, and the jobs they are for."""

from __future__ import annotations

from dataclasses import dataclass, replace

from rmos_shared.errors import JobConflict
from rmos_shared.jobs.ledger import Acceptance
from rmos_shared.jobs.model import Job


@dataclass(frozen=True, slots=True)
class Receipt:
    """Proof that a job is accepted: from now on it ends done, dead and visible, or discarded by a person."""

    run_id: str
    job_id: str
    #: The job that explains the run; it is accepted in the very step that marks ``job_id`` done.
    explain_job_id: str | None = None
    #: Required fields that the request lacks: the run will be stored as BLOCKED (contract section 1).
    missing: tuple[str, ...] = ()
    #: The very same job was accepted before; it may have ended since.
    repeat: bool = False

    @property
    def last_job_id(self) -> str:
        """The job that ends last: the explanation if one was asked for."""
        return self.explain_job_id or self.job_id


@dataclass(frozen=True, slots=True)
class Prepared:
    """A job that is ready to be accepted, and the receipt that its acceptance makes true."""

    job: Job
    receipt: Receipt

    def receipt_of(self, acceptance: Acceptance) -> Receipt:
        """Return the receipt.

        Raises:
            JobConflict: a job of its id was accepted with another payload; this one was not.
        """
        if acceptance is Acceptance.CONFLICT:
            raise JobConflict(self.job.job_id)
        return replace(self.receipt, repeat=True) if acceptance is Acceptance.REPEAT else self.receipt
