"""Batches of re-explanations: each run once, and counted right, whatever dies, is paused or cancelled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from celery import Celery
from celery.schedules import crontab

from rmos_runs.operations.batches import dead_job_of
from rmos_shared.batches.record import BatchRecord, BatchSpec, BatchState
from rmos_shared.batches.report import BatchReports
from rmos_shared.errors import BatchNotFound, BrokerDamaged, TransitionRefused
from rmos_shared.ids import new_uuid7, page_job_id, report_job_id
from rmos_shared.jobs.acts import ActKind
from rmos_shared.jobs.batches import Opening, Step
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.model import Failure, Job, JobState
from rmos_shared.jobs.pauses import queue_subject
from rmos_shared.jobs.work import Lease
from rmos_shared.runs.model import ExplanationStatus, RunRequest
from rmos_shared.runs.reader import RunReader
from rmos_shared.runs.writer import RunWriter
from rmos_shared.store.memory import MemoryStore
from rmos_shared.tasks.payloads import SuggestAndAttach
from rmos_shared.tasks.table import BACKGROUND_QUEUE, PLAN, REEXPLAIN, SUGGEST
from rmos_shared.telemetry.events import ScheduleRefused
from rmos_worker.celery_app.schedule import LedgerScheduler
from rmos_worker.handlers.artifact import artifact_of
from support.batches import BatchWorker, at_random
from support.events import events_in
from support.records import NOON

RUNS = 32
#: 2026-07-29 to 2026-08-01, eight runs each, so that pages end inside days and between them.
DAYS: dict[str, Any] = {"date_from": "2026-07-29", "date_to": "2026-08-01"}
Links = Counter[tuple[str, str]]


@pytest.fixture
def store(sample_requests: list[dict[str, Any]]) -> MemoryStore:
    made = MemoryStore()
    writer = RunWriter(made)
    for index, request in enumerate(sample_requests[:RUNS]):
        moment = NOON - timedelta(days=index // 8, minutes=index)
        writer.put_run(artifact_of(RunRequest.read({**request, "created_at_utc": moment}))[0])
    return made


@pytest.fixture
def worker(ledger: JobLedger, store: MemoryStore) -> BatchWorker:
    return BatchWorker(ledger, store)


def links(store: MemoryStore) -> Links:
    """Return the links of each run and version of the engine."""
    found: Links = Counter()
    for entry in RunReader(store).list_links():
        assert entry.link is not None
        found[entry.link.run_id, entry.link.engine_version] += 1
    return found


def runs_in(store: MemoryStore) -> list[str]:
    return [entry.artifact.run_id for entry in RunReader(store).list_runs() if entry.artifact]


def assert_adds_up(batch: BatchRecord) -> None:
    counts = batch.counts
    left_out = counts.not_meant + counts.explained + counts.under_way + counts.corrupt
    assert counts.looked_at == left_out + counts.jobs
    assert counts.jobs == counts.done + counts.dead + counts.discarded + counts.pending


@pytest.mark.parametrize("page_runs", [1, 7, 8, 1_000])
def test_every_run_is_explained_once_whatever_the_page(
    ledger: JobLedger, store: MemoryStore, page_runs: int
) -> None:
    worker = BatchWorker(ledger, store, page_runs=page_runs)

    batch = worker.until_ended(worker.open(**DAYS))

    assert links(store) == {(run_id, "1"): 1 for run_id in runs_in(store)}
    counts = batch.counts
    assert (batch.state, counts.looked_at, counts.jobs, counts.linked) == (BatchState.DONE, RUNS, RUNS, RUNS)
    assert_adds_up(batch)
    assert batch.pages == -(-RUNS // page_runs)


@pytest.mark.parametrize("seed", range(2))
def test_whatever_dies_each_run_has_one_new_link_and_the_counts_are_right(
    ledger: JobLedger, store: MemoryStore, seed: int
) -> None:
    worker = BatchWorker(ledger, store, page_runs=13)
    dies = at_random(seed, 0.3)

    first = worker.until_ended(worker.open(**DAYS), dies=dies)
    again = worker.until_ended(worker.open(**DAYS), dies=dies)
    worker.upgrade("2")
    # Two batches over the same runs, at once and killed.
    both = [worker.open(**DAYS), worker.open(**DAYS)]
    ended = [worker.until_ended(one, dies=dies) for one in both]

    assert links(store) == {(run_id, version): 1 for run_id in runs_in(store) for version in "12"}
    for batch in (first, again, *ended):
        assert_adds_up(batch)
        assert batch.counts.looked_at == RUNS
        report = BatchReports(store).find(batch.batch_id)
        assert report is not None
        assert (report.counts, report.report_sha256) == (batch.counts, batch.report_sha256)
    assert (first.counts.linked, first.counts.explained) == (RUNS, 0)
    assert (again.counts.jobs, again.counts.explained) == (0, RUNS)
    assert sum(batch.counts.linked for batch in ended) == RUNS
    assert (ended[0].engine_id, ended[0].engine_version) == ("feasibility_explainer", "2")
    assert len([key for key in store.list("_batches/") if key.endswith(".json")]) == 4


def test_a_batch_takes_up_what_failed_was_missed_or_is_of_an_older_engine(
    worker: BatchWorker, ledger: JobLedger, store: MemoryStore
) -> None:
    runs = runs_in(store)
    worker.advisories.refused = set(runs[:3])
    failed = worker.until_ended(worker.open(limit=20, **DAYS))
    assert (failed.counts.jobs, failed.counts.linked, failed.counts.dead) == (20, 17, 3)
    # One of the rest is about to be explained by somebody else.
    ledger.accept(
        [Job(new_uuid7(), SUGGEST.name, runs[20], "live", SuggestAndAttach(run_id=runs[20]).to_json())]
    )

    missing = worker.until_ended(worker.open(missing_only=True, **DAYS))
    assert (missing.counts.linked, missing.counts.under_way, missing.counts.not_meant) == (11, 1, 3)
    assert missing.counts.explained == 17

    worker.advisories.refused = set()
    mended = worker.until_ended(worker.open(failed_only=True, **DAYS))
    assert (mended.counts.jobs, mended.counts.linked) == (3, 3)
    assert RunReader(store, ledger).read(runs[0]).explanation_status is ExplanationStatus.READY

    worker.upgrade("1.10")
    assert worker.until_ended(worker.open(engine_older_than="1", **DAYS)).counts.jobs == 0
    newer = worker.until_ended(worker.open(engine_older_than="1.9", limit=5, **DAYS))
    assert (newer.counts.linked, newer.planned) == (5, False)
    rest = worker.until_ended(worker.open(engine_older_than="1.10", status="OK", **DAYS))
    assert 0 < rest.counts.linked < RUNS - 5
    assert max(links(store).values()) == 1


def test_a_dead_letter_that_is_replayed_moves_the_counts_and_not_the_report(
    worker: BatchWorker, ledger: JobLedger, store: MemoryStore
) -> None:
    worker.advisories.refused = set(runs_in(store)[:2])
    batch_id = worker.open(**DAYS)
    ended = worker.until_ended(batch_id)
    first, second = ledger.dead_letters.dead()
    assert (first.batch_id, first.request_id) == (batch_id, batch_id)

    worker.advisories.refused = set()
    ledger.dead_letters.replay(first.job_id, by="ana", why="mended")
    assert ledger.batches.get(batch_id).counts.pending == 1
    worker.work()
    ledger.dead_letters.discard(second.job_id, by="ana", why="never mind")

    counts = ledger.batches.get(batch_id).counts
    assert (counts.dead, counts.discarded, counts.done, counts.linked) == (0, 1, RUNS - 1, RUNS - 1)
    report = BatchReports(store).find(batch_id)
    assert report is not None
    assert report.counts == ended.counts
    assert ledger.batches.get(batch_id).state is BatchState.DONE


def test_a_run_keeps_its_level_of_detail_and_gets_no_second_link_beside_a_live_one(
    worker: BatchWorker, ledger: JobLedger, store: MemoryStore
) -> None:
    full, raced = runs_in(store)[:2]
    ask = SuggestAndAttach(run_id=full, detail="full")
    ledger.accept([Job(new_uuid7(), SUGGEST.name, full, "live", ask.to_json())])
    (live,) = list(ledger.jobs(JobState.ACCEPTED))
    lease = Lease("live", "t")
    (claim,) = ledger.work.claim([live.job_id], lease, lease_seconds=60).claimed
    (end,) = worker.suggest.handle([claim])
    ledger.work.finish([end], lease, ttl_seconds=60)  # type: ignore[list-item]  # it is done
    worker.upgrade("2")
    batch_id = worker.open(limit=2, **DAYS)
    worker.round()
    worker.work(only=PLAN.name)
    # Between the plan and the job somebody has the other run explained, at another level of detail.
    explanation = worker.suggest.explainer.explain(RunReader(store).get_artifact(raced), "full")
    worker.suggest.attach(claim, RunReader(store).get_artifact(raced), explanation)

    batch = worker.until_ended(batch_id)

    assert (batch.counts.done, batch.counts.linked) == (2, 1)
    assert links(store)[raced, "2"] == 1
    (_, newest) = RunReader(store).links(full)
    assert worker.advisories.fetch(newest.advisory_id).suggestion_data["detail"] == "full"


def test_paused_nothing_is_added_even_by_a_page_that_is_under_way(
    ledger: JobLedger, store: MemoryStore
) -> None:
    worker = BatchWorker(ledger, store, page_runs=10)
    batch_id = worker.open(**DAYS)
    worker.round()

    def paused_meanwhile(moment: str) -> bool:
        if moment == "after":
            ledger.batches.steer(batch_id, Step.PAUSE, by="ana", why="too much")
        return False

    worker.work(dies=paused_meanwhile)
    worker.round()
    paused = ledger.batches.get(batch_id)
    assert (paused.state, paused.counts.jobs, paused.counts.looked_at) == (BatchState.PAUSED, 0, 0)
    assert not list(ledger.jobs(JobState.ACCEPTED))

    ledger.batches.steer(batch_id, Step.RESUME, by="bo", why="")
    worker.round()
    worker.work(only=PLAN.name)
    ledger.batches.steer(batch_id, Step.PAUSE, by="ana", why="once more")
    # What is in line comes to its end.
    worker.work()
    worker.round()
    assert ledger.batches.get(batch_id).counts.done == 10
    assert not list(ledger.jobs(JobState.ACCEPTED))
    ledger.batches.steer(batch_id, Step.RESUME, by="bo", why="")
    ended = worker.until_ended(batch_id)
    assert ended.counts.linked == RUNS
    assert_adds_up(ended)
    assert [(act["what"], act["by"]) for act in ended.history] == [
        ("pause", "ana"),
        ("resume", "bo"),
        ("pause", "ana"),
        ("resume", "bo"),
    ]


def test_cancelled_it_ends_with_a_report_once_what_was_in_line_is_done(
    ledger: JobLedger, store: MemoryStore
) -> None:
    worker = BatchWorker(ledger, store, page_runs=10)
    batch_id = worker.open(**DAYS)
    worker.round()
    worker.work(only=PLAN.name)

    state = ledger.batches.steer(batch_id, Step.CANCEL, by="ana", why="wrong days")
    assert state is BatchState.CANCELLING
    worker.round()
    assert ledger.find(report_job_id(batch_id)) is None
    ended = worker.until_ended(batch_id)

    assert (ended.state, ended.counts.linked, ended.counts.looked_at) == (BatchState.CANCELLED, 10, 10)
    report = BatchReports(store).find(batch_id)
    assert report is not None
    assert (report.state, report.counts.linked) == ("cancelled", 10)
    for step in Step:
        with pytest.raises(TransitionRefused, match="is cancelled"):
            ledger.batches.steer(batch_id, step, by="ana", why="")
    with pytest.raises(BatchNotFound):
        ledger.batches.steer(new_uuid7(), Step.PAUSE, by="ana", why="")


def test_who_discards_its_plan_has_cancelled_the_batch(worker: BatchWorker, ledger: JobLedger) -> None:
    batch_id = worker.open(**DAYS)
    worker.round()
    lease = Lease("w", "t")
    page = page_job_id(batch_id, 0)
    ledger.work.claim([page], lease, lease_seconds=60)
    ledger.work.bury(page, lease, failure=Failure(reason="x", error_type="X", message="x"))
    worker.round()
    assert ledger.batches.get(batch_id).state is BatchState.RUNNING
    assert dead_job_of(ledger, ledger.batches.get(batch_id)) == page
    ledger.dead_letters.discard(page, by="ana", why="no")
    assert ledger.batches.get(batch_id).state is BatchState.CANCELLED
    assert ledger.batches.under_way()[1] == []


def test_jobs_that_an_operator_cancels_are_counted_and_the_batch_ends(
    worker: BatchWorker, ledger: JobLedger, store: MemoryStore
) -> None:
    batch_id = worker.open(**DAYS)
    worker.round()
    worker.work(only=PLAN.name)
    waiting = [job.job_id for job in ledger.jobs(JobState.ACCEPTED) if job.task == REEXPLAIN.name]
    assert len(waiting) == RUNS
    for _ in range(2):
        # A step whose answer was lost is made again.
        assert ledger.steering.apply(ActKind.CANCEL, waiting[:5], by="ana", why="no", act_id="a" * 32) == {}

    counts = worker.until_ended(batch_id).counts

    assert (counts.discarded, counts.done, counts.linked) == (5, RUNS - 5, RUNS - 5)
    # Nothing keeps another batch from the runs whose jobs were cancelled.
    assert worker.until_ended(worker.open(**DAYS)).counts.linked == 5
    assert links(store) == {(run_id, "1"): 1 for run_id in runs_in(store)}


def test_who_cancels_the_job_of_its_plan_has_cancelled_the_batch(
    worker: BatchWorker, ledger: JobLedger
) -> None:
    batch_id = worker.open(**DAYS)
    worker.round()
    page = page_job_id(batch_id, 0)
    assert ledger.steering.apply(ActKind.CANCEL, [page], by="ana", why="no") == {}
    assert ledger.batches.get(batch_id).state is BatchState.CANCELLED
    assert (worker.work(), ledger.stats().invariant) == (0, True)


def test_a_batch_stands_still_while_its_queue_is_paused(
    worker: BatchWorker, ledger: JobLedger, store: MemoryStore
) -> None:
    batch_id = worker.open(**DAYS)
    subject = queue_subject(BACKGROUND_QUEUE)
    assert ledger.steering.apply(ActKind.PAUSE, [subject], by="ana", why="no") == {}
    worker.round()
    assert worker.work() == 0
    assert links(store) == {}
    assert ledger.steering.apply(ActKind.RESUME, [subject], by="ana", why="no") == {}
    assert worker.until_ended(batch_id).counts.linked == RUNS


def test_the_rate_is_the_most_that_gets_in_line(worker: BatchWorker, ledger: JobLedger) -> None:
    batch_id = worker.open(rate=4.0, **DAYS)
    before, _ = ledger.batches.under_way()
    made = []
    for _ in range(3):
        worker.round()
        worker.work()
        made.append(ledger.batches.get(batch_id).counts.jobs)
    assert made == [4, 4, 4]
    next_page = ledger.batches.get(batch_id).next_page_at_utc
    assert next_page is not None
    assert next_page - before >= timedelta(seconds=1)


def test_opening_it_again_is_a_repeat_and_another_under_its_id_is_refused(
    ledger: JobLedger, worker: BatchWorker
) -> None:
    batch_id = worker.open(**DAYS)
    spec = ledger.batches.get(batch_id).spec
    assert ledger.batches.open(batch_id, spec) is Opening.REPEAT
    assert ledger.batches.open(batch_id, spec.model_copy(update={"limit": 1})) is Opening.CONFLICT
    assert ledger.batches.get(batch_id).spec == spec
    opened = {batch_id, *(worker.open(**DAYS) for _ in range(3))}
    listed = list(ledger.batches.newest_first())
    assert {batch.batch_id for batch in listed} == opened
    # Those opened within one millisecond are in the order of their ids.
    assert listed == sorted(listed, key=lambda one: (one.created_at_utc, one.batch_id), reverse=True)


def test_a_damaged_batch_keeps_neither_its_jobs_nor_other_batches_from_their_ends(
    worker: BatchWorker, ledger: JobLedger, redis_client: redis.Redis, store: MemoryStore
) -> None:
    damaged, whole = worker.open(**DAYS), worker.open(date_from="2026-07-30", date_to="2026-07-30")
    worker.round()
    worker.work(only=PLAN.name)
    redis_client.delete(f"rmos:batch:{damaged}")
    redis_client.lpush(f"rmos:batch:{damaged}", "garbage")

    worker.work(only=REEXPLAIN.name)
    assert worker.until_ended(whole).state is BatchState.DONE
    assert len(links(store)) == RUNS
    with pytest.raises(BrokerDamaged):
        ledger.batches.get(damaged)
    with pytest.raises(BrokerDamaged):
        ledger.batches.steer(damaged, Step.PAUSE, by="ana", why="")
    assert [batch.batch_id for batch in ledger.batches.newest_first()] == [whole]
    assert ledger.stats().pending == 0


def test_a_corrupt_run_is_counted_and_the_others_are_explained(
    worker: BatchWorker, store: MemoryStore
) -> None:
    store.create("2026-07-30/damaged.json", b"{")
    run_id = runs_in(store)[0]
    store.create(f"2026-08-01/{run_id}_advisory_x.json", b"{")

    batch = worker.until_ended(worker.open(**DAYS))

    assert (batch.counts.corrupt, batch.counts.linked) == (2, RUNS - 1)
    assert_adds_up(batch)


def test_a_spec_says_who_asked_and_no_run_needs_to_be_there(ledger: JobLedger, worker: BatchWorker) -> None:
    batch = worker.until_ended(worker.open(date_from="1999-01-01", date_to="1999-12-31"))
    assert batch.counts.looked_at == 0
    assert isinstance(batch.spec, BatchSpec)
    assert batch.spec.by == "person:ana"
    assert ledger.get(report_job_id(batch.batch_id)).result is not None


@pytest.fixture
def beat(broker_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., LedgerScheduler]]:
    """Make beats with these entries, all of them due at two o'clock."""
    monkeypatch.setenv("RMOS_BROKER_URL", broker_url)
    made: list[LedgerScheduler] = []

    def make(*entries: dict[str, Any]) -> LedgerScheduler:
        app = Celery(set_as_current=False, broker=broker_url)
        told = {entry.pop("name"): {**entry, "schedule": crontab(hour="2", minute="0")} for entry in entries}
        app.conf.update(beat_schedule=told, timezone="UTC")
        made.append(LedgerScheduler(app))
        return made[-1]

    yield make
    for one in made:
        one.close()


def at(scheduler: LedgerScheduler, moment: datetime, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a beat look, and look once more, when its clock shows a moment."""
    monkeypatch.setattr(scheduler, "utc_now", lambda: moment)
    for _ in range(2):
        assert 0 <= scheduler.tick() <= 30


TWO = datetime(2026, 11, 20, 2, tzinfo=UTC)
DAY = timedelta(days=1)


def test_an_entry_that_makes_no_batch_is_refused_once_and_stops_nobody(
    beat: Callable[..., LedgerScheduler],
    ledger: JobLedger,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    scheduler = beat(
        {"name": "unknown", "task": "celery.backend_cleanup"},
        {"name": "odd", "task": PLAN.name, "kwargs": {"days": 1}},
        {"name": "monthly", "task": PLAN.name, "kwargs": {"days_back": 31}},
        {"name": "nightly", "task": PLAN.name},
    )

    for moment in (TWO, TWO + DAY):
        at(scheduler, moment, monkeypatch)

    refused = [event for event in events_in(caplog) if isinstance(event, ScheduleRefused)]
    assert sorted(event.entry for event in refused) == ["odd", "unknown"]
    assert not [record for record in caplog.records if record.exc_info]
    opened = {batch.spec.entry: batch.spec.choice.date_from for batch in ledger.batches.newest_first()}
    assert opened == {"monthly": "2026-10-21", "nightly": "2026-11-14"}
    assert ledger.stats().accepted == 0


def test_nights_that_beat_was_away_for_are_made_up_for_once(
    beat: Callable[..., LedgerScheduler],
    ledger: JobLedger,
    redis_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def entry() -> dict[str, Any]:
        return {"name": "night", "task": PLAN.name}

    def nights() -> list[tuple[datetime | None, str]]:
        batches = [batch.spec for batch in ledger.batches.newest_first()]
        return sorted((spec.due_at_utc, spec.choice.date_from) for spec in batches if spec.due_at_utc)

    first, second = beat(entry()), beat(entry())
    # A new system has missed nothing.
    at(first, TWO + timedelta(hours=1), monkeypatch)
    assert nights() == []
    for scheduler in (first, second):
        at(scheduler, TWO + DAY, monkeypatch)
    seen = [(TWO + DAY, "2026-11-14")]
    assert nights() == seen
    # Paused, it is held back; a broker that is away is asked again.
    redis_client.hset("rmos:pauses", "schedule", "{}")
    at(first, TWO + 11 * DAY, monkeypatch)
    assert nights() == seen
    redis_client.rename("rmos:scheduled", "aside")
    redis_client.set("rmos:scheduled", "garbage")
    redis_client.delete("rmos:pauses")
    at(first, TWO + 11 * DAY, monkeypatch)
    redis_client.rename("aside", "rmos:scheduled")
    assert nights() == seen
    # Ten were missed: one batch, over all the days that none of them has seen.
    for scheduler in (first, second, beat(entry())):
        at(scheduler, TWO + 11 * DAY + timedelta(hours=9), monkeypatch)
    assert nights() == [*seen, (TWO + 11 * DAY, "2026-11-21")]
    assert ledger.batches.last_due("night") == TWO + 11 * DAY
