"""The schedule: beat opens batches in the ledger; it never sends bare messages.

A message without a job would be refused at the gate, and could be lost. The ledger also knows which batch of
an entry was opened last. So beat keeps nothing itself: whatever night it was away for, be it down or the
schedule paused, is made up for once, and a second beat opens nothing anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

from celery import Celery
from celery.beat import ScheduleEntry, Scheduler
from celery.schedules import crontab, schedule

from rmos_shared.batches.choice import RunChoice
from rmos_shared.batches.record import BatchSpec
from rmos_shared.errors import FieldProblem, InvalidRequest, RmosError
from rmos_shared.ids import scheduled_batch_id
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.settings.broker import BrokerSettings
from rmos_shared.settings.nightly import NIGHTLY, NightlySettings
from rmos_shared.tasks.table import PLAN
from rmos_shared.telemetry.events import (
    Event,
    ScheduleAccepted,
    ScheduleDelayed,
    ScheduleHeld,
    ScheduleRefused,
)
from rmos_shared.telemetry.log import emit

#: Who opens the batches of the schedule.
BEAT = "system:beat"
_DAYS_BACK = 7
#: After a longer absence than that the days before are for an operator's batch.
_MOST_DAYS = 3_660
#: How often beat asks the ledger whether something was missed.
_LOOK_SECONDS = 30.0
#: A batch that is opened later than that after it was due is called late.
_LATE = timedelta(minutes=5)
#: The longest time between two moments of one crontab that is looked through: those of a leap day.
_LONGEST_DAYS = 8 * 366


class LedgerScheduler(Scheduler):
    """Celery's scheduler, except that the ledger opens the batches of due entries, and says which were."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take what beat gives, and connect to the ledger."""
        self._ledger = JobLedger.connect(BrokerSettings.load())
        #: By entry, the last due moment of which was told why nothing is opened.
        self._told: dict[str, datetime] = {}
        super().__init__(*args, **kwargs)

    def install_default_entries(self, data: Any) -> None:
        """Add none of Celery's own: they tidy up results, and there are none."""

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Open what was missed, then do as Celery does; return the seconds until the next look."""
        for entry in list(self.schedule.values()):
            self._open_due(entry)
        return min(super().tick(*args, **kwargs), _LOOK_SECONDS)

    def apply_async(
        self,
        entry: ScheduleEntry,
        producer: Any = None,  # noqa: ARG002 - beat's signature
        advance: bool = True,  # noqa: FBT001, FBT002 - beat's signature
        **_: Any,
    ) -> None:
        """Open the batch of an entry that Celery finds due; nothing is raised, and the next look repairs."""
        if advance:
            self.reserve(entry)
        self._open_due(entry)

    def utc_now(self) -> datetime:
        """Return the time by which entries are due."""
        return datetime.now(UTC)

    def _open_due(self, entry: ScheduleEntry) -> None:
        """Open the batch of the last moment at which the entry was due, unless the ledger has it already."""
        name, now = str(entry.name), self.utc_now()
        due = last_due(entry.schedule, now)
        batches = self._ledger.batches
        try:
            opened = batches.last_due(name)
            if opened is None:
                # A new system, which cannot have missed anything.
                batches.begin_schedule(name, due)
                return
            if due <= opened:
                return
            if batches.schedule_is_paused():
                self._tell(name, due, ScheduleHeld(entry=name))
                return
            spec = scheduled_batch(
                name, str(entry.task), entry.args, entry.kwargs, due=due, seen=opened.date()
            )
            batch_id = scheduled_batch_id(name, due)
            outcome = batches.open(batch_id, spec)
        except InvalidRequest as error:
            # Nothing raised: the other entries are due as well.
            self._tell(name, due, ScheduleRefused(entry=name, error=str(error)))
            return
        except RmosError as error:
            emit(ScheduleDelayed(entry=name, error=str(error)))
            return
        late = now - due > _LATE
        emit(ScheduleAccepted(entry=name, batch_id=batch_id, outcome=outcome.value, late=late))

    def _tell(self, name: str, due: datetime, event: Event) -> None:
        """Report it once, not at each look."""
        if self._told.get(name) != due:
            self._told[name] = due
            emit(event)


def scheduled_batch(
    name: str, task: str, args: object, arguments: Mapping[str, Any] | None, *, due: datetime, seen: date
) -> BatchSpec:
    """Return the batch of an entry that is due: runs without explanation, of the UTC days up to its own.

    ``seen`` is the day of the entry's batch before: what came since was seen by none, however many nights
    that is.

    Raises:
        InvalidRequest: no batch can be made of it.
    """
    if task != PLAN.name:
        raise _wrong(name, f"its task is not {PLAN.name}")
    if args:
        raise _wrong(name, "its arguments must have names")
    given = {"days_back": _DAYS_BACK, **(arguments or {})}
    days_back = given.pop("days_back")
    if given or not isinstance(days_back, int) or not 0 <= days_back <= _MOST_DAYS:
        raise _wrong(name, f"it takes days_back alone, a number up to {_MOST_DAYS}")
    day = due.date()
    first = max(min(day - timedelta(days=days_back), seen), day - timedelta(days=_MOST_DAYS))
    return BatchSpec(
        choice=RunChoice(date_from=first.isoformat(), date_to=day.isoformat(), missing_only=True),
        by=BEAT,
        why=f"{name}, due {due:%Y-%m-%dT%H:%MZ}",
        entry=name,
        due_at_utc=due,
    )


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


def nightly(settings: NightlySettings) -> dict[str, Any]:
    """Return the schedule that these settings ask for, as Celery takes it."""
    if not settings.nightly_enabled:
        return {}
    hour, minute = settings.nightly_time.split(":")
    return {
        NIGHTLY: {
            "task": PLAN.name,
            "schedule": crontab(hour=str(int(hour)), minute=str(int(minute))),
            "kwargs": {"days_back": settings.nightly_span_days},
        },
    }


def add_schedule(app: Celery, settings: NightlySettings) -> None:
    """Make beat use the ledger, with our schedule."""
    app.conf.update(beat_scheduler=f"{__name__}:{LedgerScheduler.__name__}", beat_schedule=nightly(settings))
