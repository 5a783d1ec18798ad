"""What the ledger hands out: jobs in line, and nothing that others pushed onto a queue."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery
from celery.worker.request import Request
from kombu import Connection

from rmos_shared.ids import explain_job_id, new_uuid7
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.model import Job
from rmos_shared.jobs.queues import Taken
from rmos_shared.jobs.work import Lease
from rmos_shared.settings.broker import BrokerSettings
from rmos_shared.tasks.table import CREATE, CREATE_MANY, DEAD_LETTER_QUEUE, QUEUES, SUGGEST, TASKS, TaskSpec
from support.embedded_server import EmbeddedServer
from support.malformed import KINDS, make, notification_of


@pytest.fixture(scope="module")
def ledger(server: EmbeddedServer) -> Iterator[JobLedger]:
    url = f"{server.url.removesuffix('/0')}/9"  # no other test's database
    connected = JobLedger.connect(BrokerSettings.load(broker_url=url))
    yield connected
    connected._client.flushdb()
    connected.close()


@pytest.fixture(autouse=True)
def _empty(ledger: JobLedger) -> None:
    ledger._client.flushdb()


@pytest.fixture(scope="module")
def good(ledger: JobLedger) -> bytes:
    return notification_of(ledger)


def accept(ledger: JobLedger, spec: TaskSpec, *job_ids: str) -> None:
    ledger.accept(
        [
            Job(job_id=job_id, task=spec.name, run_id=new_uuid7(), request_id=None, payload="{}")
            for job_id in job_ids
        ]
    )


def take_all(ledger: JobLedger, queue: str, most: int = 1) -> list[Taken]:
    """Take as a worker's channel does."""
    ledger.queues.load()
    words = ledger.queues.take_command(queue, most=most)
    return Taken.read(ledger._client.execute_command(*words))  # type: ignore[no-untyped-call]


def ids_of(message: Taken) -> list[str]:
    return as_celery_reads_it(message.notification)[2] if message.notification else []


def as_celery_reads_it(item: bytes) -> tuple[str, str, list[str]]:
    """Decode with kombu's and Celery's own code, as a worker does; return task, id and job ids."""
    app = Celery(set_as_current=False)

    @app.task(name=json.loads(item)["headers"]["task"])
    def task(job_ids: list[str]) -> None:
        raise NotImplementedError

    with Connection("memory://") as connection:
        channel: Any = connection.channel()  # the stubs know a base class alone
        message = channel.message_to_python(json.loads(item))
        message.accept = {"application/json"}
        request: Any = Request(message, app=app, task=task, headers=message.headers, decoded=False)
        assert (request.eta, request.expires) == (None, None)
        (job_ids,) = request.args
        assert request.kwargs == {}
        channel.close()
    return request.name, request.id, job_ids


@pytest.mark.parametrize("spec", TASKS.values(), ids=TASKS)
def test_a_notification_is_what_celery_takes_for_a_call_of_the_task(
    ledger: JobLedger, spec: TaskSpec
) -> None:
    job_ids = [new_uuid7() for _ in range(spec.ids_per_notification)]
    accept(ledger, spec, *job_ids)
    taken = ledger.queues.take(spec.queue)
    assert taken
    assert taken.notification
    # Named like its first job, so that Flower finds it by that.
    assert as_celery_reads_it(taken.notification) == (spec.name, job_ids[0], job_ids)
    assert ledger.queues.take(spec.queue) is None


def test_a_notification_is_for_as_many_jobs_as_their_task_allows(ledger: JobLedger) -> None:
    many, single = [new_uuid7() for _ in range(250)], new_uuid7()
    accept(ledger, CREATE_MANY, *many)
    accept(ledger, CREATE, single)
    found = []
    while taken := ledger.queues.take(*QUEUES):
        assert taken.notification
        found.append(as_celery_reads_it(taken.notification)[2])
    assert sorted(map(len, found)) == [1, 50, 100, 100]
    assert [job_id for ids in found for job_id in ids if len(ids) > 1] == many


def test_a_later_notification_of_a_job_has_an_id_of_its_own(ledger: JobLedger) -> None:
    # Celery drops a second message of an id that was revoked.
    job_id = explain_job_id(new_uuid7())
    accept(ledger, SUGGEST, job_id)
    names = set()
    for _ in range(4):
        taken = ledger.queues.take(SUGGEST.queue)
        assert taken
        assert taken.notification
        _, name, job_ids = as_celery_reads_it(taken.notification)
        assert job_ids == [job_id]
        names.add(name)
        ledger.queues.put_back([job_id])
    assert len(names) == 4
    ledger.queues.take(SUGGEST.queue)


@pytest.mark.parametrize("kind", KINDS)
def test_anything_else_is_kept_verbatim(ledger: JobLedger, good: bytes, kind: str) -> None:
    item = make(kind, good)
    assert item != good
    ledger._client.lpush(CREATE.queue, item)
    assert_kept(ledger, item)


def assert_kept(ledger: JobLedger, item: bytes, queue: str = CREATE.queue) -> None:
    taken = ledger.queues.take(queue)
    assert taken
    assert taken.notification is None
    assert ledger.dead_letters.raw_item(taken.raw_id) == item
    letter = ledger.dead_letters.find_raw(taken.raw_id)
    assert letter
    assert (letter.queue, letter.reason, letter.size_bytes) == (queue, "malformed_message", len(item))
    assert ledger.queues.take(queue) is None


@pytest.mark.parametrize("queue", QUEUES)
def test_a_copy_of_a_notification_is_kept_as_well(ledger: JobLedger, good: bytes, queue: str) -> None:
    # Its job is in line, or has been taken: a copy can only come from somebody else.
    ledger._client.lpush(queue, good)
    assert_kept(ledger, good, queue)


@pytest.mark.parametrize("push", ["lpush", "rpush"])
def test_a_stranger_keeps_no_job_waiting(ledger: JobLedger, push: str) -> None:
    first, second = new_uuid7(), new_uuid7()
    accept(ledger, CREATE, first)
    getattr(ledger._client, push)(CREATE.queue, b"stray")
    accept(ledger, CREATE, second)
    handed_out = []
    while taken := take_all(ledger, CREATE.queue):
        handed_out += taken
    assert [job_id for message in handed_out for job_id in ids_of(message)] == [first, second]
    assert [ledger.dead_letters.raw_item(message.raw_id) for message in handed_out if message.raw_id] == [
        b"stray"
    ]
    assert ledger._client.llen(CREATE.queue) == 0


def test_strangers_are_kept_when_their_turn_comes(ledger: JobLedger) -> None:
    accept(ledger, SUGGEST, new_uuid7())
    ledger._client.lpush(SUGGEST.queue, b"stray")
    accept(ledger, SUGGEST, new_uuid7())
    assert [bool(message.notification) for message in take_all(ledger, SUGGEST.queue)] == [True]
    assert ledger.stats().raw == 0
    assert [bool(message.notification) for message in take_all(ledger, SUGGEST.queue)] == [False, True]
    assert ledger.stats().raw == 1


# -- the list that mirrors the line ---------------------------------------------------------------


def test_the_length_of_a_queue_is_the_number_of_its_ready_jobs(ledger: JobLedger) -> None:
    accept(ledger, CREATE_MANY, *(new_uuid7() for _ in range(250)))
    assert ledger.stats().queues[CREATE_MANY.queue] == 250
    assert len(take_all(ledger, CREATE_MANY.queue)) == 1
    assert ledger.stats().queues[CREATE_MANY.queue] == 150


def test_jobs_are_handed_out_though_their_queue_was_purged(ledger: JobLedger) -> None:
    job_ids = [new_uuid7() for _ in range(30)]
    accept(ledger, CREATE, *job_ids)
    ledger._client.delete(CREATE.queue)  # as celery purge does
    (message,) = take_all(ledger, CREATE.queue)
    assert ids_of(message) == job_ids[:25]
    ledger.queues.reconcile(batch=100, grace_seconds=100, max_crashes=3)
    assert ledger.stats().queues[CREATE.queue] == 5


def test_items_without_a_job_are_dropped_once_nobody_waits(ledger: JobLedger) -> None:
    accept(ledger, CREATE, new_uuid7())
    (item,) = ledger._client.lrange(CREATE.queue, 0, -1)
    ledger._client.lpush(CREATE.queue, item, item)
    assert len(take_all(ledger, CREATE.queue)) == 1
    assert ledger._client.llen(CREATE.queue) == 2
    assert take_all(ledger, CREATE.queue) == []
    assert ledger._client.llen(CREATE.queue) == 0


def test_a_queue_that_is_no_list_keeps_no_job_waiting(ledger: JobLedger) -> None:
    ledger._client.set(CREATE.queue, "not a list")
    job_id = new_uuid7()
    accept(ledger, CREATE, job_id)
    (message,) = take_all(ledger, CREATE.queue)
    assert ids_of(message) == [job_id]
    assert ledger._client.get(CREATE.queue) == b"not a list"


# -- joining --------------------------------------------------------------------------------------


def take_joined(ledger: JobLedger, queue: str, most: int) -> list[list[str]]:
    """Take as a worker's channel does; return the job ids of each notification."""
    return [ids_of(message) for message in take_all(ledger, queue, most)]


@pytest.mark.parametrize(
    ("waiting", "most", "sizes"),
    [(1, 2, [1]), (2, 2, [1, 1]), (5, 2, [3, 2]), (30, 1, [25]), (200, 4, [25] * 4)],
)
def test_what_waits_is_joined_and_spread_over_the_hands_that_are_free(
    ledger: JobLedger, waiting: int, most: int, sizes: list[int]
) -> None:
    job_ids = [new_uuid7() for _ in range(waiting)]
    for job_id in job_ids:
        accept(ledger, CREATE, job_id)
    taken = take_joined(ledger, CREATE.queue, most)
    assert [len(ids) for ids in taken] == sizes
    assert [job_id for ids in taken for job_id in ids] == job_ids[: sum(sizes)]
    left = []
    while message := ledger.queues.take(CREATE.queue):
        left += ids_of(message)
    assert left == job_ids[sum(sizes) :]


def test_jobs_that_may_not_share_are_never_joined(ledger: JobLedger) -> None:
    for _ in range(4):
        accept(ledger, SUGGEST, new_uuid7())
    assert [len(ids) for ids in take_joined(ledger, SUGGEST.queue, 1)] == [1]


def test_a_job_that_was_started_in_vain_is_done_alone(ledger: JobLedger) -> None:
    job_ids = [new_uuid7() for _ in range(3)]
    accept(ledger, CREATE, *job_ids)
    assert take_joined(ledger, CREATE.queue, 1) == [job_ids]
    lease = Lease("w", "t")
    ledger.work.claim(job_ids, lease, lease_seconds=60)
    ledger.work.retire("w", max_crashes=3)
    fresh = [new_uuid7(), new_uuid7()]
    for job_id in fresh:
        accept(ledger, CREATE, job_id)
    alone = [take_joined(ledger, CREATE.queue, 1) for _ in job_ids]
    assert sorted(alone) == sorted([[job_id]] for job_id in job_ids)
    assert take_joined(ledger, CREATE.queue, 1) == [fresh]


def test_an_older_notification_for_several_starts_none_again_that_was_started_in_vain(
    ledger: JobLedger,
) -> None:
    job_ids = [new_uuid7() for _ in range(3)]
    accept(ledger, CREATE, *job_ids)
    # A worker has this notification in hand, perhaps more than once, while another loses the jobs.
    assert take_joined(ledger, CREATE.queue, 1) == [job_ids]
    ledger.work.claim(job_ids[:2], Lease("w", "t"), lease_seconds=60)
    ledger.work.retire("w", max_crashes=3)
    claims = ledger.work.claim(job_ids, Lease("v", "t"), lease_seconds=60)
    assert [claim.job_id for claim in claims.claimed] == job_ids[2:]
    assert claims.refused == dict.fromkeys(job_ids[:2], "accepted")
    # Each has a notification of its own now, and so they are started.
    alone = [take_joined(ledger, CREATE.queue, 1) for _ in range(2)]
    assert sorted(alone) == sorted([[job_id]] for job_id in job_ids[:2])
    for job_id in job_ids[:2]:
        (claim,) = ledger.work.claim([job_id], Lease("v", "u"), lease_seconds=60).claimed
        assert claim.crash_count == 2


def test_a_job_put_back_while_it_is_in_line_is_handed_out_once(ledger: JobLedger) -> None:
    job_ids = [new_uuid7(), new_uuid7()]
    for job_id in job_ids:
        accept(ledger, CREATE, job_id)
    ledger.queues.put_back(job_ids)
    assert take_joined(ledger, CREATE.queue, 1) == [job_ids]


# -- lengths --------------------------------------------------------------------------------------


def test_lengths_tell_jobs_from_what_others_pushed_and_a_damaged_key_from_an_empty_queue(
    ledger: JobLedger,
) -> None:
    accept(ledger, CREATE, new_uuid7(), new_uuid7())
    accept(ledger, SUGGEST, new_uuid7())
    ledger._client.lpush(CREATE.queue, "stranger")
    ledger._client.lpush("runs.batch", "stranger")
    assert ledger.queues.take("runs.batch")
    ledger._client.delete(f"rmos:ready:{SUGGEST.queue}")
    ledger._client.set(f"rmos:ready:{SUGGEST.queue}", "of a wrong type")

    lengths = {length.queue: (length.messages, length.jobs) for length in ledger.queues.lengths()}

    assert list(lengths) == [*QUEUES, DEAD_LETTER_QUEUE]
    assert lengths[CREATE.queue] == (3, 2)
    assert lengths[SUGGEST.queue] == (1, None)
    assert lengths["runs.batch"] == (0, 0)
    assert lengths[DEAD_LETTER_QUEUE] == (1, 1)


# -- waking ---------------------------------------------------------------------------------------


def test_tokens_are_bounded_and_gone_once_a_queue_was_seen_empty(ledger: JobLedger) -> None:
    tokens = f"rmos:wake:{SUGGEST.queue}"
    accept(ledger, SUGGEST, *(new_uuid7() for _ in range(200)))
    assert ledger._client.llen(tokens) == 64
    while ledger.queues.take(SUGGEST.queue):
        pass
    assert ledger._client.llen(tokens) == 0
