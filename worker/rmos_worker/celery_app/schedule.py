"""Scheduled batches: beat puts jobs into the ledger, as every producer does, never bare messages.

A message without a job would be refused at the gate, and could be lost; a job cannot. An entry's task
and arguments say which job it makes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

from celery import Celery
from celery.beat import PersistentScheduler, ScheduleEntry
from celery.schedules import crontab, schedule

from rmos_shared.advisories.model import DetailLevel
from rmos_shared.errors import FieldProblem, InvalidRequest
from rmos_shared.ids import new_uuid7
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.model import Job
from rmos_shared.jobs.pauses import SCHEDULE
from rmos_shared.settings.broker import BrokerSettings
from rmos_shared.tasks.payloads import ExplainMissing
from rmos_shared.tasks.table import EXPLAIN_MISSING
from rmos_shared.telemetry.events import ScheduleAccepted, ScheduleHeld, ScheduleRefused
from rmos_shared.telemetry.log import emit

#: How far the nightly batch looks back: runs older than that were seen by an earlier night.
_DAYS_BACK = 7
#: The longest time between two moments of one crontab that is looked through: those of a leap day.
_LONGEST_DAYS = 8 * 366
NIGHTLY = {
    "explain-missing-nightly": {
        "task": EXPLAIN_MISSING.name,
        "schedule": crontab(hour="2", minute="0"),
    },
}


def _explain_missing(
    request_id: str, due: datetime, *, days_back: int = _DAYS_BACK, detail: DetailLevel = "summary"
) -> ExplainMissing:
    """Return the payload that looks at the last days, up to and with the day on which it is due, in UTC."""
    return ExplainMissing(
        date_from=(due.date() - timedelta(days=days_back)).isoformat(),
        date_to=due.date().isoformat(),
        detail=detail,
        request_id=request_id,
    )


#: By task, what makes the payload of an entry: of a request id, when it is due, and the entry's arguments.
PAYLOADS: Mapping[str, Callable[..., ExplainMissing]] = {EXPLAIN_MISSING.name: _explain_missing}


class LedgerScheduler(PersistentScheduler):
    """Beat's own scheduler, except that the ledger accepts the jobs of due entries."""

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
        """Accept the entry's job, unless the schedule is paused.

        An entry that makes none is refused with an error in the log.

        Raises:
            BrokerUnavailable: nothing was accepted; beat logs it, and the next night covers the same days.
        """
        if advance:
            self.reserve(entry)
        due, name = last_due(entry.schedule, datetime.now(UTC)), str(entry.name)
        if self._ledger.pauses.is_paused(SCHEDULE):
            emit(ScheduleHeld(entry=name))
            return
        try:
            job = scheduled_job(name, str(entry.task), entry.args, entry.kwargs, due)
        except InvalidRequest as error:
            # Nothing raised: the other entries are due as well.
            emit(ScheduleRefused(entry=name, error=str(error)))
            return
        (outcome,) = self._ledger.accept([job])
        emit(ScheduleAccepted(entry=name, job_id=job.job_id, outcome=outcome.value))


def scheduled_job(
    name: str, task: str, args: object, arguments: Mapping[str, Any] | None, due: datetime
) -> Job:
    """Return the job of an entry that is due, with an id that derives from the entry and that moment alone.

    Beat writes down what it has done only every few minutes; one that is killed meanwhile, or a second one,
    does it again. The ledger knows that for a repeat.

    Raises:
        InvalidRequest: no job can be made of it.
    """
    if task not in PAYLOADS:
        raise _wrong(name, f"its task is none of {', '.join(PAYLOADS)}")
    if args:
        raise _wrong(name, "its arguments must have names")
    try:
        payload = PAYLOADS[task](f"{name}-{due:%Y-%m-%dT%H:%MZ}", due, **(arguments or {}))
    except (TypeError, ValueError, OverflowError) as error:
        raise _wrong(name, "its arguments are not those of its task") from error
    text = payload.to_json()
    job_id = new_uuid7(due, noise=sha256(f"{name}\n{task}\n{text}".encode()).digest()[:10])
    return Job(job_id=job_id, task=task, run_id=job_id, request_id=payload.request_id, payload=text)


def last_due(when: Any, now: datetime) -> datetime:
    """Return the last moment up to ``now`` at which a schedule was due; of an interval, its last multiple."""
    minute = now.replace(second=0, microsecond=0)
    if isinstance(when, crontab):
        return _last_of_crontab(when, minute)
    if isinstance(when, schedule):
        seconds = max(when.run_every.total_seconds(), 1.0)  # type: ignore[attr-defined]  # the stubs lack it
        return datetime.fromtimestamp(now.timestamp() // seconds * seconds, UTC)
    return minute


def _last_of_crontab(when: Any, minute: datetime) -> datetime:
    for days in range(_LONGEST_DAYS):
        day = minute.date() - timedelta(days=days)
        if (
            day.month not in when.month_of_year
            or day.day not in when.day_of_month
            or day.isoweekday() % 7 not in when.day_of_week
        ):
            continue
        latest = (minute.hour, minute.minute) if days == 0 else (24, 0)
        times = [(hour, at) for hour in when.hour for at in when.minute if (hour, at) <= latest]
        if times:
            hour, at = max(times)
            return datetime(day.year, day.month, day.day, hour, at, tzinfo=UTC)
    return minute


def _wrong(name: str, why: str) -> InvalidRequest:
    return InvalidRequest((FieldProblem(name, why),), what="entry of the schedule")


def add_schedule(app: Celery) -> None:
    """Make beat use the ledger, with our schedule."""
    app.conf.update(beat_scheduler=f"{__name__}:{LedgerScheduler.__name__}", beat_schedule=NIGHTLY)
