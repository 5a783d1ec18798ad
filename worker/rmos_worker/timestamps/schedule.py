"""When a time stamp is due: once a UTC day, as soon as there is a checkpoint."""

from __future__ import annotations

from datetime import date

from rmos_shared.ids import timestamp_job_id
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.model import Job
from rmos_shared.jobs.unsealed import SealingState
from rmos_shared.settings.timestamps import TimestampSettings
from rmos_shared.tasks.payloads import TimestampCheckpoint
from rmos_shared.tasks.table import TIMESTAMP

#: What its jobs are about: there is one log.
_AUDIT_LOG = "audit-log"


class TimestampRounds:
    """Accepts the day's job. Its id is of the day, so however many do so, there is one."""

    def __init__(self, ledger: JobLedger, settings: TimestampSettings) -> None:
        """Use ``ledger``; without ``RMOS_TSA_URL`` nothing is ever due."""
        self._ledger = ledger
        self._wanted = settings.tsa_url is not None
        #: The last day that this process has seen to.
        self._day: date | None = None

    def round(self, state: SealingState) -> None:
        """Accept the job, if it is due and was not accepted by this process before.

        Raises:
            BrokerUnavailable: the next round does it.
        """
        day = state.now.date()
        if not self._wanted or state.checkpoint is None or day == self._day:
            return
        self._ledger.accept([timestamp_job(day)])
        self._day = day


def timestamp_job(day: date) -> Job:
    """Return the job of a day."""
    return Job(
        job_id=timestamp_job_id(day),
        task=TIMESTAMP.name,
        run_id=_AUDIT_LOG,
        request_id=None,
        payload=TimestampCheckpoint(day=day.isoformat()).to_json(),
    )
