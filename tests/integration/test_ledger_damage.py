"""Keys that another program wrote, and jobs of another version: nothing stops half-way, nobody is harmed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from typing import Any, cast

import pytest
import redis

from rmos_runs.client import RunsClient
from rmos_shared.errors import BrokerDamaged, NotFound, TransitionRefused
from rmos_shared.ids import new_uuid7
from rmos_shared.jobs.acts import ActKind, ActOutcome
from rmos_shared.jobs.consistency import Records
from rmos_shared.jobs.events import EventState
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.model import Failure, Job, OnceJob
from rmos_shared.jobs.steering import OTHER_VERSION
from rmos_shared.jobs.webhooks import WEBHOOK_EVENTS, Subscription
from rmos_shared.jobs.work import Finish, Lease
from rmos_shared.store.publication import Publication
from rmos_shared.tasks.table import CREATE, DEAD_LETTER_QUEUE, SUGGEST, TASKS, TaskSpec
from support.worker import StartWorker

LEASE = Lease("w", "1")
ACT = "a" * 32
FAILURE = Failure(reason="conflict", error_type="X", message="x")
#: A task that only a later version has, on a queue of its own and on one that is known.
LATER = TaskSpec("runs.later", "runs.later", CREATE.payload, "later")
BESIDE = replace(LATER, name="runs.beside", queue=CREATE.queue)
Eventually = Callable[..., None]


@pytest.fixture
def client(broker_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(broker_url) as opened:
        yield opened


@pytest.fixture
def ledger(client: redis.Redis) -> JobLedger:
    return JobLedger(client)


@pytest.fixture
def later(client: redis.Redis) -> JobLedger:
    """The ledger of a version that knows two tasks more."""
    return JobLedger(client, tasks=[*TASKS.values(), LATER, BESIDE])


def accept(ledger: JobLedger, task: str = CREATE.name, amount: int = 1) -> list[str]:
    ids = [new_uuid7() for _ in range(amount)]
    jobs = [Job(job_id=job_id, task=task, run_id=job_id, request_id="r", payload="{}") for job_id in ids]
    ledger.accept(jobs)
    return ids


def dump(client: redis.Redis) -> dict[bytes, Any]:
    """Return all that the server holds, save what may be lost without loss."""
    volatile = (b"rmos:wake:", b"rmos:place:", b"rmos:beats", b"rmos:letters", b"rmos:events", b"runs.")
    read: dict[bytes, Callable[[bytes], Any]] = {
        b"string": client.get,
        b"list": lambda key: client.lrange(key, 0, -1),
        b"hash": client.hgetall,
        b"zset": lambda key: client.zrange(key, 0, -1, withscores=True),
        b"set": client.smembers,
        b"stream": client.xrange,
    }
    return {key: read[client.type(key)](key) for key in client.scan_iter() if not key.startswith(volatile)}  # type: ignore[index]


# Keys of a wrong type (F8)

KEYS = [
    "rmos:job:{job}",
    "rmos:payload:{job}",
    "rmos:ready:runs.create",
    "rmos:taken",
    "rmos:wake:runs.create",
    "rmos:queues",
    "rmos:leases:w",
    "rmos:waiting",
    "rmos:held",
    "rmos:dead",
    "rmos:discarded",
    "rmos:counts",
    f"rmos:once:{'d' * 64}",
    "rmos:subjects",
    "rmos:workers",
    "rmos:beats",
    "rmos:raw:{raw}",
    "rmos:raw",
    "rmos:raw_discarded",
    "rmos:letters",
    "rmos:events",
    "rmos:unsealed",
    "rmos:seals",
    "rmos:webhooks",
    "rmos:webhooks_off",
    "rmos:ready:runs.notify",
    "runs.create",
    DEAD_LETTER_QUEUE,
]
#: How a key of each type is made.
WRONG: dict[str, Callable[[redis.Redis, str], Any]] = {
    "string": lambda client, key: client.set(key, "garbage"),
    "list": lambda client, key: client.rpush(key, "garbage"),
    "hash": lambda client, key: client.hset(key, "garbage", "garbage"),
    "zset": lambda client, key: client.zadd(key, {"garbage": 1}),
}


PUBLICATION = Publication("2026-08-01/r.json", "a" * 64, 1, created=True)


def follower() -> Job:
    return Job(new_uuid7(), SUGGEST.name, "r", None, "{}")


Operations = dict[str, Callable[[JobLedger, dict[str, str]], Any]]
#: Every operation, on the job that each expects.
OPERATIONS: Operations = {
    "accept": lambda ledger, _: accept(ledger),
    "accept again": lambda ledger, ids: ledger.accept(
        [Job(job_id=ids["accepted"], task=CREATE.name, run_id="r", request_id=None, payload="{}")]
    ),
    "accept once": lambda ledger, _: ledger.accept_once(
        [OnceJob(follower(), "d" * 64, "b" * 64, "{}"), OnceJob(follower(), "e" * 64, "b" * 64, "{}")],
        ttl_seconds=60,
    ),
    "claim": lambda ledger, ids: ledger.work.claim([ids["accepted"]], LEASE, lease_seconds=60),
    "finish": lambda ledger, ids: ledger.work.finish(
        [Finish(ids["running"], {}, (Job(new_uuid7(), SUGGEST.name, "r", None, "{}"),), (PUBLICATION,))],
        LEASE,
        ttl_seconds=60,
    ),
    "reschedule": lambda ledger, ids: ledger.work.reschedule(
        ids["running"], LEASE, delay_seconds=1, spends_retry=True, failure=FAILURE, held=True
    ),
    "forward": lambda ledger, _: ledger.work.bring_forward(most=10),
    "bury": lambda ledger, ids: ledger.work.bury(
        ids["running"], LEASE, failure=FAILURE, published=[PUBLICATION]
    ),
    "give_back": lambda ledger, ids: ledger.work.give_back(ids["running"], LEASE, max_crashes=3),
    "beat": lambda ledger, _: ledger.work.beat("w", [], lease_seconds=60, stale_seconds=-1),
    "retire": lambda ledger, _: ledger.work.retire("w", max_crashes=1),
    "reconcile": lambda ledger, _: ledger.queues.reconcile(batch=10, grace_seconds=-1, max_crashes=3),
    "put_back": lambda ledger, ids: ledger.queues.put_back([ids["accepted"]]),
    "take": lambda ledger, _: ledger.queues.take(CREATE.queue),
    "replay": lambda ledger, ids: ledger.dead_letters.replay(ids["dead"], by="op", why="x"),
    "discard": lambda ledger, ids: ledger.dead_letters.discard(ids["dead"], by="op", why="x"),
    "replay raw": lambda ledger, ids: ledger.dead_letters.replay(ids["raw"], by="op", why="x"),
    "discard raw": lambda ledger, ids: ledger.dead_letters.discard(ids["raw"], by="op", why="x"),
    "configure": lambda ledger, _: ledger.webhooks.configure([Subscription("new", ("job.dead",))]),
    "disable": lambda ledger, _: ledger.webhooks.disable("erp", reason="gone"),
    "enable": lambda ledger, _: ledger.webhooks.enable("off"),
    "endpoints": lambda ledger, _: ledger.webhooks.endpoints(),
    "publish": lambda ledger, _: ledger.unsealed.add([PUBLICATION]),
    "feed": lambda ledger, _: ledger.unsealed.read(most=10),
    "sealing": lambda ledger, _: ledger.unsealed.state(begin=True),
    "announce": lambda ledger, _: ledger.announce(EventState.REVIEWED, "r"),
    "stats": lambda ledger, _: ledger.stats(),
    "figures": lambda ledger, _: ledger.figures.read(most_jobs=10, most_events=10),
    "faults": lambda ledger, _: ledger.consistency.inconsistencies(),
    "repair": lambda ledger, ids: ledger.consistency.repair(ids["astray"]),
    "find": lambda ledger, ids: ledger.find(ids["running"]),
    "jobs": lambda ledger, _: list(ledger.jobs()),
    "dead letters": lambda ledger, _: [*ledger.dead_letters.dead(), *ledger.dead_letters.raw_letters()],
    "explanation": lambda ledger, ids: ledger.job_about("create", ids["running"]),
}


def refusal(operation: Callable[[], Any]) -> str:
    """Return what an operation says when it does nothing; empty when it does what it is asked to."""
    try:
        operation()
    except (BrokerDamaged, TransitionRefused, NotFound) as error:
        return str(error)
    return ""


def one_of_each(ledger: JobLedger) -> dict[str, str]:
    ids = dict(zip(("accepted", "running", "dead", "astray"), accept(ledger, amount=4), strict=True))
    for state in ("running", "dead"):
        ledger.work.claim([ids[state]], LEASE, lease_seconds=60)
    ledger.work.bury(ids["dead"], LEASE, failure=FAILURE)
    ledger._client.rpush(CREATE.queue, b"garbage")
    taken = ledger.queues.take(CREATE.queue)
    assert taken is not None
    ids["raw"] = taken.raw_id
    ledger._client.zrem("rmos:ready:runs.create", ids["astray"])
    # From here on each end of a job is told as well.
    ledger.webhooks.configure([Subscription("erp", WEBHOOK_EVENTS), Subscription("off", ("job.dead",))])
    ledger.webhooks.disable("off", reason="gone")
    return ids


@pytest.mark.parametrize("key", KEYS)
def test_an_operation_is_done_whole_or_not_at_all_whatever_a_key_is(
    ledger: JobLedger, client: redis.Redis, key: str
) -> None:
    about = ["running", "dead", "accepted"] if "{job}" in key else [""]
    done_whole_or_not_at_all(ledger, client, key, OPERATIONS, about)


def done_whole_or_not_at_all(
    ledger: JobLedger, client: redis.Redis, key: str, operations: Operations, about: list[str]
) -> None:
    for (name, operation), wrong, state in product(operations.items(), WRONG, about):
        client.flushall()
        ids = one_of_each(ledger)
        if operations is STEERING:
            ids["waiting"] = steered(ledger)
        place = key.format(job=ids.get(state), raw=ids["raw"])
        if cast("bytes", client.type(place)).decode() == wrong:
            continue
        client.delete(place)
        WRONG[wrong](client, place)
        before = dump(client)
        refused = refusal(lambda: operation(ledger, ids))  # noqa: B023 - called at once
        if refused:
            after = dump(client)
            if name == "beat":  # that a worker lives is written down whatever else is damaged
                after[b"rmos:workers"] = before.get(b"rmos:workers")
            assert after == before, (name, wrong)
            assert "garbage" not in refused


def steer(ledger: JobLedger, kind: ActKind, about: str) -> None:
    for error in ledger.steering.apply(kind, [about], by="op", why="x", act_id=ACT).values():
        raise error


def steered(ledger: JobLedger) -> str:
    """Put a job off, and pause something."""
    (waiting,) = accept(ledger)
    ledger.work.claim([waiting], LEASE, lease_seconds=60)
    ledger.work.reschedule(waiting, LEASE, delay_seconds=500, spends_retry=False, failure=FAILURE, held=True)
    steer(ledger, ActKind.PAUSE, f"task:{SUGGEST.name}")
    return waiting


#: What operators do, and what asks for pauses.
STEERING: Operations = {
    "cancel": lambda ledger, ids: steer(ledger, ActKind.CANCEL, ids["accepted"]),
    "cancel waiting": lambda ledger, ids: steer(ledger, ActKind.CANCEL, ids["waiting"]),
    "run now": lambda ledger, ids: steer(ledger, ActKind.RUN_NOW, ids["waiting"]),
    "pause": lambda ledger, _: steer(ledger, ActKind.PAUSE, f"queue:{CREATE.queue}"),
    "resume": lambda ledger, _: steer(ledger, ActKind.RESUME, f"task:{SUGGEST.name}"),
    "begin": lambda ledger, _: ledger.acts.begin(ActKind.CANCEL, by="op", why="x", about={}, found=1),
    "end": lambda ledger, _: ledger.acts.end(ACT, ActOutcome.COMPLETE, refused=0),
    "acts": lambda ledger, _: list(ledger.acts.newest_first()),
    "pauses": lambda ledger, _: ledger.pauses.all(),
    "take": OPERATIONS["take"],
    "forward": OPERATIONS["forward"],
}


@pytest.mark.parametrize(
    "key",
    [
        *(
            "rmos:unsealed",
            "rmos:seals",
            "rmos:pauses",
            "rmos:acts",
            f"rmos:act:{ACT}",
            "rmos:job:{job}",
            "rmos:ready:runs.create",
        ),
        *("rmos:waiting", "rmos:discarded"),
    ],
)
def test_steering_is_done_whole_or_not_at_all_whatever_a_key_is(
    ledger: JobLedger, client: redis.Redis, key: str
) -> None:
    about = ["accepted", "waiting"] if "{job}" in key else [""]
    done_whole_or_not_at_all(ledger, client, key, STEERING, about)


def test_the_error_names_the_key_and_what_to_do(ledger: JobLedger, client: redis.Redis) -> None:
    client.set("rmos:counts", "garbage")
    with pytest.raises(BrokerDamaged, match="key rmos:counts is a string, not a hash; nothing was changed"):
        accept(ledger)


@pytest.mark.parametrize(
    "name", ["crash_count", "claim_count", "retry_count", "due_at", "waiting_since", "history", "lease"]
)
def test_garbage_in_a_field_stops_nobody(ledger: JobLedger, client: redis.Redis, name: str) -> None:
    for operation in OPERATIONS.values():
        client.flushall()
        ids = one_of_each(ledger)
        for job_id in ids.values():
            if client.exists(f"rmos:job:{job_id}"):
                client.hset(f"rmos:job:{job_id}", name, "garbage")
        assert "garbage" not in refusal(lambda: operation(ledger, ids))  # noqa: B023 - called at once


def test_one_damaged_record_keeps_no_other_job_from_its_turn(ledger: JobLedger, client: redis.Redis) -> None:
    ids = accept(ledger, amount=5)
    ledger.work.claim([*ids], LEASE, lease_seconds=0)
    client.delete(f"rmos:job:{ids[0]}")
    client.set(f"rmos:job:{ids[0]}", "garbage")
    done = ledger.queues.reconcile(batch=2, grace_seconds=100, max_crashes=3)
    done_again = ledger.queues.reconcile(batch=2, grace_seconds=100, max_crashes=3)
    assert (done.ready, done_again.ready) == (2, 2)
    assert ledger.consistency.inconsistencies() == {ids[0]: "has a string in place of its record"}
    assert ledger.consistency.repair(ids[0]) == "discarded"
    assert ledger.stats().invariant


def test_a_damaged_index_keeps_only_those_waiting_that_need_it(
    ledger: JobLedger, client: redis.Redis
) -> None:
    put_off, lost = accept(ledger, amount=2)
    ledger.work.claim([put_off], LEASE, lease_seconds=60)
    ledger.work.reschedule(put_off, LEASE, delay_seconds=0, spends_retry=False, failure=FAILURE)
    client.delete("rmos:workers")
    client.set("rmos:workers", "garbage")
    assert ledger.queues.take(CREATE.queue)
    done = ledger.queues.reconcile(batch=10, grace_seconds=-1, max_crashes=3)
    assert done.damaged == ("rmos:workers",)
    assert done.ready >= 2
    assert {ledger.get(job).state.value for job in (put_off, lost)} == {"accepted"}


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_workers_outlive_damage_and_go_on_when_it_is_taken_away(
    *,
    pool: str,
    start_worker: StartWorker,
    client: redis.Redis,
    runs_client: RunsClient,
    sample_requests: list[dict[str, Any]],
    eventually: Eventually,
) -> None:
    worker = start_worker(pool)
    for key in (
        "rmos:workers",
        "rmos:ready:runs.batch",
        "rmos:raw",
        "rmos:wake:runs.create",
        "runs.batch",
    ):
        if client.exists(key):
            client.rename(key, f"aside:{key}")
        client.hset(key, "garbage", "garbage")
        count = worker.log.read_text().count("ledger")
        eventually(
            lambda key=key, count=count: (
                key.startswith(("rmos:wake", "rmos:raw")) or worker.log.read_text().count("ledger") > count
            ),
            told=lambda: worker.log.read_text()[-2_000:],
        )
        client.delete(key)
        if client.exists(f"aside:{key}"):
            client.rename(f"aside:{key}", key)
        receipt = runs_client.create_run(sample_requests[0])
        assert runs_client.wait(receipt.job_id, 20).state == "done", key
    assert worker.alive
    assert "Traceback" not in worker.log.read_text()
    assert runs_client.ledger.stats().invariant


def test_counters_that_were_deleted_hide_nothing(ledger: JobLedger, client: redis.Redis) -> None:
    (job_id,) = accept(ledger)
    ledger.work.claim([job_id], LEASE, lease_seconds=60)
    ledger.work.finish([Finish(job_id, {})], LEASE, ttl_seconds=60)
    client.delete("rmos:counts")
    assert ledger.stats().invariant, "0 = 0: the figures alone say nothing"
    audit = ledger.consistency
    assert audit.inconsistencies() == {}
    assert audit.records == Records(total=1, done=1)


def test_a_notification_of_a_damaged_record_is_no_dead_letter(ledger: JobLedger, client: redis.Redis) -> None:
    (job_id,) = accept(ledger)
    client.rename(f"rmos:job:{job_id}", "aside")
    client.set(f"rmos:job:{job_id}", "garbage")
    assert ledger.queues.take(CREATE.queue) is None
    client.rename("aside", f"rmos:job:{job_id}")
    assert list(ledger.dead_letters.raw_letters()) == []
    assert ledger.queues.reconcile(batch=10, grace_seconds=-1, max_crashes=3).ready == 1
    assert [claim.job_id for claim in ledger.work.claim([job_id], LEASE, lease_seconds=60).claimed] == [
        job_id
    ]


def test_the_list_for_flower_is_made_anew_with_every_letter(ledger: JobLedger, client: redis.Redis) -> None:
    lease = Lease("w", "1")
    ids = accept(ledger, amount=4)
    ledger.work.claim(ids, lease, lease_seconds=60)
    for job_id in ids[:3]:
        ledger.work.bury(job_id, lease, failure=FAILURE)
    client.delete(DEAD_LETTER_QUEUE)
    client.set(DEAD_LETTER_QUEUE, "garbage")
    ledger.work.bury(ids[3], lease, failure=FAILURE)
    assert ledger.stats().queues[DEAD_LETTER_QUEUE] == ledger.stats().dead == 4


def test_a_job_that_has_ended_is_notified_for_nowhere(ledger: JobLedger, client: redis.Redis) -> None:
    (job_id,) = accept(ledger)
    ledger.work.claim([job_id], LEASE, lease_seconds=60)
    ledger.work.finish([Finish(job_id, {})], LEASE, ttl_seconds=60)
    client.zadd("rmos:waiting", {job_id: 1})
    client.zadd("rmos:taken", {job_id: 1})
    assert ledger.queues.reconcile(batch=10, grace_seconds=-1, max_crashes=3).ready == 0
    assert ledger.get(job_id).state.value == "done"
    assert list(ledger.consistency.inconsistencies()) == [job_id]


@pytest.mark.parametrize("request_id", ["ä\u200a½", '\\"%]', "x" * 256])
def test_a_notification_is_readable_whatever_the_request_is_called(
    ledger: JobLedger, client: redis.Redis, request_id: str
) -> None:
    job = Job(new_uuid7(), CREATE.name, "r", request_id, "{}")
    ledger.accept([job])
    taken = ledger.queues.take(CREATE.queue)
    assert taken is not None
    told = json.loads(taken.notification or b"")["headers"]["argsrepr"]
    assert told == f"runs.create, 1 job(s), run r, request {ascii_only(request_id)}"
    client.hset(f"rmos:job:{job.job_id}", "request_id", b"\xff\xfe")
    ledger.queues.put_back([job.job_id])
    again = ledger.queues.take(CREATE.queue)
    assert again is not None
    assert json.loads(again.notification or b"")["headers"]["argsrepr"].endswith("request ??")


def ascii_only(text: str) -> str:
    return "".join(chr(byte) if 32 <= byte < 127 else "?" for byte in text.encode())


def test_a_damaged_stream_of_events_stops_no_operation(ledger: JobLedger, client: redis.Redis) -> None:
    for (name, operation), wrong in product(OPERATIONS.items(), WRONG):
        client.flushall()
        ids = one_of_each(ledger)
        client.delete("rmos:events")
        WRONG[wrong](client, "rmos:events")
        # A raw letter is no job; figures that are counted from the stream alone name it.
        refuses = name in {"replay raw", "figures"}
        assert refusal(lambda: operation(ledger, ids)) == "" or refuses, name  # noqa: B023 - called at once
        assert ledger.stats().invariant


def test_a_damaged_feed_is_named_and_begun_anew(ledger: JobLedger, client: redis.Redis) -> None:
    client.set("rmos:unsealed", "garbage")
    client.rpush("rmos:seals", "garbage")
    damaged = ledger.queues.reconcile(batch=10, grace_seconds=100, max_crashes=3).damaged
    assert {"rmos:unsealed", "rmos:seals"} <= set(damaged)
    assert not ledger.unsealed.tell([PUBLICATION])
    with pytest.raises(BrokerDamaged, match=r"rmos:unsealed is a string, not a stream"):
        ledger.unsealed.add([PUBLICATION])
    assert ledger.unsealed.repair() == ["rmos:unsealed", "rmos:seals"]
    assert ledger.unsealed.repair() == []
    ledger.unsealed.add([PUBLICATION])
    assert [entry.published for entry in ledger.unsealed.read(most=10).entries] == [(PUBLICATION,)]


def test_a_foreign_entry_of_the_feed_tells_of_nothing_and_hides_nothing(
    ledger: JobLedger, client: redis.Redis
) -> None:
    client.xadd("rmos:unsealed", {"p": "[[1]]"})
    client.xadd("rmos:unsealed", {"x": "y"})
    client.hset("rmos:seals", "told", "garbage")
    ledger.unsealed.add([PUBLICATION])
    page = ledger.unsealed.read(most=10)
    assert [entry.published for entry in page.entries] == [(), (), (PUBLICATION,)]
    assert page.at_end
    assert ledger.unsealed.state().unsealed >= 1


def test_a_feed_that_takes_no_more_entries_is_begun_anew(ledger: JobLedger, client: redis.Redis) -> None:
    client.xadd("rmos:unsealed", {"p": "[]"}, id=f"{2**64 - 1}-{2**64 - 1}")
    ledger.unsealed.add([PUBLICATION])
    assert [entry.published for entry in ledger.unsealed.read(most=10).entries] == [(PUBLICATION,)]


# Jobs of another version (F5)


@pytest.mark.parametrize("spec", [LATER, BESIDE], ids=["queue of its own", "known queue"])
def test_jobs_of_another_version_stay_where_they_are_and_are_named(
    ledger: JobLedger, later: JobLedger, client: redis.Redis, spec: TaskSpec
) -> None:
    ids = dict(
        zip(("accepted", "running", "waiting", "dead"), accept(later, spec.name, amount=4), strict=True)
    )
    for state in ("running", "waiting", "dead"):
        later.work.claim([ids[state]], LEASE, lease_seconds=0)
    later.work.reschedule(ids["waiting"], LEASE, delay_seconds=0, spends_retry=True, failure=FAILURE)
    later.work.bury(ids["dead"], LEASE, failure=FAILURE)
    later.queues.take(spec.queue)
    before = dump(client)

    assert ledger.queues.reconcile(batch=1, grace_seconds=-1, max_crashes=3).ready == 0
    assert ledger.work.claim([*ids.values()], LEASE, lease_seconds=60).claimed == ()
    client.zadd("rmos:workers", {"w": 1})
    with pytest.raises(TransitionRefused, match="only another version knows"):
        ledger.dead_letters.replay(ids["dead"], by="op", why="x")
    audit = ledger.consistency
    assert audit.repair(ids["accepted"]) == OTHER_VERSION
    assert audit.repair(ids["waiting"]) == OTHER_VERSION
    ledger.work.retire("w", max_crashes=3)
    after = dump(client)
    assert {k: v for k, v in after.items() if b"workers" not in k} == {
        k: v for k, v in before.items() if b"workers" not in k
    }
    assert audit.inconsistencies() == {
        job_id: f"is {state}, and of a task that only another version knows" for state, job_id in ids.items()
    }
    assert ledger.stats().invariant
    assert {record.job_id for record in ledger.dead_letters.dead()} == {ids["dead"]}

    # A version that knows them comes for each.
    client.delete(spec.queue)
    client.zadd("rmos:workers", {"w": 1})
    assert later.queues.reconcile(batch=10, grace_seconds=-1, max_crashes=3).ready >= 3
    later.dead_letters.replay(ids["dead"], by="op", why="x")
    assert len(later.work.claim([*ids.values()], Lease("new", "1"), lease_seconds=60).refused) <= 3
    assert later.consistency.inconsistencies() == {}


def test_jobs_of_another_version_hide_no_job_that_is_due(ledger: JobLedger, later: JobLedger) -> None:
    for job_id in accept(later, LATER.name, amount=30):
        later.work.claim([job_id], LEASE, lease_seconds=60)
        later.work.reschedule(job_id, LEASE, delay_seconds=0, spends_retry=False, failure=FAILURE)
    (job_id,) = accept(ledger)
    ledger.work.claim([job_id], LEASE, lease_seconds=60)
    ledger.work.reschedule(job_id, LEASE, delay_seconds=0, spends_retry=False, failure=FAILURE)
    assert ledger.queues.reconcile(batch=2, grace_seconds=100, max_crashes=3).ready == 1


def test_a_notification_of_another_version_is_no_dead_letter(ledger: JobLedger, later: JobLedger) -> None:
    (job_id,) = accept(later, BESIDE.name)
    assert ledger.queues.take(CREATE.queue) is None
    assert list(ledger.dead_letters.raw_letters()) == []
    # Its own version finds that the notification was lost.
    assert later.queues.reconcile(batch=10, grace_seconds=-1, max_crashes=3).ready == 1
    assert [claim.job_id for claim in later.work.claim([job_id], LEASE, lease_seconds=60).claimed] == [job_id]


# What a record tells of itself (U6)


def test_every_failure_replay_and_outcome_stays_in_the_history(ledger: JobLedger) -> None:
    (job_id,) = accept(ledger)
    for turn in range(3):
        ledger.work.claim([job_id], Lease("w", str(turn)), lease_seconds=60)
        ledger.work.reschedule(
            job_id, Lease("w", str(turn)), delay_seconds=0, spends_retry=True, failure=FAILURE
        )
    ledger.work.claim([job_id], Lease("w", "3"), lease_seconds=60)
    ledger.work.bury(job_id, Lease("w", "3"), failure=FAILURE)
    ledger.dead_letters.replay(job_id, by="person:ana", why="disk is back")
    ledger.work.claim([job_id], Lease("w", "4"), lease_seconds=60)
    ledger.work.finish([Finish(job_id, {})], Lease("w", "4"), ttl_seconds=60)

    record = ledger.get(job_id)
    assert record.failure is None
    assert [(entry["what"], entry.get("times")) for entry in record.history] == [
        ("put_off", 3),
        ("died", None),
        ("replayed", None),
        ("done", None),
    ]
    assert {key: record.history[0][key] for key in ("reason", "error_type", "message")} == {
        "reason": "conflict",
        "error_type": "X",
        "message": "x",
    }
    assert record.history[0]["since"] <= record.history[0]["at"]


def test_a_history_is_bounded_and_says_what_it_left_out(ledger: JobLedger) -> None:
    (job_id,) = accept(ledger)
    for turn in range(60):
        lease = Lease("w", str(turn))
        ledger.work.claim([job_id], lease, lease_seconds=60)
        failure = FAILURE.model_copy(update={"message": f"failure {turn}"})
        ledger.work.reschedule(job_id, lease, delay_seconds=0, spends_retry=False, failure=failure)
    history = ledger.get(job_id).history
    assert len(history) == 50
    assert (history[0]["what"], history[0]["dropped"]) == ("earlier", 11)
    assert [entry["message"] for entry in history[1:]] == [f"failure {turn}" for turn in range(11, 60)]
