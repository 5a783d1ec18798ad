"""Heartbeats and the reconciler on a real server: every job is come for, and none twice without need."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from rmos_shared.errors import BrokerUnavailable
from rmos_shared.ids import new_uuid7
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.model import Failure, Job, JobState
from rmos_shared.jobs.queues import Round
from rmos_shared.jobs.work import Finish, Lease
from rmos_shared.settings.worker import WorkerSettings
from rmos_shared.tasks.table import CREATE, CREATE_MANY, DEAD_LETTER_QUEUE, SUGGEST, TaskSpec
from rmos_worker.advisories.breaker import RedisBreaker
from rmos_worker.engine.heartbeat import Heartbeat
from rmos_worker.engine.reconciler import LOCK, Reconciler
from support.embedded_server import EmbeddedServer

MakeSettings = Callable[..., WorkerSettings]
Eventually = Callable[..., None]
FAILURE = Failure(reason="retries_exhausted", error_type="X", message="x")
LONG_AGO = 1


@pytest.fixture
def make_heartbeat(ledger: JobLedger, worker_settings: MakeSettings) -> Iterator[Callable[..., Heartbeat]]:
    made: list[Heartbeat] = []

    def make(**settings: float) -> Heartbeat:
        made.append(Heartbeat(ledger.work, worker_settings(**settings)))
        return made[-1]

    yield make
    for heartbeat in made:
        if heartbeat._thread.is_alive():
            heartbeat.retire()


@pytest.fixture
def make_reconciler(ledger: JobLedger, worker_settings: MakeSettings) -> Callable[..., Reconciler]:
    def make(**settings: float) -> Reconciler:
        told = worker_settings(**({"max_crashes": 3} | settings))
        return Reconciler(ledger, RedisBreaker.of(ledger._client, told), told)

    return make


@pytest.fixture
def reconciler(make_reconciler: Callable[..., Reconciler]) -> Reconciler:
    return make_reconciler()


def accept(ledger: JobLedger, count: int = 1, spec: TaskSpec = CREATE, *, in_line: bool = False) -> list[str]:
    """Accept jobs whose notifications are lost, unless they are to stay in line."""
    jobs = [
        Job(job_id=new_uuid7(), task=spec.name, run_id=new_uuid7(), request_id=None, payload="{}")
        for _ in range(count)
    ]
    ledger.accept(jobs)
    if not in_line:
        lose_notifications(ledger, spec)
    return [job.job_id for job in jobs]


def lose_notifications(ledger: JobLedger, spec: TaskSpec = CREATE) -> None:
    while ledger.queues.take(spec.queue):
        pass


def claim(ledger: JobLedger, worker: str, *job_ids: str, lease_seconds: float = 100) -> Lease:
    lease = Lease(worker, "token")
    claims = ledger.work.claim(job_ids, lease, lease_seconds=lease_seconds)
    assert [claim.job_id for claim in claims.claimed] == list(job_ids)
    return lease


def fall_silent(client: redis.Redis, worker: str) -> None:
    assert client.zadd("rmos:workers", {worker: LONG_AGO}, xx=True, ch=True) == 1


def grow_old(client: redis.Redis, *job_ids: str) -> None:
    """Let it be long ago that these were taken."""
    client.zadd("rmos:taken", dict.fromkeys(job_ids, LONG_AGO), xx=True)
    assert set(client.zmscore("rmos:taken", list(job_ids))) == {LONG_AGO}


def job_ids_in(item: bytes) -> tuple[str, ...]:
    return tuple(json.loads(json.loads(item)["body"])[0][0])


def take_notifications(ledger: JobLedger, queue: str) -> list[tuple[str, ...]]:
    """Take all messages off the queue; each must pass the gate. Return what they notify, oldest first."""
    found = []
    while taken := ledger.queues.take(queue):
        assert taken.notification is not None
        found.append(job_ids_in(taken.notification))
    return found


# -- the heartbeat --------------------------------------------------------------------------------


def test_a_heartbeat_keeps_the_leases(
    ledger: JobLedger,
    make_heartbeat: Callable[..., Heartbeat],
    reconciler: Reconciler,
    redis_client: redis.Redis,
) -> None:
    heartbeat = make_heartbeat(heartbeat_seconds=0.05, lease_seconds=0.4)
    (job_id,) = accept(ledger)
    with heartbeat.working([job_id]):
        claim(ledger, heartbeat.name, job_id, lease_seconds=0.4)
        heartbeat.start()
        until = time.monotonic() + 1.2  # three leases long
        while time.monotonic() < until:
            assert reconciler.round() == 0
            assert ledger.get(job_id).state is JobState.RUNNING
            time.sleep(0.02)
    score = redis_client.zscore("rmos:workers", heartbeat.name)
    assert score is not None


def test_without_a_heartbeat_the_lease_lapses(
    ledger: JobLedger, reconciler: Reconciler, redis_client: redis.Redis, eventually: Eventually
) -> None:
    (job_id,) = accept(ledger)
    claim(ledger, "silent", job_id, lease_seconds=0.2)
    eventually(lambda: reconciler.round() == 1, 5)
    assert ledger.get(job_id).state is JobState.ACCEPTED
    assert take_notifications(ledger, CREATE.queue) == [(job_id,)]
    assert redis_client.zcard("rmos:workers") == 0


def test_a_silent_workers_jobs_are_notified_again_and_nobody_elses(
    ledger: JobLedger, reconciler: Reconciler, redis_client: redis.Redis
) -> None:
    lost = accept(ledger, 2) + accept(ledger, 1, SUGGEST)
    kept = accept(ledger, 2)
    claim(ledger, "silent", *lost)
    lease = claim(ledger, "lively", *kept)
    fall_silent(redis_client, "silent")
    assert reconciler.round() == 3
    assert {ledger.get(job_id).state for job_id in lost} == {JobState.ACCEPTED}
    assert {ledger.get(job_id).state for job_id in kept} == {JobState.RUNNING}
    assert set(take_notifications(ledger, CREATE.queue)) == {(job_id,) for job_id in lost[:2]}
    assert take_notifications(ledger, SUGGEST.queue) == [(lost[2],)]
    finishes = [Finish(job_id, {}) for job_id in kept]
    assert set(ledger.work.finish(finishes, lease, ttl_seconds=60).values()) == {"done"}
    # What the silent one sends when it wakes up is refused.
    late = ledger.work.finish([Finish(lost[0], {})], Lease("silent", "token"), ttl_seconds=60)
    assert late == {lost[0]: "accepted"}


def test_a_lease_its_worker_does_not_know_of_is_given_back(
    ledger: JobLedger, make_heartbeat: Callable[..., Heartbeat], redis_client: redis.Redis
) -> None:
    heartbeat = make_heartbeat()
    known, lost, fresh = accept(ledger, 3)
    claim(ledger, heartbeat.name, known, lost, fresh)
    redis_client.zadd(f"rmos:leases:{heartbeat.name}", {known: LONG_AGO, lost: LONG_AGO})
    with heartbeat.working([known]):
        heartbeat.beat()
    assert [ledger.get(job_id).state for job_id in (known, lost, fresh)] == ["running", "accepted", "running"]
    assert ledger.get(lost).crash_count == 0  # an answer was lost; nothing crashed
    assert take_notifications(ledger, CREATE.queue) == [(lost,)]


def test_giving_back_without_end_is_a_crash_loop(
    ledger: JobLedger, make_heartbeat: Callable[..., Heartbeat], redis_client: redis.Redis
) -> None:
    heartbeat = make_heartbeat()
    (job_id,) = accept(ledger)
    claim(ledger, heartbeat.name, job_id)
    redis_client.hset(f"rmos:job:{job_id}", "claim_count", 50)
    redis_client.zadd(f"rmos:leases:{heartbeat.name}", {job_id: LONG_AGO})
    heartbeat.beat()
    record = ledger.get(job_id)
    assert record.state is JobState.DEAD
    assert record.failure is not None
    assert record.failure.reason == "crash_loop"


def test_a_job_worked_on_twice_at_once_stays_known_until_both_end(
    ledger: JobLedger, make_heartbeat: Callable[..., Heartbeat], redis_client: redis.Redis
) -> None:
    heartbeat = make_heartbeat()
    (job_id,) = accept(ledger)
    with heartbeat.working([job_id]):
        claim(ledger, heartbeat.name, job_id)
        with heartbeat.working([job_id]):  # a second notification for it, whose claim is refused
            pass
        redis_client.zadd(f"rmos:leases:{heartbeat.name}", {job_id: LONG_AGO})
        heartbeat.beat()
        assert ledger.get(job_id).state is JobState.RUNNING
    heartbeat.beat()
    assert ledger.get(job_id).state is JobState.ACCEPTED


def test_retiring_gives_all_back_at_once(
    ledger: JobLedger, make_heartbeat: Callable[..., Heartbeat], redis_client: redis.Redis
) -> None:
    heartbeat = make_heartbeat(lease_seconds=600)
    heartbeat.start()
    job_ids = accept(ledger, 2, CREATE_MANY)
    claim(ledger, heartbeat.name, *job_ids)
    heartbeat.retire()
    assert not heartbeat._thread.is_alive()
    assert [ledger.get(job_id).state for job_id in job_ids] == ["accepted"] * 2
    # Each by itself: one of them may have been what hurt the worker.
    assert sorted(take_notifications(ledger, CREATE_MANY.queue)) == sorted((job_id,) for job_id in job_ids)
    assert redis_client.zcard("rmos:workers") == 0


def test_a_heart_goes_on_beating_after_errors(
    ledger: JobLedger,
    make_heartbeat: Callable[..., Heartbeat],
    monkeypatch: pytest.MonkeyPatch,
    eventually: Eventually,
) -> None:
    beats: list[str] = []

    def beat(worker: str, *_: object, **__: object) -> list[str]:
        beats.append(worker)
        raise BrokerUnavailable("away") if len(beats) == 1 else ZeroDivisionError

    monkeypatch.setattr(ledger.work, "beat", beat)
    heartbeat = make_heartbeat(heartbeat_seconds=0.01)
    heartbeat.start()
    eventually(lambda: len(beats) >= 3, 5)
    heartbeat.retire()
    assert set(beats) == {heartbeat.name}


def test_two_processes_never_share_a_name(make_heartbeat: Callable[..., Heartbeat]) -> None:
    assert len({make_heartbeat().name for _ in range(100)}) == 100


# -- lost notifications -----------------------------------------------------------------------------------


def test_a_job_that_was_taken_and_not_claimed_is_ready_again_after_the_grace(
    ledger: JobLedger, reconciler: Reconciler
) -> None:
    (job_id,) = accept(ledger)
    assert reconciler.round() == 0  # it may be on its way
    time.sleep(0.6)  # the grace is 0.5
    assert reconciler.round() == 1
    assert take_notifications(ledger, CREATE.queue) == [(job_id,)]
    assert reconciler.round() == 0  # from now on it counts anew


def test_a_job_in_line_is_never_taken_for_lost(
    ledger: JobLedger, make_reconciler: Callable[..., Reconciler], redis_client: redis.Redis
) -> None:
    reconciler = make_reconciler(notification_grace_seconds=0.01)
    job_ids = accept(ledger, 500, CREATE_MANY, in_line=True)
    redis_client.zadd("rmos:ready:runs.batch", {job_id: LONG_AGO + n for n, job_id in enumerate(job_ids)})
    assert reconciler.round() == 0
    taken = ledger.queues.take(CREATE_MANY.queue)
    assert taken
    assert taken.notification
    assert job_ids_in(taken.notification) == tuple(job_ids[:100])
    claim(ledger, "w", *job_ids[:100])
    time.sleep(0.02)
    assert reconciler.round() == 0
    assert redis_client.llen(CREATE_MANY.queue) == 400
    assert (ledger.stats().running, ledger.stats().ready) == (100, 400)


@pytest.mark.parametrize("why", ["lapsed", "due", "lost", "replayed"])
def test_an_old_notification_takes_a_job_out_of_line(
    *, ledger: JobLedger, reconciler: Reconciler, redis_client: redis.Redis, why: str
) -> None:
    (job_id,) = accept(ledger)
    if why == "lost":
        grow_old(redis_client, job_id)
    else:
        lease = claim(ledger, "w", job_id)
        if why == "lapsed":
            fall_silent(redis_client, "w")
        elif why == "due":
            ledger.work.reschedule(job_id, lease, delay_seconds=0, spends_retry=True, failure=FAILURE)
        else:
            ledger.work.bury(job_id, lease, failure=FAILURE)
            ledger.dead_letters.replay(job_id, by="op", why="repaired")
    assert reconciler.round() == (0 if why == "replayed" else 1)
    claim(ledger, "w2", job_id)  # by the notification that was late, not lost
    assert take_notifications(ledger, CREATE.queue) == []
    assert (ledger.stats().ready, redis_client.llen(CREATE.queue)) == (0, 0)
    assert ledger.consistency.inconsistencies() == {}


def test_a_round_makes_a_batch_ready_and_the_next_the_rest(
    ledger: JobLedger, make_reconciler: Callable[..., Reconciler], redis_client: redis.Redis
) -> None:
    job_ids = accept(ledger, 25)
    grow_old(redis_client, *job_ids)
    reconciler = make_reconciler(reconcile_batch_jobs=10, notification_grace_seconds=100)
    for expected in (10, 10, 5, 0):
        assert reconciler.round() == expected
        notified = {
            job_id for notification in take_notifications(ledger, CREATE.queue) for job_id in notification
        }
        assert len(notified) == expected
        job_ids = [job_id for job_id in job_ids if job_id not in notified]
    assert job_ids == []


# -- crashes, waiting jobs, turns -----------------------------------------------------------------


def test_three_starts_without_a_finish_are_a_crash_loop(
    ledger: JobLedger, reconciler: Reconciler, redis_client: redis.Redis
) -> None:
    poison, good = accept(ledger, 2)
    for start in (1, 2, 3):
        claim(ledger, f"w{start}", poison)
        assert ledger.get(poison).crash_count == start
        fall_silent(redis_client, f"w{start}")
        assert reconciler.round() == (1 if start < 3 else 0)
    record = ledger.get(poison)
    assert record.state is JobState.DEAD
    assert record.failure is not None
    assert record.failure.reason == "crash_loop"
    assert "last worker: w3" in record.failure.message
    assert ledger.get(good).state is JobState.ACCEPTED
    assert redis_client.llen(DEAD_LETTER_QUEUE) == 1
    assert ledger.stats().invariant
    # A replay gives it three starts again.
    ledger.dead_letters.replay(poison, by="op", why="repaired")
    claim(ledger, "w4", poison)
    assert ledger.get(poison).crash_count == 1


def test_a_wait_between_starts_is_no_crash(ledger: JobLedger, reconciler: Reconciler) -> None:
    (job_id,) = accept(ledger)
    for _ in range(5):
        lease = claim(ledger, "w", job_id)
        ledger.work.reschedule(job_id, lease, delay_seconds=0, spends_retry=True, failure=FAILURE)
        assert reconciler.round() == 1
        assert take_notifications(ledger, CREATE.queue) == [(job_id,)]
    assert (ledger.get(job_id).crash_count, ledger.get(job_id).retry_count) == (0, 5)


def test_waiting_jobs_are_notified_when_due_and_not_before(
    ledger: JobLedger, reconciler: Reconciler, redis_client: redis.Redis
) -> None:
    due, later = accept(ledger, 2)
    lease = claim(ledger, "w", due, later)
    for job_id in (due, later):
        ledger.work.reschedule(job_id, lease, delay_seconds=600, spends_retry=True, failure=FAILURE)
    assert reconciler.round() == 0
    redis_client.zadd("rmos:waiting", {due: LONG_AGO})
    assert reconciler.round() == 1
    assert [ledger.get(job_id).state for job_id in (due, later)] == ["accepted", "waiting"]
    assert take_notifications(ledger, CREATE.queue) == [(due,)]


def test_one_reconciler_works_at_a_time_and_another_takes_over(
    ledger: JobLedger, make_reconciler: Callable[..., Reconciler], redis_client: redis.Redis
) -> None:
    first, second = (
        make_reconciler(notification_grace_seconds=0.01),
        make_reconciler(notification_grace_seconds=0.01),
    )
    (job_id,) = accept(ledger)
    lock = f"rmos:lock:{LOCK}"
    for turn, (works, idles) in enumerate([(first, second), (first, second), (second, first)]):
        if turn == 2:
            redis_client.delete(lock)  # the first is gone, and its time has passed
        grow_old(redis_client, job_id)
        assert works.round() == 1
        take_notifications(ledger, CREATE.queue)
        grow_old(redis_client, job_id)
        assert idles.round() == 0
    assert 0 < redis_client.pttl(lock) <= 500


def test_many_reconcilers_at_once_notify_once(
    ledger: JobLedger, make_reconciler: Callable[..., Reconciler], redis_client: redis.Redis
) -> None:
    job_ids = accept(ledger, 50)
    grow_old(redis_client, *job_ids)
    reconcilers = [make_reconciler(notification_grace_seconds=100, reconcile_seconds=0.01) for _ in range(4)]
    for reconciler in reconcilers:
        reconciler.start()
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline and redis_client.llen(CREATE.queue) == 0:
        time.sleep(0.01)
    time.sleep(0.1)
    for reconciler in reconcilers:
        reconciler.stop()
    notified = [
        job_id for notification in take_notifications(ledger, CREATE.queue) for job_id in notification
    ]
    assert sorted(notified) == sorted(job_ids)


def test_the_reconciler_survives_errors(
    ledger: JobLedger,
    make_reconciler: Callable[..., Reconciler],
    monkeypatch: pytest.MonkeyPatch,
    redis_client: redis.Redis,
    eventually: Eventually,
) -> None:
    reconcile, failures = ledger.queues.reconcile, [BrokerUnavailable("away"), ZeroDivisionError()]

    def fail_first(**kwargs: Any) -> Round:
        if failures:
            raise failures.pop(0)
        return reconcile(**kwargs)

    monkeypatch.setattr(ledger.queues, "reconcile", fail_first)
    (job_id,) = accept(ledger)
    grow_old(redis_client, job_id)
    reconciler = make_reconciler(reconcile_seconds=0.02)
    reconciler.start()
    try:
        eventually(lambda: redis_client.llen(CREATE.queue) == 1, 5)
    finally:
        reconciler.stop()
    assert not reconciler._thread.is_alive()


def test_heartbeat_and_notifications_outlive_a_restart_of_the_server(
    tmp_path: Path, worker_settings: MakeSettings, eventually: Eventually
) -> None:
    with EmbeddedServer(tmp_path / "valkey") as server:
        settings = worker_settings(
            broker_url=server.url, notification_grace_seconds=0.01, reconcile_seconds=0.02
        )
        ledger = JobLedger.connect(settings)
        heartbeat = Heartbeat(ledger.work, settings)
        reconciler = Reconciler(ledger, RedisBreaker.of(ledger._client, settings), settings)
        kept, lost = accept(ledger, 2)
        claim(ledger, heartbeat.name, kept, lease_seconds=1)
        with heartbeat.working([kept]):
            heartbeat.start()
            reconciler.start()
            server.kill()
            server.start()
            try:
                # Accepted jobs are on the disk; the one whose notification was lost comes back.
                with redis.Redis.from_url(server.url) as client:
                    eventually(lambda: client.llen(CREATE.queue) == 1, 10)
                assert take_notifications(ledger, CREATE.queue) == [(lost,)]
                assert ledger.get(kept).state is JobState.RUNNING
                assert ledger.stats().invariant
            finally:
                reconciler.stop()
                heartbeat.retire()
        ledger.close()
