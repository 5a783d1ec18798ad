"""What the ledger hands out of a queue: the notifications that it wrote, byte for byte, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery
from celery.worker.request import Request
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kombu import Connection

from rmos_runs.local.embedded import EmbeddedServer
from rmos_shared.ids import explain_job_id, new_uuid7
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.model import Job
from rmos_shared.jobs.notifications import Taken
from rmos_shared.jobs.work import Lease
from rmos_shared.settings.broker import BrokerSettings
from rmos_shared.tasks.table import CREATE, CREATE_MANY, QUEUES, SUGGEST, TASKS, TaskSpec
from support.malformed import EDITS, KINDS, make, notification_of, pack


@pytest.fixture(scope="module")
def ledger(server: EmbeddedServer) -> Iterator[JobLedger]:
    url = f"{server.url.removesuffix('/0')}/9"  # no other test's database
    connected = JobLedger.connect(BrokerSettings.load(broker_url=url))
    connected._client.flushdb()
    yield connected
    connected._client.flushdb()
    connected.close()


@pytest.fixture(autouse=True)
def _clean_queues(ledger: JobLedger) -> None:
    for queue in QUEUES:
        ledger._client.delete(queue)


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
    taken = ledger.notifications.take(spec.queue)
    assert taken
    assert taken.notification
    # Named like its first job, so that Flower finds it by that.
    assert as_celery_reads_it(taken.notification) == (spec.name, job_ids[0], job_ids)
    assert ledger.notifications.take(spec.queue) is None


def test_notifications_are_shared_by_as_many_jobs_as_their_task_allows(ledger: JobLedger) -> None:
    many, single = [new_uuid7() for _ in range(250)], new_uuid7()
    accept(ledger, CREATE_MANY, *many)
    accept(ledger, CREATE, single)
    found = []
    while taken := ledger.notifications.take(*QUEUES):
        assert taken.notification
        found.append(as_celery_reads_it(taken.notification)[2])
    assert sorted(map(len, found)) == [1, 50, 100, 100]
    assert [job_id for ids in found for job_id in ids if len(ids) > 1] == many


def test_a_notification_notified_again_has_an_id_of_its_own(ledger: JobLedger) -> None:
    # Celery drops a second message of an id that was revoked.
    job_id = explain_job_id(new_uuid7())
    accept(ledger, SUGGEST, job_id)
    names = set()
    for _ in range(4):
        taken = ledger.notifications.take(SUGGEST.queue)
        assert taken
        assert taken.notification
        _, name, job_ids = as_celery_reads_it(taken.notification)
        assert job_ids == [job_id]
        names.add(name)
        ledger.notifications.notify_again([job_id])
    assert len(names) == 4
    ledger.notifications.take(SUGGEST.queue)


@pytest.mark.parametrize("kind", KINDS)
def test_anything_else_is_kept_verbatim(ledger: JobLedger, good: bytes, kind: str) -> None:
    item = make(kind, good)
    assert item != good
    ledger._client.lpush(CREATE.queue, item)
    taken = ledger.notifications.take(CREATE.queue)
    assert taken
    assert taken.notification is None
    assert taken.reason == ("unknown_job" if kind == "unknown_job" else "malformed_message")
    assert ledger.dead_letters.raw_item(taken.raw_id) == item
    letter = ledger.dead_letters.find_raw(taken.raw_id)
    assert letter
    assert (letter.queue, letter.reason, letter.size_bytes) == (CREATE.queue, taken.reason, len(item))


def test_a_notification_pushed_twice_is_handed_out_twice_and_claimed_once(
    ledger: JobLedger, good: bytes
) -> None:
    ledger._client.lpush(CREATE.queue, good)
    taken = ledger.notifications.take(CREATE.queue)
    assert taken
    assert taken.notification == good


@pytest.mark.parametrize("queue", [name for name in QUEUES if name != CREATE.queue])
def test_a_notification_on_another_queue_is_refused(ledger: JobLedger, good: bytes, queue: str) -> None:
    ledger._client.lpush(queue, good)
    taken = ledger.notifications.take(queue)
    assert taken
    assert (taken.notification, taken.reason) == (None, "malformed_message")


def test_a_job_of_another_task_on_the_same_queue_is_refused(ledger: JobLedger) -> None:
    explain, attach = new_uuid7(), notification_of(ledger, TASKS["runs.attach_advisory"])
    accept(ledger, SUGGEST, explain)
    assert ledger.notifications.take(SUGGEST.queue)
    ledger._client.lpush(
        SUGGEST.queue, attach.replace(json.loads(attach)["headers"]["id"].encode(), explain.encode())
    )
    taken = ledger.notifications.take(SUGGEST.queue)
    assert taken
    assert (taken.notification, taken.reason) == (None, "unknown_job")


# -- joining --------------------------------------------------------------------------------------


def take_joined(ledger: JobLedger, queue: str, most: int) -> list[list[str]]:
    """Take as a worker's channel does; return what each message notifies."""
    words = ledger.notifications.take_command(queue, most=most)
    taken = Taken.read(ledger._client.execute_command(*words))  # type: ignore[no-untyped-call]
    return [as_celery_reads_it(message.notification or b"")[2] for message in taken]


@pytest.fixture
def loaded(ledger: JobLedger) -> JobLedger:
    ledger._script.load()
    return ledger


@pytest.mark.parametrize(
    ("waiting", "most", "sizes"),
    [(1, 2, [1]), (2, 2, [1, 1]), (5, 2, [3, 2]), (30, 1, [25]), (200, 4, [25] * 4)],
)
def test_what_waits_is_joined_and_spread_over_the_hands_that_are_free(
    loaded: JobLedger, waiting: int, most: int, sizes: list[int]
) -> None:
    job_ids = [new_uuid7() for _ in range(waiting)]
    for job_id in job_ids:
        accept(loaded, CREATE, job_id)
    taken = take_joined(loaded, CREATE.queue, most)
    assert [len(ids) for ids in taken] == sizes
    assert [job_id for ids in taken for job_id in ids] == job_ids[: sum(sizes)]
    left = 0
    while message := loaded.notifications.take(CREATE.queue):
        assert message.notification
        left += 1
    assert left == waiting - sum(sizes)


def test_jobs_that_may_not_share_are_never_joined(loaded: JobLedger) -> None:
    for _ in range(4):
        accept(loaded, SUGGEST, new_uuid7())
    assert [len(ids) for ids in take_joined(loaded, SUGGEST.queue, 1)] == [1]


def test_a_job_that_was_started_in_vain_is_done_alone(loaded: JobLedger) -> None:
    job_ids = [new_uuid7() for _ in range(3)]
    accept(loaded, CREATE, *job_ids)
    assert take_joined(loaded, CREATE.queue, 1) == [job_ids]
    lease = Lease("w", "t")
    loaded.work.claim(job_ids, lease, lease_seconds=60)
    loaded.work.retire("w", max_crashes=3)
    fresh = [new_uuid7(), new_uuid7()]
    for job_id in fresh:
        accept(loaded, CREATE, job_id)
    alone = [take_joined(loaded, CREATE.queue, 1) for _ in job_ids]
    assert sorted(alone) == sorted([[job_id]] for job_id in job_ids)
    assert take_joined(loaded, CREATE.queue, 1) == [fresh]


def test_an_older_notification_for_several_starts_none_again_that_was_started_in_vain(
    loaded: JobLedger,
) -> None:
    job_ids = [new_uuid7() for _ in range(3)]
    accept(loaded, CREATE, *job_ids)
    # A worker has this notification in hand, perhaps more than once, while another loses the jobs.
    assert take_joined(loaded, CREATE.queue, 1) == [job_ids]
    loaded.work.claim(job_ids[:2], Lease("w", "t"), lease_seconds=60)
    loaded.work.retire("w", max_crashes=3)
    claims = loaded.work.claim(job_ids, Lease("v", "t"), lease_seconds=60)
    assert [claim.job_id for claim in claims.claimed] == job_ids[2:]
    assert claims.refused == dict.fromkeys(job_ids[:2], "accepted")
    # They were notified alone, and so they are started.
    alone = [take_joined(loaded, CREATE.queue, 1) for _ in range(2)]
    assert sorted(alone) == sorted([[job_id]] for job_id in job_ids[:2])
    for job_id in job_ids[:2]:
        (claim,) = loaded.work.claim([job_id], Lease("v", "u"), lease_seconds=60).claimed
        assert claim.crash_count == 2


def test_a_stray_among_the_notifications_ends_the_joining_and_is_kept(loaded: JobLedger) -> None:
    first, second = new_uuid7(), new_uuid7()
    accept(loaded, CREATE, first)
    loaded._client.lpush(CREATE.queue, b"stray")
    accept(loaded, CREATE, second)
    assert take_joined(loaded, CREATE.queue, 1) == [[first]]
    stray = loaded.notifications.take(CREATE.queue)
    assert stray
    assert loaded.dead_letters.raw_item(stray.raw_id) == b"stray"
    assert take_joined(loaded, CREATE.queue, 1) == [[second]]


def test_a_job_notified_for_twice_is_handed_out_once(loaded: JobLedger) -> None:
    job_ids = [new_uuid7(), new_uuid7()]
    for job_id in job_ids:
        accept(loaded, CREATE, job_id)
    loaded.notifications.notify_again(job_ids)
    assert take_joined(loaded, CREATE.queue, 1) == [job_ids]


# -- whatever else may lie on a queue -------------------------------------------------------------


def spots(value: Any) -> list[tuple[Any, Any]]:
    """Return (container, key or index) of everything inside a JSON value."""
    match value:
        case dict():
            steps: Any = list(value)
        case list():
            steps = range(len(value))
        case _:
            return []
    return [(value, step) for step in steps] + [spot for step in steps for spot in spots(value[step])]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.sampled_from(list(EDITS)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
MUTATIONS = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def assert_kept_or_the_same(ledger: JobLedger, good: bytes, item: bytes) -> None:
    ledger._client.lpush(CREATE.queue, item)
    taken = ledger.notifications.take(CREATE.queue)
    assert taken
    if taken.notification is None:
        assert ledger.dead_letters.raw_item(taken.raw_id) == item
        return
    # What passes notifies the same job: only the number of a later notification may differ.
    assert taken.notification == item
    task, name, job_ids = as_celery_reads_it(item)
    wanted = as_celery_reads_it(good)
    assert (task, job_ids) == (wanted[0], wanted[2])
    assert name == wanted[1] or name.removeprefix(f"{wanted[1]}~").isascii()


@MUTATIONS
@given(data=st.data(), times=st.integers(1, 3))
def test_an_edited_envelope_is_kept(ledger: JobLedger, good: bytes, data: st.DataObject, times: int) -> None:
    envelope = json.loads(good)
    for _ in range(times):
        container, step = data.draw(st.sampled_from(spots(envelope)))
        container[step] = data.draw(VALUES)
    assert_kept_or_the_same(ledger, good, pack(envelope))


@MUTATIONS
@given(data=st.data())
def test_an_edited_body_is_kept(ledger: JobLedger, good: bytes, data: st.DataObject) -> None:
    envelope = json.loads(good)
    content = json.loads(envelope["body"])
    container, step = data.draw(st.sampled_from(spots(content)))
    container[step] = data.draw(VALUES)
    envelope["body"] = json.dumps(content, separators=(",", ":"))
    assert_kept_or_the_same(ledger, good, pack(envelope))


@MUTATIONS
@given(flips=st.dictionaries(st.integers(0, 10_000), st.integers(1, 255), min_size=1, max_size=4))
def test_flipped_bytes_are_kept(ledger: JobLedger, good: bytes, flips: dict[int, int]) -> None:
    item = bytearray(good)
    for place, mask in flips.items():
        item[place % len(item)] ^= mask
    assert_kept_or_the_same(ledger, good, bytes(item))


@MUTATIONS
@given(item=st.binary(max_size=200))
def test_random_bytes_are_kept(ledger: JobLedger, good: bytes, item: bytes) -> None:
    assert_kept_or_the_same(ledger, good, item)


# -- waking ---------------------------------------------------------------------------------------


def test_tokens_are_bounded_and_gone_once_a_queue_was_seen_empty(ledger: JobLedger) -> None:
    tokens = f"rmos:wake:{SUGGEST.queue}"
    accept(ledger, SUGGEST, *(new_uuid7() for _ in range(200)))
    assert ledger._client.llen(tokens) == 64
    while ledger.notifications.take(SUGGEST.queue):
        pass
    assert ledger._client.llen(tokens) == 0
