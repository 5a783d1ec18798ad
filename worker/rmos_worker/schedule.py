"""Scheduled batches: beat puts jobs into the ledger, as every producer does, never bare messages.

A message without a job would be refused at the gate, and could be lost; a job cannot.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

from celery import Celery
from celery.beat import PersistentScheduler, ScheduleEntry
from celery.schedules import crontab

from rmos_shared.ids import new_uuid7
from rmos_shared.ledger.job_ledger import JobLedger
from rmos_shared.models.job import ExplainMissing, Job
from rmos_shared.settings import BrokerSettings
from rmos_shared.tasks import EXPLAIN_MISSING

logger = logging.getLogger(__name__)

#: How far the nightly batch looks back: runs older than that were seen by an earlier night.
_DAYS_BACK = 7
_HOUR = 2
NIGHTLY = {
    "explain-missing-nightly": {
        "task": EXPLAIN_MISSING.name,
        "schedule": crontab(hour=str(_HOUR), minute="0"),
    },
}


class LedgerScheduler(PersistentScheduler):
    """Beat's own scheduler, except that what is due is accepted by the ledger."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take what beat gives, and connect to the ledger."""
        self._ledger = JobLedger.connect(BrokerSettings.load())
        super().__init__(*args, **kwargs)

    def apply_async(
        self,
        entry: ScheduleEntry,
        producer: Any = None,  # noqa: ARG002 - beat's signature
        advance: bool = True,  # noqa: FBT001, FBT002 - beat's signature
        **_: Any,
    ) -> None:
        """Accept the entry's job.

        Raises:
            BrokerUnavailable: nothing was accepted; beat logs it, and the next night covers the same days.
        """
        if advance:
            self.reserve(entry)
        job = nightly_job(datetime.now(UTC))
        self._ledger.accept([job])
        logger.info("accepted on schedule", extra={"entry": entry.name, "job_id": job.job_id})


def batch_job(now: datetime) -> Job:
    """Return the job of the batch that is due at ``now``: the last days up to and with today, in UTC."""
    today = now.date()
    payload = ExplainMissing(
        date_from=(today - timedelta(days=_DAYS_BACK)).isoformat(),
        date_to=today.isoformat(),
        request_id=f"nightly-{today.isoformat()}",
    )
    job_id = new_uuid7(now)
    return Job(
        job_id=job_id,
        task=EXPLAIN_MISSING.name,
        run_id=job_id,
        request_id=payload.request_id,
        payload=payload.to_json(),
    )


def nightly_job(now: datetime) -> Job:
    """Return the job of the night that began last, with an id that derives from that night alone.

    Beat writes down what it has done only every few minutes; one that is killed meanwhile, or a second one,
    does it again. The ledger knows that for a repeat.
    """
    night = (now - timedelta(hours=_HOUR)).replace(hour=0, minute=0, second=0, microsecond=0)
    job_id = new_uuid7(night, noise=sha256(b"explain-missing-nightly").digest()[:10])
    return replace(batch_job(night), job_id=job_id, run_id=job_id)


def add_schedule(app: Celery) -> None:
    """Make beat use the ledger, with our schedule."""
    app.conf.update(beat_scheduler=f"{__name__}:{LedgerScheduler.__name__}", beat_schedule=NIGHTLY)
