"""The gate in a real worker: whatever is pushed onto a task queue, nothing is lost and nobody ends."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
import redis
from celery import Celery

from rmos_runs.client import RunsClient
from rmos_runs.jobs import prepare_run
from rmos_shared.errors import BrokerUnavailable
from rmos_shared.ids import new_uuid7
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.model import JobState
from rmos_shared.tasks.table import CREATE, DEAD_LETTER_QUEUE
from support.malformed import KINDS, make
from support.worker import StartWorker

POOLS = ["prefork", "threads"]
REQUEST: dict[str, Any] = {
    "mode": "saw",
    "tool_id": "saw:test",
    "status": "OK",
    "feasibility": {"risk_level": "GREEN"},
    "decision": {"risk_level": "GREEN"},
}
Eventually = Callable[..., None]
Edit = Callable[[dict[str, Any]], object]


#: Beside the table: the sizes that the gate must not even look into.
GIANTS: dict[str, bytes] = {
    "empty": b"",
    "nested_100_000": b"[" * 100_000 + b"]" * 100_000,
    "huge": b"x" * 50_000_000,
}


def is_done(client: RunsClient, job_id: str) -> Callable[[], bool]:
    def check() -> bool:
        # On a busy machine the server may be at the giant for longer than a client waits.
        with suppress(BrokerUnavailable):
            return client.wait(job_id, 15).state is JobState.DONE
        return False

    return check


@pytest.mark.parametrize("pool", POOLS)
def test_malformed_messages_are_kept_and_harm_nobody(
    *,
    pool: str,
    start_worker: StartWorker,
    redis_client: redis.Redis,
    runs_client: RunsClient,
    ledger: JobLedger,
    eventually: Eventually,
) -> None:
    runs_client.create_run(REQUEST)
    taken = ledger.queues.take(CREATE.queue)
    assert taken
    assert taken.notification
    table = [(kind, make(kind, taken.notification)) for kind in KINDS] + list(GIANTS.items())
    worker = start_worker(pool)
    processes = {worker.pid, *worker.children()}
    for name, item in table:
        redis_client.lpush(CREATE.queue, item)
        receipts = [runs_client.create_run(REQUEST), *runs_client.create_runs([REQUEST] * 3)]
        for receipt in receipts:
            eventually(is_done(runs_client, receipt.job_id), 60, told=partial(str, name))
        assert worker.alive, name
    # The job whose notification was taken for the table is notified again.
    eventually(lambda: ledger.stats().pending == 0)
    # No process was replaced either: the same pool has lived through all of it.
    assert {worker.pid, *worker.children()} == processes

    letters = list(ledger.dead_letters.raw_letters())
    kept = {ledger.dead_letters.raw_item(letter.raw_id): letter for letter in letters}
    assert len(letters) == len(table) == len(kept)
    for name, item in table:
        letter = kept[item]
        assert letter.reason == "malformed_message", name
        assert (letter.queue, letter.size_bytes) == (CREATE.queue, len(item)), name
    stats = ledger.stats()
    assert (stats.accepted, stats.done, stats.dead) == (1 + 4 * len(table), 1 + 4 * len(table), 0)
    assert stats.invariant
    assert redis_client.llen(DEAD_LETTER_QUEUE) == len(table)


@pytest.mark.parametrize("pool", POOLS)
def test_revoking_a_notification_neither_loses_nor_hides_its_job(
    *,
    pool: str,
    start_worker: StartWorker,
    broker_url: str,
    runs_client: RunsClient,
    ledger: JobLedger,
    eventually: Eventually,
) -> None:
    worker = start_worker(pool)
    before = runs_client.create_run(REQUEST)
    assert runs_client.wait(before.job_id, 15).state is JobState.DONE
    with Celery("operator", broker=broker_url, set_as_current=False) as operator:
        # The notification bears the job's id, so that is what an operator revokes; before it is sent here.
        run = {**REQUEST, "run_id": new_uuid7()}
        job = prepare_run(run, CREATE, explain=False, most_bytes=1_000_000).job
        operator.control.revoke(job.job_id, terminate=True)
        eventually(lambda: job.job_id in worker.log.read_text(), 10)
    ledger.accept([job])
    assert runs_client.wait(job.job_id, 15).state is JobState.DONE
    assert worker.log.read_text().count("Discarding revoked task") == 1
    assert ledger.stats().raw == 0


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("setting", ["maxmemory", "min-replicas-to-write"])
def test_a_broker_that_refuses_writes_does_not_end_the_worker(
    *,
    pool: str,
    setting: str,
    start_worker: StartWorker,
    redis_client: redis.Redis,
    runs_client: RunsClient,
    ledger: JobLedger,
    eventually: Eventually,
) -> None:
    worker = start_worker(pool)
    os.kill(worker.pid, signal.SIGSTOP)  # the item goes to its socket, and no further
    try:
        redis_client.lpush(CREATE.queue, b"garbage")
        redis_client.config_set(setting, 1)
        os.kill(worker.pid, signal.SIGCONT)
        if setting == "maxmemory":
            # A full server takes nothing new, but what was on its queues it keeps.
            eventually(lambda: ledger.stats().raw == 1, 10)
        time.sleep(1.5)
        assert worker.alive
    finally:
        redis_client.config_set(setting, 0)
    assert runs_client.wait(runs_client.create_run(REQUEST).job_id, 15).state is JobState.DONE
    assert worker.alive
    # Held on to while it was refused, not given up.
    eventually(lambda: ledger.stats().raw == 1, 10)
    (letter,) = ledger.dead_letters.raw_letters()
    assert ledger.dead_letters.raw_item(letter.raw_id) == b"garbage"
    assert "garbage" not in worker.log.read_text()
