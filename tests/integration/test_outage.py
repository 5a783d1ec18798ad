"""After an hour's outage with 20,000 pending jobs: everything is come for, nothing is in line twice."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import redis

from rmos_shared.ids import new_uuid7
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.model import Job
from rmos_shared.settings.broker import BrokerSettings
from rmos_shared.settings.worker import WorkerSettings
from rmos_shared.tasks.table import CREATE
from support.embedded_server import EmbeddedServer

PENDING = 20_000
HOUR_MS = 3_600_000
SETTINGS = WorkerSettings.model_fields
BATCH = int(SETTINGS["reconcile_batch_jobs"].default)
#: Moves every time in an index an hour back, as if the hour had passed.
AN_HOUR_LATER = """
local members = redis.call('ZRANGE', KEYS[1], 0, -1)
for _, member in ipairs(members) do redis.call('ZINCRBY', KEYS[1], -ARGV[1], member) end
return #members
"""
#: Puts every accepted job off, as so many failed tries would.
PUT_ALL_OFF = """
redis.call('RENAME', KEYS[1], KEYS[2])
local ids = redis.call('ZRANGE', KEYS[2], 0, -1)
for _, id in ipairs(ids) do redis.call('HSET', 'rmos:job:' .. id, 'state', 'waiting', 'due_at', 0) end
return #ids
"""


@pytest.fixture(scope="module")
def ledger(server: EmbeddedServer) -> Iterator[JobLedger]:
    connected = JobLedger.connect(BrokerSettings.load(broker_url=f"{server.url.removesuffix('/0')}/8"))
    # The disk is not the question here.
    connected._client.config_set("appendfsync", "no")
    yield connected
    connected._client.flushdb()
    connected._client.config_set("appendfsync", "always")
    connected.close()


@pytest.fixture
def client(ledger: JobLedger) -> redis.Redis:
    ledger._client.flushdb()
    return ledger._client


def fill(ledger: JobLedger) -> None:
    for _ in range(PENDING // 1_000):
        ledger.accept(
            [
                Job(job_id=new_uuid7(), task=CREATE.name, run_id=new_uuid7(), request_id=None, payload="{}")
                for _ in range(1_000)
            ]
        )


def later(client: redis.Redis, index: str) -> int:
    return int(client.eval(AN_HOUR_LATER, 1, f"rmos:{index}", HOUR_MS))


def a_round(ledger: JobLedger) -> int:
    grace = SETTINGS["notification_grace_seconds"].default
    return ledger.queues.reconcile(batch=BATCH, grace_seconds=grace, max_crashes=3).ready


def take_all(ledger: JobLedger) -> int:
    """Take every job, as workers would that then vanish; return how many there were."""
    jobs = 0
    while taken := ledger.queues.take(CREATE.queue):
        jobs += len(json.loads(json.loads(taken.notification or b"")["body"])[0][0])
    return jobs


@pytest.mark.timeout(300)
def test_thousands_of_jobs_come_back_without_a_herd(ledger: JobLedger, client: redis.Redis) -> None:
    fill(ledger)

    # They are in line: nothing is done about them, however long it takes.
    before = client.info("memory")["used_memory"]
    assert [a_round(ledger) for _ in range(50)] == [0] * 50
    assert client.llen(CREATE.queue) == PENDING
    assert client.info("memory")["used_memory"] < before * 1.05

    # All were taken and never claimed: a batch at a time comes back.
    assert take_all(ledger) == PENDING
    assert client.llen(CREATE.queue) == 0
    assert later(client, "taken") == PENDING
    for number in range(1, PENDING // BATCH + 1):
        assert a_round(ledger) == BATCH
        assert client.llen(CREATE.queue) == number * BATCH
    assert a_round(ledger) == 0

    # All were put off and fall due at once: a batch each round.
    assert take_all(ledger) == PENDING
    assert client.eval(PUT_ALL_OFF, 2, "rmos:taken", "rmos:waiting") == PENDING
    later(client, "waiting")
    rounds = [a_round(ledger) for _ in range(PENDING // BATCH + 1)]
    assert rounds == [*[BATCH] * (PENDING // BATCH), 0]
    stats = ledger.stats()
    assert (stats.accepted, stats.ready, stats.waiting, stats.invariant) == (PENDING, PENDING, 0, True)
    assert client.llen(CREATE.queue) == PENDING
