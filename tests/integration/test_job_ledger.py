"""What the state machine does not reach: a full server, a clock set back, expiry, raw letters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from rmos_shared.errors import BrokerUnavailable, JobNotFound, TransitionRefused
from rmos_shared.ids import new_uuid7
from rmos_shared.jobs.ledger import Acceptance, JobLedger
from rmos_shared.jobs.model import Failure, Job, JobState
from rmos_shared.jobs.work import Finish, Lease
from rmos_shared.tasks.table import CREATE, SUGGEST
from support.embedded_server import EmbeddedServer

LEASE = Lease("w", "1")
FAILURE = Failure(reason="conflict", error_type="ArtifactConflict", message="taken", traceback="")
FAR = 10**12


@pytest.fixture
def client(broker_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(broker_url) as opened:
        yield opened


@pytest.fixture
def ledger(client: redis.Redis) -> JobLedger:
    return JobLedger(client)


def a_job(task: str = CREATE.name, payload: str = "{}") -> Job:
    return Job(job_id=new_uuid7(), task=task, run_id=new_uuid7(), request_id="req", payload=payload)


def claim(ledger: JobLedger, job: Job, lease: Lease = LEASE) -> None:
    ledger.work.claim([job.job_id], lease, lease_seconds=60)


def reconcile(ledger: JobLedger, *, grace: float = 1000) -> int:
    return ledger.queues.reconcile(batch=100, grace_seconds=grace, max_crashes=3).ready


def test_a_full_server_takes_no_new_job_but_lets_the_others_be_done(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path / "full") as server, redis.Redis.from_url(server.url) as client:
        ledger = JobLedger(client)
        done, waits, dead, late = a_job(), a_job(), a_job(), a_job()
        ledger.accept([done, waits, dead])
        client.config_set("maxmemory", "1")

        with pytest.raises(BrokerUnavailable, match="OOM"):
            ledger.accept([late])
        for job in (done, waits, dead):
            claim(ledger, job)
        ledger.work.beat("w", [], lease_seconds=60, stale_seconds=60)
        assert ledger.work.finish([Finish(done.job_id, {})], LEASE, ttl_seconds=60) == {done.job_id: "done"}
        assert (
            ledger.work.reschedule(waits.job_id, LEASE, delay_seconds=0, spends_retry=True, failure=FAILURE)
            == "waiting"
        )
        assert ledger.work.bury(dead.job_id, LEASE, failure=FAILURE) == "dead"
        assert reconcile(ledger) == 1
        stats = ledger.stats()

    assert (stats.accepted, stats.done, stats.dead, stats.ready, stats.invariant) == (3, 1, 1, 1, True)


def test_a_server_clock_set_back_strands_no_job(ledger: JobLedger, client: redis.Redis) -> None:
    running, waiting, taken = a_job(), a_job(), a_job()
    ledger.accept([running, waiting])
    assert ledger.queues.take("runs.create")
    ledger.accept([taken])
    assert ledger.queues.take("runs.create")
    claim(ledger, running)
    claim(ledger, waiting, Lease("other", "1"))
    ledger.work.reschedule(
        waiting.job_id, Lease("other", "1"), delay_seconds=5, spends_retry=True, failure=FAILURE
    )
    # Every time is a long way ahead, as if it had been written before the clock was set back.
    for index, member in (
        ("workers", "w"),
        ("waiting", waiting.job_id),
        ("taken", taken.job_id),
    ):
        client.zincrby(f"rmos:{index}", FAR, member)

    assert reconcile(ledger) == 3

    for job in (running, waiting, taken):
        assert ledger.work.claim([job.job_id], LEASE, lease_seconds=60).refused == {}


def test_a_server_that_forgot_the_script_accepts_in_two_halves_too(
    ledger: JobLedger, client: redis.Redis
) -> None:
    client.script_flush()
    with ledger.accepting([job := a_job()]) as outcomes:
        assert outcomes() == [Acceptance.NEW]
    assert ledger.get(job.job_id).state is JobState.ACCEPTED


def test_an_answer_nobody_waited_for_is_not_taken_for_another(ledger: JobLedger, client: redis.Redis) -> None:
    ledger.accept([])
    left, job = [a_job(), a_job(), a_job()], a_job()
    with pytest.raises(ValueError, match=r"^mine$"), ledger.accepting(left):
        raise ValueError("mine")
    assert ledger.accept([job]) == [Acceptance.NEW]
    assert client.ping()
    # It was sent, so it may have been done; to accept it again is safe.
    assert set(ledger.accept(left)) <= {Acceptance.NEW, Acceptance.REPEAT}
    assert ledger.stats().accepted == 4


def test_a_full_server_refuses_in_two_halves_too(ledger: JobLedger, client: redis.Redis) -> None:
    ledger.accept([])
    client.config_set("maxmemory", 1)
    try:
        with (
            ledger.accepting([a_job()]) as outcomes,
            pytest.raises(BrokerUnavailable, match=r"refuses to serve \(OOM\)"),
        ):
            outcomes()
    finally:
        client.config_set("maxmemory", 0)
    assert ledger.stats().accepted == 0


def test_a_done_job_drops_its_payload_and_expires_and_stays_counted(
    ledger: JobLedger, client: redis.Redis
) -> None:
    job = a_job(payload='{"secret":1}')
    ledger.accept([job])
    claim(ledger, job)
    ledger.work.finish([Finish(job.job_id, {"run_id": "r"})], LEASE, ttl_seconds=100)

    assert ledger.dead_letters.payload(job.job_id) is None
    assert 0 < client.ttl(f"rmos:job:{job.job_id}") <= 100
    assert ledger.get(job.job_id).result == {"run_id": "r"}
    client.delete(f"rmos:job:{job.job_id}")
    with pytest.raises(JobNotFound, match=job.job_id):
        ledger.get(job.job_id)
    assert ledger.stats().invariant


def test_dead_and_discarded_records_never_expire(ledger: JobLedger, client: redis.Redis) -> None:
    dead, discarded = a_job(), a_job()
    ledger.accept([dead, discarded])
    for job in (dead, discarded):
        claim(ledger, job)
        ledger.work.bury(job.job_id, LEASE, failure=FAILURE)
    ledger.dead_letters.discard(discarded.job_id, by="op", why="known")

    assert client.ttl(f"rmos:job:{dead.job_id}") == client.ttl(f"rmos:job:{discarded.job_id}") == -1
    assert ledger.dead_letters.payload(dead.job_id) == b"{}"
    record = ledger.get(dead.job_id)
    assert (record.state, record.failure, record.code_version) == (JobState.DEAD, FAILURE, "0.1.0")
    assert record.first_failed_at_utc == record.last_failed_at_utc is not None


def test_the_same_id_with_another_payload_is_a_conflict_and_changes_nothing(ledger: JobLedger) -> None:
    job = a_job()
    assert ledger.accept([job, job]) == [Acceptance.NEW, Acceptance.REPEAT]

    assert ledger.accept([replace(job, payload='{"x":1}')]) == [Acceptance.CONFLICT]

    assert ledger.dead_letters.payload(job.job_id) == b"{}"
    assert ledger.stats().accepted == 1


def test_the_latest_explanation_job_is_found_until_it_is_done(ledger: JobLedger) -> None:
    first, second = a_job(SUGGEST.name), a_job(SUGGEST.name)
    second = replace(second, run_id=first.run_id)
    ledger.accept([first])
    ledger.accept([second])

    def about() -> str | None:
        job = ledger.explanation_job(first.run_id)
        return None if job is None else job.job_id

    assert about() == second.job_id
    claim(ledger, first)
    ledger.work.finish([Finish(first.job_id, {})], LEASE, ttl_seconds=60)
    assert about() == second.job_id
    claim(ledger, second)
    ledger.work.bury(second.job_id, LEASE, failure=FAILURE)
    assert about() == second.job_id
    ledger.dead_letters.discard(second.job_id, by="op", why="x")
    assert about() is None


def refuse(ledger: JobLedger, client: redis.Redis, item: bytes) -> str:
    """Have the ledger keep an item that is no notification; return the letter's id."""
    client.lpush("runs.create", item)
    taken = ledger.queues.take("runs.create")
    assert taken
    assert taken.notification is None
    return taken.raw_id


def test_a_raw_letter_is_kept_verbatim_and_cannot_be_replayed(ledger: JobLedger, client: redis.Redis) -> None:
    item = b"\xff\x00 no envelope"
    raw_id = refuse(ledger, client, item)
    (letter,) = ledger.dead_letters.raw_letters()
    assert (letter.raw_id, letter.size_bytes, ledger.dead_letters.raw_item(raw_id)) == (
        raw_id,
        len(item),
        item,
    )
    assert ledger.stats().queues["runs.dead_letter"] == 1

    with pytest.raises(TransitionRefused, match="enqueue its job anew, and discard it"):
        ledger.dead_letters.replay(raw_id, by="op", why="try it")
    with pytest.raises(JobNotFound):
        ledger.dead_letters.replay("another", by="op", why="try it")
    assert client.llen("runs.create") == 0
    assert ledger.stats().raw == ledger.stats().queues["runs.dead_letter"] == 1


def test_discarding_a_raw_letter_again_is_a_repeat(ledger: JobLedger, client: redis.Redis) -> None:
    raw_id = refuse(ledger, client, b"x")
    ledger.dead_letters.discard(raw_id, by="op", why="noise")

    ledger.dead_letters.discard(raw_id, by="op", why="again")
    with pytest.raises(TransitionRefused, match="no job of the ledger"):
        ledger.dead_letters.replay(raw_id, by="op", why="after all")
    letter = ledger.dead_letters.find_raw(raw_id)
    assert letter is not None
    assert [entry["why"] for entry in letter.history] == ["noise"]
    assert ledger.stats().raw == 0


def test_a_lock_has_one_holder_until_it_lapses(ledger: JobLedger, client: redis.Redis) -> None:
    assert ledger.queues.try_lock("l", "a", seconds=60)
    assert ledger.queues.try_lock("l", "a", seconds=60)
    assert not ledger.queues.try_lock("l", "b", seconds=60)
    client.delete("rmos:lock:l")
    assert ledger.queues.try_lock("l", "b", seconds=60)


def test_the_server_away_is_one_clear_error() -> None:
    ledger = JobLedger(redis.Redis(port=1))

    with pytest.raises(BrokerUnavailable, match="RMOS_BROKER_URL") as caught:
        ledger.stats()

    assert isinstance(caught.value.__cause__, redis.ConnectionError)
