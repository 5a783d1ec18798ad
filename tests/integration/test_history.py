"""What happened to a run: told by its files, and by a real ledger."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from rmos_runs.operations.history import HistoryEntry, history
from rmos_shared.errors import CorruptArtifact, RunNotFound
from rmos_shared.ids import explain_job_id, new_uuid7
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.model import Failure, Job
from rmos_shared.jobs.work import Finish, Lease
from rmos_shared.store.memory import MemoryStore
from rmos_shared.tasks.table import ATTACH, CREATE, SUGGEST
from support.records import make_attempt, make_link, make_review, make_run
from support.runs import Runs

LEASE = Lease("w", "1")
FAILURE = Failure(reason="conflict", error_type="ArtifactConflict", message="taken", traceback="secret trace")
#: In every payload; no history may hold it.
SECRET = "hunter2"


@pytest.fixture
def client(broker_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(broker_url) as opened:
        yield opened


@pytest.fixture
def ledger(client: redis.Redis) -> JobLedger:
    return JobLedger(client)


def a_job(run_id: str, task: str = CREATE.name, job_id: str | None = None) -> Job:
    return Job(job_id or new_uuid7(), task, run_id, "req-1", json.dumps({"secret": SECRET}))


def claim(ledger: JobLedger, job: Job) -> None:
    assert ledger.work.claim([job.job_id], LEASE, lease_seconds=60).claimed


def finish(ledger: JobLedger, job: Job, *following: Job, **result: Any) -> None:
    claim(ledger, job)
    assert ledger.work.finish([Finish(job.job_id, result, following)], LEASE, ttl_seconds=60)


def told(entries: list[HistoryEntry]) -> list[str]:
    assert [entry.at_utc for entry in entries] == sorted(entry.at_utc for entry in entries)
    text = json.dumps([entry.dump() for entry in entries])
    assert SECRET not in text
    assert "secret trace" not in text
    return [entry.what for entry in entries]


def test_a_history_tells_of_jobs_failures_replays_advisories_and_reviews(ledger: JobLedger) -> None:
    runs = Runs(MemoryStore(), ledger)
    run = make_run()
    create = a_job(run.run_id)
    explain = a_job(run.run_id, SUGGEST.name, explain_job_id(create.job_id))
    ledger.accept([create])
    claim(ledger, create)
    ledger.work.bury(create.job_id, LEASE, failure=FAILURE)
    assert told(history(run.run_id, runs.reader, ledger)) == ["job.accepted", "job.died"]

    ledger.dead_letters.replay(create.job_id, by="person:ana", why="the disk is back")
    runs.writer.put_run(run)
    finish(ledger, create, explain, outcome="created", status="OK")
    claim(ledger, explain)
    ledger.work.reschedule(explain.job_id, LEASE, delay_seconds=0, spends_retry=True, failure=FAILURE)
    finish(ledger, explain, advisory_id="adv1")
    link = make_link(run)
    runs.writer.attach(link)
    runs.writer.add_review(make_review(link, approved=False, note="too thin"))
    runs.writer.add_attempt(make_attempt(run, job_id=explain.job_id))

    entries = history(run.run_id, runs.reader, ledger)
    assert told(entries) == [
        *("run.created", "explanation.failed", "advisory.linked", "review.rejected"),
        *("job.accepted", "job.died", "job.replayed", "job.done"),
        *("job.accepted", "job.put_off", "job.done"),
    ]
    by_what = {(entry.what, entry.details.get("task")): entry for entry in entries}
    replayed = by_what["job.replayed", CREATE.name].details
    assert (replayed["by"], replayed["why"]) == ("person:ana", "the disk is back")
    assert by_what["job.put_off", SUGGEST.name].details["reason"] == "conflict"
    assert by_what["review.rejected", None].details["note"] == "too thin"


def test_a_healthy_run_has_its_jobs_in_its_history_for_as_long_as_their_records_stay(
    ledger: JobLedger, client: redis.Redis
) -> None:
    runs = Runs(MemoryStore(), ledger)
    run = make_run()
    runs.writer.put_run(run)
    create, attach = a_job(run.run_id), a_job(run.run_id, ATTACH.name)
    ledger.accept([create, attach, a_job(new_uuid7())])
    finish(ledger, create, outcome="created", status="OK")
    finish(ledger, attach)
    entries = history(run.run_id, runs.reader, ledger)
    assert told(entries) == ["run.created", *["job.accepted", "job.accepted", "job.done", "job.done"]]
    done = next(entry for entry in entries if entry.what == "job.done")
    assert done.details == {
        "job_id": create.job_id,
        "task": CREATE.name,
        "outcome": "created",
        "status": "OK",
    }
    # What names them expires together with them.
    (name,) = client.keys("rmos:ended:create:*")
    assert 0 < client.ttl(name) <= client.ttl(f"rmos:job:{create.job_id}") == 60


def test_a_history_tells_who_gave_a_job_up(ledger: JobLedger) -> None:
    runs = Runs(MemoryStore(), ledger)
    run_id = new_uuid7()
    job = a_job(run_id)
    ledger.accept([job])
    claim(ledger, job)
    ledger.work.bury(job.job_id, LEASE, failure=FAILURE)
    ledger.dead_letters.discard(job.job_id, by="person:ana", why="a twin is stored")
    entries = history(run_id, runs.reader, ledger)
    assert told(entries) == ["job.accepted", "job.died", "job.discarded"]
    assert entries[-1].details["by"] == "person:ana"


def test_without_a_ledger_a_history_is_what_the_files_tell(ledger: JobLedger) -> None:
    runs = Runs(MemoryStore())
    run = make_run()
    runs.writer.put_run(run)
    ledger.accept([a_job(run.run_id)])
    assert told(history(run.run_id, runs.reader, None)) == ["run.created"]


def test_nobody_knows_a_run_that_was_never_accepted(ledger: JobLedger) -> None:
    with pytest.raises(RunNotFound):
        history(new_uuid7(), Runs(MemoryStore()).reader, ledger)


def test_a_history_with_a_damaged_file_is_an_error(ledger: JobLedger) -> None:
    store = MemoryStore()
    runs = Runs(store)
    run = make_run()
    runs.writer.put_run(run)
    store.create(f"{run.date}/{run.run_id}_advisory_x.json", b"{")
    with pytest.raises(CorruptArtifact):
        history(run.run_id, runs.reader, ledger)


def test_a_damaged_note_in_the_ledger_ends_no_history(ledger: JobLedger, client: redis.Redis) -> None:
    run_id = new_uuid7()
    job = a_job(run_id)
    ledger.accept([job])
    client.hset(f"rmos:job:{job.job_id}", "history", json.dumps([{"what": "x", "at": 1e300}, {"at": "soon"}]))
    assert told(history(run_id, Runs(MemoryStore()).reader, ledger)) == [
        "job.accepted",
        "job.x",
        "job.unknown",
    ]
