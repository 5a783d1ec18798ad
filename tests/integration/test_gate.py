"""The gate in a real worker: whatever is pushed onto a task queue, nothing is lost and nobody ends."""

from __future__ import annotations

import base64
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
import redis
from celery import Celery

from rmos_producer.client import RunsClient
from rmos_shared.doorbell import Doorbell
from rmos_shared.ids import new_uuid7
from rmos_shared.ledger.job_ledger import JobLedger
from rmos_shared.models.job import JobState
from rmos_shared.tasks import CREATE, CREATE_MANY, DEAD_LETTER_QUEUE, SUGGEST

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


class Worker(Protocol):
    """The process fixture, as far as these tests use it."""

    pid: int
    alive: bool
    log: Path

    def children(self) -> list[int]: ...


StartWorker = Callable[..., Worker]


@pytest.fixture
def bell(redis_client: redis.Redis, doorbell: Doorbell) -> Callable[[str], dict[str, Any]]:
    """Ring with the real doorbell while no worker listens, and take the message off the queue."""

    def take(job_id: str) -> dict[str, Any]:
        assert doorbell.ring([(CREATE.name, job_id)], again=True)
        item = redis_client.lpop(CREATE.queue)
        assert isinstance(item, bytes)
        decoded: dict[str, Any] = json.loads(item)
        return decoded

    return take


def coded(content: Any) -> str:
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    return base64.b64encode(data).decode()


def header(name: str, value: Any) -> Edit:
    return lambda envelope: envelope["headers"].update({name: value})


def content(value: Any) -> Edit:
    return lambda envelope: envelope.update(body=coded(value))


def content_type(value: str, encoding: str, data: bytes) -> Edit:
    return lambda envelope: envelope.update(
        {"content-type": value, "content-encoding": encoding, "body": coded(data)}
    )


EMBED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
#: The messages that Celery alone deletes or ends on (docs/celery.md), and more of their kind.
EDITS: dict[str, Edit] = {
    "unknown_task": header("task", "runs.nothing"),
    "task_missing": lambda envelope: envelope["headers"].pop("task"),
    "task_is_a_list": header("task", ["runs.create"]),
    "task_of_another_queue": header("task", SUGGEST.name),
    "id_missing": lambda envelope: envelope["headers"].pop("id"),
    "eta_bad": header("eta", "soon"),
    "eta_far": header("eta", "2999-01-01T00:00:00+00:00"),
    "eta_past": header("eta", "1999-01-01T00:00:00+00:00"),
    "expired": header("expires", "1999-01-01T00:00:00+00:00"),
    "retried_by_celery": header("retries", 1),
    "headers_null": lambda envelope: envelope.update(headers=None),
    "arguments_no_list": content([5, {}, EMBED]),
    "bad_json": content(b"[["),
    "body_5": content(5),
    "body_null": content(None),
    "body_empty": content(b""),
    "body_two_elements": content([[[]], {}]),
    "no_ids": content([[[]], {}, EMBED]),
    "too_many_ids": content([[[new_uuid7() for _ in range(101)]], {}, EMBED]),
    "unknown_id": content([[[new_uuid7()]], {}, EMBED]),
    "pickle": content_type("application/x-python-serialize", "binary", b"\x80\x04N."),
    "yaml": content_type("application/x-yaml", "utf-8", b"[[], {}, {}]"),
    "data": content_type("application/data", "binary", b"[[], {}, {}]"),
    "properties_null": lambda envelope: envelope.update(properties=None),
    "delivery_tag_missing": lambda envelope: envelope["properties"].pop("delivery_tag"),
    "delivery_tag_surrogate": lambda envelope: envelope["properties"].update(delivery_tag="\ud800"),
}
ITEMS: dict[str, bytes] = {
    "empty": b"",
    "garbage": b"garbage",
    "number": b"5",
    "null": b"null",
    "empty_object": b"{}",
    "not_utf8": b"\xff\xfe\x00\xd8",
    "nested_100_000": b"[" * 100_000 + b"]" * 100_000,
    "huge": b"x" * 50_000_000,
}


def malformed(good: dict[str, Any], twice: str, elsewhere: str) -> Iterator[tuple[str, str, bytes]]:
    """Yield (what is wrong, queue, item); ``elsewhere`` is a job of another queue than ``good`` rings."""
    for name, edit in EDITS.items():
        envelope = json.loads(json.dumps(good))
        edit(envelope)
        yield name, CREATE.queue, json.dumps(envelope).encode()
    for name, item in ITEMS.items():
        yield name, CREATE.queue, item
    whole = json.dumps(good)
    yield "key_twice", CREATE.queue, whole.replace('"task": ', '"task": "runs.create", "task": ', 1).encode()
    for encoding in ("utf-8-sig", "utf-16"):
        yield encoding, CREATE.queue, whole.encode(encoding)
    yield "on_another_queue", SUGGEST.queue, whole.encode()
    bulk = json.loads(
        whole.replace(f'"{CREATE.name}"', f'"{CREATE_MANY.name}"').replace(
            f'"routing_key": "{CREATE_MANY.name}"', f'"routing_key": "{CREATE_MANY.queue}"'
        )
    )
    bulk["properties"]["delivery_info"]["routing_key"] = CREATE_MANY.queue
    bulk["body"] = coded([[[twice, twice]], {}, EMBED])
    yield "id_twice", CREATE_MANY.queue, json.dumps(bulk).encode()
    bulk["body"] = coded([[[twice, elsewhere]], {}, EMBED])
    yield "id_of_another_queue", CREATE_MANY.queue, json.dumps(bulk).encode()


@pytest.mark.parametrize("pool", POOLS)
def test_malformed_messages_are_kept_and_harm_nobody(
    *,
    pool: str,
    start_worker: StartWorker,
    redis_client: redis.Redis,
    runs_client: RunsClient,
    ledger: JobLedger,
    bell: Callable[[str], dict[str, Any]],
    eventually: Eventually,
) -> None:
    good = bell(runs_client.create_run(REQUEST).job_id)
    elsewhere = runs_client.create_run(REQUEST).job_id
    table = list(malformed(good, new_uuid7(), elsewhere))
    worker = start_worker(pool)
    processes = {worker.pid, *worker.children()}
    for name, queue, item in table:
        redis_client.lpush(queue, item)
        receipts = [runs_client.create_run(REQUEST), *runs_client.create_runs([REQUEST] * 3)]
        for receipt in receipts:
            assert runs_client.wait(receipt.job_id, 15).state is JobState.DONE, name
        assert worker.alive, name
    eventually(lambda: ledger.stats().pending == 0)
    # No process was replaced either: the same pool has lived through all of it.
    assert {worker.pid, *worker.children()} == processes

    letters = ledger.raw_letters()
    kept = {ledger.raw_item(letter.raw_id): letter for letter in letters}
    assert len(letters) == len(table) == len(kept)
    for name, queue, item in table:
        letter = kept[item]
        unknown = name in {"unknown_id", "id_of_another_queue"}
        assert letter.reason == ("unknown_job" if unknown else "malformed_message"), name
        assert (letter.queue, letter.size_bytes) == (queue, len(item)), name
    stats = ledger.stats()
    assert (stats.accepted, stats.done, stats.dead) == (2 + 4 * len(table), 2 + 4 * len(table), 0)
    assert stats.invariant
    assert redis_client.llen(DEAD_LETTER_QUEUE) == len(table)
    assert redis_client.hlen("unacked") == 0


@pytest.mark.parametrize("pool", POOLS)
def test_revoking_a_bell_neither_loses_nor_hides_its_job(
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
        # The bell bears the job's id, so that is what an operator revokes; before it rings, to be sure.
        run = {**REQUEST, "run_id": new_uuid7()}
        job, receipt = runs_client._create_job(run, explain=False, spec=CREATE)
        operator.control.revoke(job.job_id, terminate=True)
        eventually(lambda: job.job_id in worker.log.read_text(), 10)
    runs_client._accept([job], [receipt])
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
    (letter,) = ledger.raw_letters()
    assert ledger.raw_item(letter.raw_id) == b"garbage"
    assert "garbage" not in worker.log.read_text()
