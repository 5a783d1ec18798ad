"""What a batch makes of each run, what it needs next, its report, and the batch of the schedule."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from celery.schedules import crontab, schedule
from packaging.version import Version

from rmos_shared.advisories.engine import Engine
from rmos_shared.advisories.model import AdvisoryLink
from rmos_shared.batches.candidates import Asked, Fate, advisory_ids, detail_of, fate_of, version_of
from rmos_shared.batches.choice import RunChoice
from rmos_shared.batches.record import BatchCounts, BatchRecord, BatchSpec, BatchState
from rmos_shared.batches.report import BatchReport, BatchReports, report_key
from rmos_shared.errors import BatchNotFound, CorruptArtifact, InvalidRequest
from rmos_shared.ids import JOB_ID, new_uuid7, reexplain_job_id, scheduled_batch_id
from rmos_shared.jobs.model import Failure, JobRecord, JobState
from rmos_shared.settings.nightly import NIGHTLY, NightlySettings
from rmos_shared.store.memory import MemoryStore
from rmos_shared.tasks.payloads import PlanBatch
from rmos_shared.tasks.table import PLAN, REPORT
from rmos_worker.celery_app.schedule import last_due, nightly, scheduled_batch
from rmos_worker.engine.batches import LOW_WATER, PAGE_JOBS, next_job
from support.records import HOUR, NOON, make_attempt, make_link, make_run

ENGINE = Engine("feasibility", "2")
RUN = make_run(status="OK", tool_id="router:endmill_4p0mm")
DAYS = {"date_from": "2026-08-01", "date_to": "2026-08-01"}


def choice(**fields: Any) -> RunChoice:
    return RunChoice.read(DAYS | fields)


def link(version: str = "1", **fields: Any) -> AdvisoryLink:
    return make_link(RUN, **{"engine_version": version, **fields})


def job(state: JobState) -> JobRecord:
    failure = Failure(reason="conflict", error_type="X", message="no") if state is JobState.DEAD else None
    return JobRecord(
        job_id=new_uuid7(NOON),
        task="runs.suggest_and_attach",
        queue="runs.advise",
        state=state,
        run_id=RUN.run_id,
        request_id=None,
        payload_sha256="c" * 64,
        accepted_at_utc=NOON,
        changed_at_utc=NOON,
        crash_count=0,
        retry_count=0,
        failure=failure,
    )


OLD, NEW, ODD = link("1"), link("2", advisory_id="adv2"), link("1.x", advisory_id="adv4")
FOREIGN = link("9", advisory_id="adv3", engine_id="another")
NOTE = link("2", advisory_id="adv5", kind="note")
PENDING, DEAD, FAILED = job(JobState.WAITING), job(JobState.DEAD), make_attempt(RUN)
MISSING, ERRORS = {"missing_only": True}, {"failed_only": True}
#: Of a run's links, attempts and job: what becomes of it with none of the options, and with each of them.
FATES: list[tuple[list[AdvisoryLink], list[Any], JobRecord | None, str, str, str, str]] = [
    ([], [], None, "meant", "meant", "not_meant", "not_meant"),
    ([], [], PENDING, "under_way", "under_way", "under_way", "under_way"),
    ([], [], DEAD, "meant", "not_meant", "meant", "not_meant"),
    ([], [FAILED], None, "meant", "not_meant", "meant", "not_meant"),
    ([OLD], [], None, "meant", "not_meant", "not_meant", "meant"),
    ([OLD], [], PENDING, "under_way", "under_way", "under_way", "under_way"),
    ([OLD], [FAILED], DEAD, "meant", "not_meant", "not_meant", "meant"),
    ([NEW], [], None, "explained", "explained", "explained", "explained"),
    ([NEW, OLD], [], PENDING, "explained", "explained", "explained", "explained"),
    ([FOREIGN], [], None, "meant", "not_meant", "not_meant", "not_meant"),
    ([FOREIGN, OLD], [], None, "meant", "not_meant", "not_meant", "meant"),
    ([ODD], [], None, "meant", "not_meant", "not_meant", "not_meant"),
    ([NOTE], [], None, "meant", "meant", "not_meant", "not_meant"),
]


@pytest.mark.parametrize(("links", "attempts", "known", "plain", "missing", "failed", "older"), FATES)
def test_what_a_batch_makes_of_a_run(  # noqa: PLR0917 - parametrize passes them by name
    links: list[AdvisoryLink],
    attempts: list[Any],
    known: JobRecord | None,
    plain: str,
    missing: str,
    failed: str,
    older: str,
) -> None:
    def fate(asked: RunChoice) -> Fate:
        return fate_of(links, attempts, known, Asked(asked, version_of(asked), ENGINE))

    asked = (choice(), choice(**MISSING), choice(**ERRORS), choice(engine_older_than="2"))
    assert [fate(one).value for one in asked] == [plain, missing, failed, older]


def test_versions_are_compared_as_versions_and_only_the_newest_explanation_counts() -> None:
    tenth, ninth = link("1.10"), link("1.9", advisory_id="adv2", created_at_utc=NOON + 2 * HOUR)
    asked = choice(engine_older_than="1.10")
    assert version_of(asked) == Version("1.10")
    assert fate_of([tenth], [], None, Asked(asked, version_of(asked), ENGINE)) is Fate.NOT_MEANT
    assert fate_of([tenth, ninth], [], None, Asked(asked, version_of(asked), ENGINE)) is Fate.MEANT
    with pytest.raises(InvalidRequest, match="engine_older_than"):
        version_of(choice(engine_older_than="newest"))


def test_status_risk_and_tool_choose() -> None:
    for fields in ({}, {"status": "OK"}, {"risk_level": "green"}, {"tool_id_prefix": "router:"}):
        assert choice(**fields).takes(RUN)
    for fields in ({"status": "ERROR"}, {"risk_level": "RED"}, {"tool_id_prefix": "laser:"}):
        assert not choice(**fields).takes(RUN)


@pytest.mark.parametrize(
    "fields",
    [
        {"date_from": "2026-08-02"},
        MISSING | ERRORS,
        MISSING | {"engine_older_than": "2"},
        ERRORS | {"engine_older_than": "2"},
    ],
)
def test_a_choice_that_nothing_can_meet_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        choice(**fields)


def test_an_explanation_keeps_its_level_of_detail() -> None:
    ids = advisory_ids(RUN.run_id, "feasibility", "1", "a" * 64)
    assert len(set(ids.values())) == 2
    for detail, made in ids.items():
        assert detail_of(link("1", advisory_id=made)) == detail
    assert detail_of(link("1", advisory_id="of-another-make")) == "summary"


BATCH_ID = new_uuid7(NOON)


def batch(
    state: BatchState = BatchState.RUNNING,
    *,
    limit: int | None = None,
    rate: float | None = None,
    counts: dict[str, int] | None = None,
    **fields: Any,
) -> BatchRecord:
    return BatchRecord(
        batch_id=BATCH_ID,
        state=state,
        spec=BatchSpec(choice=choice(), limit=limit, rate_per_second=rate, by="person:ana"),
        counts=BatchCounts(**(counts or {})),
        created_at_utc=NOON,
        changed_at_utc=NOON + HOUR,
        **fields,
    )


BUSY = {"jobs": 500, "done": 500 - LOW_WATER - 1}
CALM = {"jobs": 500, "done": 500 - LOW_WATER - 5, "dead": 3, "discarded": 2}
LATER = NOON + timedelta(seconds=1)
#: What it has come to, and the task of the job that it needs.
NEEDS: list[tuple[BatchRecord, str | None]] = [
    (batch(), PLAN.name),
    (batch(counts=CALM), PLAN.name),
    (batch(counts=BUSY), None),
    (batch(BatchState.PAUSED), None),
    (batch(next_page_at_utc=LATER), None),
    (batch(next_page_at_utc=NOON), PLAN.name),
    (batch(planned=True), REPORT.name),
    (batch(BatchState.PAUSED, planned=True), REPORT.name),
    (batch(planned=True, counts={"jobs": 1}), None),
    (batch(planned=True, counts={"jobs": 3, "done": 1, "dead": 1, "discarded": 1}), REPORT.name),
    (batch(BatchState.CANCELLING), REPORT.name),
    (batch(BatchState.CANCELLING, counts={"jobs": 1}), None),
    (batch(limit=5, counts={"jobs": 5, "done": 5}), REPORT.name),
    (batch(limit=5, counts={"jobs": 5, "done": 4}), None),
]


@pytest.mark.parametrize(("at", "task"), NEEDS)
def test_what_a_batch_needs_next(at: BatchRecord, task: str | None) -> None:
    needed = next_job(at, NOON)
    assert (needed and needed.task) == task
    if needed is not None:
        assert JOB_ID.fullmatch(needed.job_id)
        assert needed == next_job(at, NOON + HOUR)
        assert (needed.run_id, needed.request_id, needed.batch_id) == (BATCH_ID,) * 3


@pytest.mark.parametrize(
    ("limit", "rate", "most"),
    [
        (None, None, PAGE_JOBS),
        (7, None, 7),
        (None, 0.5, 1),
        (None, 20.0, 20),
        (None, 999.0, PAGE_JOBS),
        (3, 20.0, 3),
    ],
)
def test_a_page_has_no_more_jobs_than_limit_and_rate_allow(
    limit: int | None, rate: float | None, most: int
) -> None:
    needed = next_job(batch(limit=limit, rate=rate, pages=4, place="2026-08-01/x.json"), NOON)
    assert needed is not None
    assert needed.job_id == f"{BATCH_ID}.page-4"
    page = PlanBatch.read_json(needed.payload)
    assert (page.most_jobs, page.after, page.rate_per_second) == (most, "2026-08-01/x.json", rate)


def test_the_job_of_a_run_is_the_same_however_often_it_is_planned() -> None:
    again = reexplain_job_id(BATCH_ID, RUN.run_id)
    assert reexplain_job_id(BATCH_ID, RUN.run_id) == again
    assert JOB_ID.fullmatch(again)
    assert again not in {
        reexplain_job_id(new_uuid7(NOON), RUN.run_id),
        reexplain_job_id(BATCH_ID, make_run().run_id),
    }


def test_a_report_is_written_once_and_proves_itself() -> None:
    store = MemoryStore()
    reports = BatchReports(store)
    first = BatchReport.of(batch(planned=True, counts={"jobs": 2, "done": 1, "dead": 1}))
    assert reports.find(BATCH_ID) is None
    report, created = reports.publish(first)
    again, same = reports.publish(first)
    assert report == again == first
    assert (created.created, same.created) == (True, False)
    # Somebody replayed the dead letter between two tries of the job that writes it.
    later, stands = reports.publish(BatchReport.of(batch(planned=True, counts={"jobs": 2, "done": 2})))
    assert (later, stands) == (first, same), "the log is told of the bytes that stand"
    assert reports.find(BATCH_ID) == first
    assert (first.state, first.counts.dead, first.ended_at_utc) == ("done", 1, NOON + HOUR)
    assert BatchReport.of(batch(BatchState.CANCELLING)).state == "cancelled"
    key = report_key(BATCH_ID)
    assert key == f"_batches/2026-08-01/{BATCH_ID}.json"
    spoilt = MemoryStore()
    spoilt.create(key, first.to_bytes().replace(b'"dead":1', b'"dead":0'))
    with pytest.raises(CorruptArtifact):
        BatchReports(spoilt).find(BATCH_ID)
    with pytest.raises(BatchNotFound):
        reports.find("../../etc/passwd")


DUE = datetime(2026, 11, 20, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seen", "days_back", "first"),
    [
        (date(2026, 11, 19), 7, "2026-11-13"),
        (date(2026, 11, 19), 0, "2026-11-19"),
        # Ten nights were missed: the days that none of them has seen.
        (date(2026, 11, 9), 7, "2026-11-09"),
        (date(1970, 1, 1), 7, "2016-11-12"),
    ],
)
def test_the_batch_of_a_night_covers_the_nights_that_were_missed(
    seen: date, days_back: int, first: str
) -> None:
    spec = scheduled_batch("night", PLAN.name, (), {"days_back": days_back}, due=DUE, seen=seen)
    assert (spec.choice.date_from, spec.choice.date_to) == (first, "2026-11-20")
    assert (spec.choice.missing_only, spec.entry, spec.due_at_utc) == (True, "night", DUE)


@pytest.mark.parametrize(
    ("task", "args", "arguments"),
    [
        ("celery.backend_cleanup", (), {}),
        ("runs.reexplain", (), {}),
        (PLAN.name, (1,), {}),
        (PLAN.name, (), {"days": 1}),
        (PLAN.name, (), {"days_back": "7"}),
        (PLAN.name, (), {"days_back": 10**12}),
        (PLAN.name, (), {"days_back": -1}),
    ],
)
def test_an_entry_that_makes_no_batch_is_refused_by_name(task: str, args: Any, arguments: Any) -> None:
    with pytest.raises(InvalidRequest, match="odd"):
        scheduled_batch("odd", task, args, arguments, due=DUE, seen=DUE.date())


def test_the_settings_say_when_the_night_is_and_how_far_it_looks() -> None:
    (entry,) = nightly(NightlySettings.load()).values()
    assert last_due(entry["schedule"], DUE) == DUE
    later = nightly(NightlySettings.load(nightly_time="23:05", nightly_span_days=30))[NIGHTLY]
    assert last_due(later["schedule"], DUE) == datetime(2026, 11, 19, 23, 5, tzinfo=UTC)
    assert later["kwargs"] == {"days_back": 30}
    off = NightlySettings.load(nightly_enabled=False)
    assert nightly(off) == {}
    assert off.next_due(DUE) is None
    on = NightlySettings.load()
    assert [on.next_due(DUE - timedelta(seconds=1)), on.next_due(DUE)] == [DUE, DUE + timedelta(days=1)]
    assert scheduled_batch_id("a", DUE) == scheduled_batch_id("a", DUE) != scheduled_batch_id("b", DUE)


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        (crontab(hour="2", minute="0"), "2026-11-20T02:00"),
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
    due = last_due(when, DUE + timedelta(hours=10, seconds=30))
    assert due.tzinfo is UTC
    assert f"{due:%Y-%m-%dT%H:%M}" == expected
    assert last_due(when, due) == due
