"""The nightly batch: every run without an explanation gets one job, however it is paged or repeated."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from celery.schedules import crontab, schedule

from rmos_shared.ids import new_uuid7
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.model import Job, JobState
from rmos_shared.jobs.work import Claim, Finish, Lease
from rmos_shared.runs.model import RunRequest
from rmos_shared.store.memory import MemoryStore
from rmos_shared.tasks.payloads import ExplainMissing, SuggestAndAttach
from rmos_shared.tasks.table import EXPLAIN_MISSING, SUGGEST
from rmos_shared.telemetry.events import ScheduleRefused
from rmos_worker.celery_app.schedule import NIGHTLY, LedgerScheduler, last_due, scheduled_job
from rmos_worker.handlers.artifact import artifact_of
from rmos_worker.handlers.explain_missing import ExplainMissingHandler
from support.events import events_in
from support.runs import Runs

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
LEASE = Lease("w", "t")


def batch_job() -> Job:
    """Return the job of a day's batch, each time another entry's."""
    return scheduled_job(new_uuid7(), EXPLAIN_MISSING.name, (), {}, NOON)


@pytest.fixture
def ledger(broker_url: str) -> JobLedger:
    return JobLedger(redis.Redis.from_url(broker_url))


@pytest.fixture
def runs(ledger: JobLedger, sample_requests: list[dict[str, Any]]) -> Runs:
    log = Runs(MemoryStore(), ledger)
    for index, request in enumerate(sample_requests[:25]):
        # Five a day, so that pages end inside days and between them.
        moment = NOON - timedelta(days=index // 5, minutes=index)
        log.writer.put_run(artifact_of(RunRequest.read({**request, "created_at_utc": moment}))[0])
    return log


def drain(ledger: JobLedger, handler: ExplainMissingHandler) -> list[str]:
    """Do every batch job until none is left; return the runs that explanations were asked for."""
    asked: list[str] = []
    while ids := [job.job_id for job in ledger.jobs(JobState.ACCEPTED) if job.task == EXPLAIN_MISSING.name]:
        claims = ledger.work.claim(ids, LEASE, lease_seconds=60)
        for end in handler.handle(claims.claimed):
            assert isinstance(end, Finish)
            ledger.work.finish([end], LEASE, ttl_seconds=60)
            asked += [job.run_id for job in end.following if job.task == SUGGEST.name]
    return asked


@pytest.mark.parametrize("page", [1, 4, 5, 24, 25, 500])
def test_every_run_is_asked_for_once_whatever_the_page(ledger: JobLedger, runs: Runs, page: int) -> None:
    stored = [entry.artifact.run_id for entry in runs.reader.list_runs() if entry.artifact]
    ledger.accept([batch_job()])

    asked = drain(ledger, ExplainMissingHandler(runs.reader, ledger, page=page))

    assert asked == stored
    assert len(stored) == 25


def test_what_is_under_way_or_dead_is_not_asked_for_again(ledger: JobLedger, runs: Runs) -> None:
    handler = ExplainMissingHandler(runs.reader, ledger)
    ledger.accept([batch_job()])
    first = drain(ledger, handler)
    ledger.accept([batch_job()])

    assert len(first) == 25
    assert drain(ledger, handler) == []


def test_only_the_days_asked_for(ledger: JobLedger, runs: Runs) -> None:
    payload = ExplainMissing(date_from="2026-11-19", date_to="2026-11-19")
    claim = Claim(new_uuid7(), EXPLAIN_MISSING.name, payload.to_bytes(), new_uuid7(), None, 0, 1, 0.0)

    (end,) = ExplainMissingHandler(runs.reader, ledger).handle([claim])

    assert isinstance(end, Finish)
    assert end.result == {"runs": 5, "explanations": 5}
    told = SuggestAndAttach.model_validate_json(end.following[0].payload)
    assert runs.reader.get_artifact(told.run_id).date == "2026-11-19"


def test_beat_accepts_a_job_instead_of_sending_a_message(
    broker_url: str, ledger: JobLedger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RMOS_BROKER_URL", broker_url)
    app = Celery(set_as_current=False, broker=broker_url)
    scheduler = LedgerScheduler(app, schedule_filename=str(tmp_path / "beat"), lazy=True)
    scheduler.setup_schedule()
    entry = scheduler.Entry(
        name="nightly", task=EXPLAIN_MISSING.name, schedule=schedule(timedelta(days=1)), app=app
    )

    scheduler.apply_entry(entry)

    scheduler.close()
    (job,) = ledger.jobs()
    assert job.task == EXPLAIN_MISSING.name
    stats = ledger.stats()
    assert (stats.accepted, stats.queues["runs.batch"]) == (1, 1)


def test_each_entry_makes_its_own_job_and_one_that_makes_none_stops_nobody(
    broker_url: str,
    ledger: JobLedger,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("RMOS_BROKER_URL", broker_url)
    app = Celery(set_as_current=False, broker=broker_url)
    scheduler = LedgerScheduler(app, schedule_filename=str(tmp_path / "beat"), lazy=True)
    scheduler.setup_schedule()
    entries: list[dict[str, Any]] = [
        {"name": "unknown", "task": "celery.backend_cleanup"},
        {"name": "not-a-batch", "task": SUGGEST.name, "kwargs": {"run_id": "r"}},
        {"name": "odd", "task": EXPLAIN_MISSING.name, "kwargs": {"days": 1}},
        {"name": "wrong", "task": EXPLAIN_MISSING.name, "kwargs": {"detail": "none"}},
        {"name": "endless", "task": EXPLAIN_MISSING.name, "kwargs": {"days_back": 10**12}},
        {"name": "nameless", "task": EXPLAIN_MISSING.name, "args": (1,)},
        {"name": "monthly", "task": EXPLAIN_MISSING.name, "kwargs": {"days_back": 31, "detail": "full"}},
        {"name": "nightly", "task": EXPLAIN_MISSING.name},
        {"name": "nightly", "task": EXPLAIN_MISSING.name},
    ]

    for entry in entries:
        scheduler.apply_entry(scheduler.Entry(schedule=crontab(hour="2", minute="0"), app=app, **entry))

    scheduler.close()
    refused = [event for event in events_in(caplog) if isinstance(event, ScheduleRefused)]
    assert [event.entry for event in refused] == [entry["name"] for entry in entries[:6]]
    assert not [record for record in caplog.records if record.exc_info]
    jobs = {
        job.request_id: ExplainMissing.read_json(ledger.dead_letters.payload(job.job_id) or b"")
        for job in ledger.jobs()
    }
    due = last_due(crontab(hour="2", minute="0"), datetime.now(UTC))
    assert {name: (told.detail, told.date_from, told.date_to) for name, told in jobs.items()} == {
        f"{name}-{due:%Y-%m-%d}T02:00Z": (
            detail,
            (due.date() - timedelta(days=days)).isoformat(),
            due.date().isoformat(),
        )
        for name, detail, days in (("monthly", "full", 31), ("nightly", "summary", 7))
    }


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        (NIGHTLY["explain-missing-nightly"]["schedule"], "2026-11-20T02:00"),
        (crontab(hour="12", minute="0"), "2026-11-20T12:00"),
        (crontab(hour="12", minute="1"), "2026-11-19T12:01"),
        (crontab(hour="*/6", minute="30"), "2026-11-20T06:30"),
        (crontab(hour="3", minute="0", day_of_week="sun"), "2026-11-15T03:00"),
        (crontab(hour="3", minute="0", day_of_month="31"), "2026-10-31T03:00"),
        (crontab(hour="3", minute="0", day_of_month="29", month_of_year="2"), "2024-02-29T03:00"),
        (schedule(timedelta(days=1)), "2026-11-20T00:00"),
    ],
    ids=str,
)
def test_when_an_entry_was_due_last(when: Any, expected: str) -> None:
    due = last_due(when, NOON + timedelta(seconds=30))
    assert due.tzinfo is UTC
    assert f"{due:%Y-%m-%dT%H:%M}" == expected
    assert last_due(when, due) == due
