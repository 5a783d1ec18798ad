"""The ledger's figures on a real server: what they tell, that they change nothing and stay cheap."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis

from rmos_shared.errors import BrokerDamaged
from rmos_shared.ids import new_uuid7
from rmos_shared.jobs.figures.model import LedgerFigures, TaskJobs
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.model import Failure, Job
from rmos_shared.jobs.work import Finish, Lease
from rmos_shared.tasks.table import CREATE, SUGGEST
from rmos_worker.advisories.breaker import RedisBreaker

LEASE = Lease("host:1:aa", "1")


@pytest.fixture
def client(broker_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(broker_url) as opened:
        yield opened


@pytest.fixture
def ledger(client: redis.Redis) -> JobLedger:
    return JobLedger(client)


def accept(ledger: JobLedger, amount: int = 1, task: str = CREATE.name) -> list[str]:
    jobs = [Job(new_uuid7(), task, new_uuid7(), None, "{}") for _ in range(amount)]
    ledger.accept(jobs)
    return [job.job_id for job in jobs]


def claim(ledger: JobLedger, ids: list[str], lease: Lease = LEASE) -> None:
    ledger.work.claim(ids, lease, lease_seconds=60)


def failure(reason: str) -> Failure:
    # What it says must not be taken for the reason.
    return Failure(reason=reason, error_type="X", message='not "reason":"this"', traceback="x" * 2_000)


def bury(ledger: JobLedger, ids: list[str], reason: str) -> None:
    claim(ledger, ids)
    for job_id in ids:
        ledger.work.bury(job_id, LEASE, failure=failure(reason))


def put_off(ledger: JobLedger, ids: list[str], reason: str, seconds: float) -> None:
    claim(ledger, ids)
    for job_id in ids:
        ledger.work.reschedule(
            job_id, LEASE, delay_seconds=seconds, spends_retry=True, failure=failure(reason)
        )


def read(ledger: JobLedger, *, jobs: int = 10_000, events: int = 100_000) -> LedgerFigures:
    return ledger.figures.read(most_jobs=jobs, most_events=events)


def everything(client: redis.Redis) -> dict[bytes, Any]:
    return {key: client.dump(key) for key in client.scan_iter()}


def test_each_job_is_counted_where_it_is(ledger: JobLedger, client: redis.Redis) -> None:
    ready, _, running, waiting, dead, given_up, done = accept(ledger, 7)
    accept(ledger, task=SUGGEST.name)
    client.zincrby("rmos:ready:runs.create", -30e6, ready)
    ledger.queues.take(SUGGEST.queue)
    claim(ledger, [running])
    put_off(ledger, [waiting], "store_unavailable", 60)
    bury(ledger, [dead, given_up], "conflict")
    ledger.dead_letters.discard(given_up, by="op", why="x")
    claim(ledger, [done], Lease("host:2:bb", "1"))
    ledger.work.finish([Finish(done, {})], Lease("host:2:bb", "1"), ttl_seconds=60)
    before = everything(client)

    figures = read(ledger)

    assert everything(client) == before, "to look changes nothing"
    assert figures.tasks == [
        TaskJobs(task=CREATE.name, accepted=2, running=1, waiting=1, dead=1, discarded=1),
        TaskJobs(task=SUGGEST.name, accepted=1),
    ]
    lines = {line.queue: line for line in figures.queues}
    assert lines[CREATE.queue].ready == 2
    assert 30 <= (lines[CREATE.queue].oldest_ready_seconds or 0) < 40
    assert (lines[SUGGEST.queue].ready, lines[SUGGEST.queue].oldest_ready_seconds) == (0, None)
    assert figures.capped == []
    workers = {worker.worker: worker for worker in figures.workers}
    assert [(job.job_id, job.task) for job in workers["host:1:aa"].jobs] == [(running, CREATE.name)]
    assert abs((workers["host:1:aa"].jobs[0].since_utc - figures.at_utc).total_seconds()) < 10
    assert (workers["host:2:bb"].running, workers["host:2:bb"].jobs) == (0, [])


def test_what_waits_is_told_by_reason_and_until_when(ledger: JobLedger) -> None:
    first, second, third = accept(ledger, 3)
    put_off(ledger, [first], "breaker_open", 60)
    put_off(ledger, [second], "breaker_open", 600)
    put_off(ledger, [third], "run_pending", 5)

    figures = read(ledger)

    assert [(group.reason, group.jobs) for group in figures.waiting] == [
        ("breaker_open", 2),
        ("run_pending", 1),
    ]
    due = [
        (at - figures.at_utc).total_seconds()
        for at in (figures.waiting[0].first_due_utc, figures.waiting[0].last_due_utc)
    ]
    assert due == [pytest.approx(60, abs=10), pytest.approx(600, abs=10)]


def test_dead_letters_are_told_by_reason_with_the_first_and_the_last(
    ledger: JobLedger, client: redis.Redis
) -> None:
    early, late, other = accept(ledger, 3)
    bury(ledger, [early, late], "advisory_refused")
    bury(ledger, [other], "crash_loop")
    client.zincrby("rmos:dead", -7_200_000, early)
    client.lpush(CREATE.queue, "garbage")
    ledger.queues.take(CREATE.queue)

    groups = {group.reason: group for group in read(ledger).dead_letters}

    assert {reason: group.letters for reason, group in groups.items()} == {
        "advisory_refused": 2,
        "crash_loop": 1,
        "malformed_message": 1,
    }
    refused = groups["advisory_refused"]
    assert (refused.last_seen_utc - refused.first_seen_utc).total_seconds() == pytest.approx(7_200, abs=10)


def test_a_worker_is_known_by_its_heartbeat_until_it_retires(ledger: JobLedger, client: redis.Redis) -> None:
    for name in ("a", "b", "c"):
        ledger.work.beat(name, [], lease_seconds=10, stale_seconds=10)
    client.zincrby("rmos:beats", -3_000, "b")
    client.zincrby("rmos:workers", -20_000, "b")

    workers = {worker.worker: worker for worker in read(ledger).workers}
    assert (workers["a"].silent, workers["b"].silent) == (False, True)
    assert workers["a"].heartbeat_seconds == pytest.approx(0, abs=2)
    assert workers["b"].heartbeat_seconds == pytest.approx(3, abs=2)

    ledger.work.retire("a", max_crashes=3)
    ledger.queues.reconcile(batch=10, grace_seconds=10, max_crashes=3)
    assert [worker.worker for worker in read(ledger).workers] == ["c"]
    assert client.zrange("rmos:beats", 0, -1) == [b"c"], "nothing is left of those that went"


def test_the_breaker_is_told_as_the_workers_see_it(ledger: JobLedger, client: redis.Redis) -> None:
    breaker = RedisBreaker(client, failures=1, open_seconds=30, probe_seconds=30)
    assert read(ledger).breaker.state == "closed"
    breaker.record_failure("ADVISORY_UNAVAILABLE")
    figures = read(ledger)
    assert (figures.breaker.state, figures.breaker.why) == ("open", "ADVISORY_UNAVAILABLE")
    assert figures.breaker.until_utc
    assert (figures.breaker.until_utc - figures.at_utc).total_seconds() == pytest.approx(30, abs=5)
    assert figures.breaker.since_utc
    client.delete("rmos:breaker:advisory:hold")
    assert read(ledger).breaker.state == "half_open"
    breaker.check()  # this call is the probe
    assert (read(ledger).breaker.state, read(ledger).breaker.until_utc) == ("half_open", None)
    breaker.record_success()
    assert read(ledger).breaker.state == "closed"


def test_rates_and_times_come_from_the_stream_of_events(ledger: JobLedger, client: redis.Redis) -> None:
    seconds, _ = client.time()
    for ago in (400, 200):
        client.xadd(
            "rmos:events",
            {"state": "accepted", "jobs": f"{new_uuid7()}\t{CREATE.name}\tr\tq"},
            id=f"{(seconds - ago) * 1000}-0",
        )
    slow, quick, again = accept(ledger, 3)
    client.hset(f"rmos:job:{slow}", "accepted_at", (seconds - 30) * 1000)
    put_off(ledger, [again], "run_pending", 0)
    ledger.queues.reconcile(batch=10, grace_seconds=10, max_crashes=3)
    assert ledger.get(again).state == "accepted", "in line once more"
    claim(ledger, [slow, quick])
    ledger.work.finish([Finish(slow, {}), Finish(quick, {})], LEASE, ttl_seconds=60)

    figures = read(ledger)

    (flow,) = figures.flow
    assert figures.flow_seconds == 300
    assert (flow.accepted_per_second_1m, flow.accepted_per_second_5m) == (3 / 60, 4 / 300)
    assert (flow.done_per_second_1m, flow.done_per_second_5m) == (2 / 60, 2 / 300)
    assert flow.measured == 2
    assert flow.accepted_to_done_seconds_p99 == pytest.approx(30, abs=5)
    assert (flow.accepted_to_done_seconds_p50 or 9) < 5
    assert (flow.started_to_done_seconds_p99 or 9) < 5


def test_a_stream_that_is_cut_off_says_how_far_it_reaches(ledger: JobLedger, client: redis.Redis) -> None:
    assert read(ledger).flow_seconds == 300, "nothing has happened, and that is known"
    seconds, _ = client.time()
    for ago in (100, 90, 10):
        client.xadd("rmos:events", {"state": "done", "jobs": "j\tt\tr\tq"}, id=f"{(seconds - ago) * 1000}-0")
    assert read(ledger).flow_seconds == 300, "all that ever happened is there"
    client.xtrim("rmos:events", maxlen=2, approximate=False)
    assert read(ledger).flow_seconds == pytest.approx(90, abs=5)


def test_very_many_events_are_not_all_read(ledger: JobLedger, client: redis.Redis) -> None:
    seconds, _ = client.time()
    lines = "\n".join(f"{new_uuid7()}\t{CREATE.name}\tr\tq" for _ in range(25))
    with client.pipeline(transaction=False) as pipe:
        for number in range(600):
            event_id = f"{(seconds - 60) * 1000 + number * 100}-0"
            pipe.xadd("rmos:events", {"state": "accepted", "jobs": lines}, id=event_id)
        pipe.execute()
    whole, some = read(ledger), read(ledger, events=1)
    assert whole.flow[0].accepted_per_second_5m == 15_000 / 300
    assert some.flow_seconds == pytest.approx(50, abs=5), "a page of 500 entries, ten a second"
    # The rate is of what was seen: 250 a second.
    assert some.flow[0].accepted_per_second_1m == pytest.approx(250, rel=0.2)


def test_of_very_many_jobs_the_first_and_the_latest_are_looked_at_and_that_is_said(
    ledger: JobLedger, client: redis.Redis
) -> None:
    old = accept(ledger, 20)
    bury(ledger, old, "conflict")
    client.zadd("rmos:dead", dict.fromkeys(old, 1))
    bury(ledger, accept(ledger, 30), "crash_loop")
    accept(ledger, 40)

    figures = read(ledger, jobs=30)

    assert figures.capped == ["accepted", "dead"]
    assert figures.most_examined == 30
    assert [(group.reason, group.letters) for group in figures.dead_letters] == [("crash_loop", 30)]
    assert figures.tasks == [TaskJobs(task=CREATE.name, accepted=30, dead=30)]
    assert next(line for line in figures.queues if line.queue == CREATE.queue).ready == 40


def test_the_cost_does_not_grow_with_the_jobs(ledger: JobLedger, client: redis.Redis) -> None:
    def calls() -> dict[str, int]:
        client.config_resetstat()
        read(ledger, jobs=2_000, events=1_000)
        stats = client.info("commandstats")
        return {name.removeprefix("cmdstat_"): one["calls"] for name, one in stats.items()}

    def die(amount: int) -> None:
        with client.pipeline(transaction=False) as pipe:
            for _ in range(amount):
                job_id = new_uuid7()
                pipe.hset(
                    f"rmos:job:{job_id}", mapping={"task": CREATE.name, "failure": '{"reason":"conflict"}'}
                )
                pipe.zadd("rmos:dead", {job_id: 1})
            pipe.execute()

    die(2_100)
    few = calls()
    die(4_200)
    many = calls()
    assert few["hmget"] == many["hmget"] == 2_000
    assert few["evalsha"] == many["evalsha"] < 30


@pytest.mark.parametrize("key", ["dead", "ready:runs.create", "workers", "events", "breaker:advisory:outage"])
def test_damage_is_told_as_such(ledger: JobLedger, client: redis.Redis, key: str) -> None:
    client.set(f"rmos:{key}", "garbage")
    with pytest.raises(BrokerDamaged):
        read(ledger)


def test_what_another_program_wrote_is_shown_and_harms_nobody(ledger: JobLedger, client: redis.Redis) -> None:
    for number in range(150):
        client.hset(f"rmos:job:j{number}", mapping={"task": b"\xff" * number, "failure": b"\xff"})
        client.zadd("rmos:dead", {f"j{number}": number})
    client.set("rmos:job:x", "no record")
    client.zadd("rmos:waiting", {"x": "inf"})
    client.zadd("rmos:workers", {b"\xff": "-inf"})
    client.set("rmos:beats", "garbage")

    figures = read(ledger)

    assert sum(group.letters for group in figures.dead_letters) == 150
    assert len(figures.tasks) <= 102
    assert [(group.reason, group.jobs) for group in figures.waiting] == [("unknown", 1)]
    assert figures.workers[0].heartbeat_seconds is None
    assert figures.workers[0].silent
