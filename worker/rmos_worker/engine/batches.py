"""How batches go on: a page of runs at a time, so that little of a batch is in line at any moment."""

from __future__ import annotations

import math
from datetime import datetime

from rmos_shared.batches.record import BatchRecord, BatchState
from rmos_shared.ids import page_job_id, report_job_id
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.model import Job
from rmos_shared.models.base import Frozen
from rmos_shared.tasks.payloads import PlanBatch, ReportBatch
from rmos_shared.tasks.table import PLAN, REPORT, TaskSpec

#: The most jobs that one page puts in line, and how many may be left of the pages before when it begins. A
#: batch that is paused or cancelled has no more than both together still to do.
PAGE_JOBS = 200
LOW_WATER = 100


class BatchRounds:
    """Accepts what each batch needs next; done by the reconciler, in whichever worker has its lock."""

    def __init__(self, ledger: JobLedger) -> None:
        """Use ``ledger``."""
        self._ledger = ledger

    def round(self) -> None:
        """Look at every batch that has not ended. Doing so twice, or at once, accepts nothing twice.

        Raises:
            BrokerUnavailable: the next round does the rest.
        """
        now, batches = self._ledger.batches.under_way()
        jobs = [job for batch in batches if (job := next_job(batch, now)) is not None]
        if jobs:
            self._ledger.accept(jobs)


def next_job(batch: BatchRecord, now: datetime) -> Job | None:
    """Return the page or the report that a batch needs now, if any; the same until that is done.

    Its id and payload derive from what the batch has come to, so accepting it again is a repeat.
    """
    if batch.all_planned or batch.state is BatchState.CANCELLING:
        report = ReportBatch(batch_id=batch.batch_id)
        return None if batch.counts.pending else _job(report_job_id(batch.batch_id), REPORT, batch, report)
    if batch.state is BatchState.PAUSED or batch.counts.pending > LOW_WATER:
        return None
    if batch.next_page_at_utc is not None and now < batch.next_page_at_utc:
        return None
    page = PlanBatch(
        batch_id=batch.batch_id,
        choice=batch.spec.choice,
        after=batch.place,
        most_jobs=_most_jobs(batch),
        rate_per_second=batch.spec.rate_per_second,
    )
    return _job(page_job_id(batch.batch_id, batch.pages), PLAN, batch, page)


def _most_jobs(batch: BatchRecord) -> int:
    # With a rate, what it allows in a second: a page that has none to add waits no longer than that.
    rate, limit = batch.spec.rate_per_second, batch.spec.limit
    most = PAGE_JOBS if rate is None else min(PAGE_JOBS, math.ceil(rate))
    return most if limit is None else min(most, limit - batch.counts.jobs)


def _job(job_id: str, task: TaskSpec, batch: BatchRecord, payload: Frozen) -> Job:
    return Job(
        job_id=job_id,
        task=task.name,
        run_id=batch.batch_id,
        request_id=batch.batch_id,
        payload=payload.to_json(),
        batch_id=batch.batch_id,
    )
