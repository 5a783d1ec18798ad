"""The stream of events: every change of state is told once, in order, and a gap where some are gone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TypeVar, cast

import fakeredis
import pytest
import redis

from rmos_shared.errors import BrokerUnavailable, InvalidRequest
from rmos_shared.ids import new_uuid7
from rmos_shared.jobs.event_stream import (
    MOST_BLOCK_SECONDS,
    AsyncJobEvents,
    EventState,
    JobEvent,
    JobEvents,
)
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.model import Failure, Job
from rmos_shared.jobs.work import Finish, Lease
from rmos_shared.settings.broker import BrokerSettings
from rmos_shared.tasks.table import CREATE, SUGGEST

LEASE = Lease("w", "1")
FAILURE = Failure(reason="conflict", error_type="X", message="secret of the failure")
PAYLOAD = '{"payload":"secret"}'
T = TypeVar("T")


@pytest.fixture(params=["real", "fake"])
def client(request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    if request.param == "real":
        opened = redis.Redis.from_url(request.getfixturevalue("broker_url"))
    else:
        opened = fakeredis.FakeRedis(server_type="valkey")
    with opened:
        yield opened


@pytest.fixture
def ledger(client: redis.Redis) -> JobLedger:
    return (
        JobLedger(client, script_header="") if isinstance(client, fakeredis.FakeRedis) else JobLedger(client)
    )


@pytest.fixture
def events(client: redis.Redis) -> JobEvents:
    return JobEvents(client)


def make_job(task: str = CREATE.name) -> Job:
    return Job(new_uuid7(), task, f"run{new_uuid7()}", "request", PAYLOAD)


def accept(ledger: JobLedger, amount: int = 1) -> list[Job]:
    jobs = [make_job() for _ in range(amount)]
    ledger.accept(jobs)
    return jobs


def told(events: JobEvents, after: str = "0-0") -> list[tuple[str, str]]:
    return [(event.job_id, event.state.value) for event in events.read(after)]


def entries(client: redis.Redis) -> list[dict[bytes, bytes]]:
    return [
        fields for _, fields in cast("list[tuple[bytes, dict[bytes, bytes]]]", client.xrange("rmos:events"))
    ]


def test_every_change_of_state_is_told_in_order(ledger: JobLedger, events: JobEvents) -> None:
    a, b, c = accept(ledger, 3)
    follower = Job(f"{a.job_id}.explain", SUGGEST.name, a.run_id, None, "{}")
    ledger.work.claim([a.job_id, b.job_id, c.job_id], LEASE, lease_seconds=60)
    ledger.work.finish([Finish(a.job_id, {}, (follower,))], LEASE, ttl_seconds=60)
    ledger.work.finish([Finish(a.job_id, {}, (follower,))], LEASE, ttl_seconds=60)  # a repeat tells nothing
    ledger.work.reschedule(b.job_id, LEASE, delay_seconds=0, spends_retry=True, failure=FAILURE)
    ledger.queues.reconcile(batch=10, grace_seconds=100, max_crashes=3)
    ledger.work.bury(c.job_id, LEASE, failure=FAILURE)
    ledger.dead_letters.replay(c.job_id, by="op", why="x")
    ledger.work.claim([c.job_id], Lease("w", "2"), lease_seconds=60)
    ledger.work.bury(c.job_id, Lease("w", "2"), failure=FAILURE)
    ledger.dead_letters.discard(c.job_id, by="op", why="x")
    ledger.work.claim([b.job_id], Lease("v", "3"), lease_seconds=60)
    ledger.work.retire("v", max_crashes=1)
    assert told(events) == [
        *((job.job_id, "accepted") for job in (a, b, c)),
        *((job.job_id, "running") for job in (a, b, c)),
        (a.job_id, "done"),
        (follower.job_id, "accepted"),
        (b.job_id, "waiting"),
        (b.job_id, "accepted"),
        (c.job_id, "dead"),
        (c.job_id, "accepted"),
        (c.job_id, "running"),
        (c.job_id, "dead"),
        (c.job_id, "discarded"),
        (b.job_id, "running"),
        (b.job_id, "dead"),
    ]


def test_an_event_tells_ids_and_no_payload(ledger: JobLedger, events: JobEvents, client: redis.Redis) -> None:
    (job,) = accept(ledger)
    ledger.work.claim([job.job_id], LEASE, lease_seconds=60)
    ledger.work.bury(job.job_id, LEASE, failure=FAILURE)
    event = events.read("0-0")[-1]
    assert (event.job_id, event.task, event.run_id, event.request_id, event.state) == (
        job.job_id,
        CREATE.name,
        job.run_id,
        "request",
        EventState.DEAD,
    )
    assert abs((event.at_utc - ledger.get(job.job_id).changed_at_utc).total_seconds()) < 1
    assert b"secret" not in b"".join(entry[b"jobs"] for entry in entries(client))


def test_what_happens_without_a_job_is_announced(ledger: JobLedger, events: JobEvents) -> None:
    assert ledger.announce(EventState.REVIEWED, "run1", request_id="r")
    (event,) = events.read("0-0")
    assert (event.job_id, event.task, event.run_id, event.request_id) == ("", "", "run1", "r")
    assert event.state is EventState.REVIEWED


def test_an_announcement_fails_nobody() -> None:
    away = JobLedger.connect(BrokerSettings.load(broker_url="redis://127.0.0.1:1/0"))
    assert not away.announce(EventState.ATTACHED, "run1")


def test_reading_on_after_any_event_tells_exactly_the_rest(ledger: JobLedger, events: JobEvents) -> None:
    accept(ledger, 60)
    accept(ledger, 3)
    everything = events.read("0-0")
    assert len({event.event_id for event in everything}) == len(everything) == 63
    for index, event in enumerate(everything):
        assert events.read(event.event_id) == everything[index + 1 :]
    pages, after = [], "0-0"
    while page := events.read(after, most=7):
        pages += page
        after = page[-1].event_id
    assert pages == everything


def test_position_is_where_the_present_ends(ledger: JobLedger, events: JobEvents) -> None:
    assert events.position() == "0-0"
    accept(ledger, 3)
    after = events.position()
    assert events.read(after) == []
    (job,) = accept(ledger)
    assert told(events, after) == [(job.job_id, "accepted")]


def test_a_reader_is_told_of_a_gap_first(ledger: JobLedger, events: JobEvents, client: redis.Redis) -> None:
    accept(ledger, 2)
    first, last = events.read("0-0")
    kept = [accept(ledger)[0] for _ in range(3)]
    client.xtrim("rmos:events", maxlen=2, approximate=False)
    rest = [(job.job_id, "accepted") for job in kept[1:]]
    for after in (first.event_id, last.event_id, "0-0"):
        assert told(events, after) == [("", "gap"), *rest], after
    # What is kept is no gap, and a page of one makes headway.
    seen, after = [], first.event_id
    while page := events.read(after, most=1):
        seen += page
        after = page[-1].event_id
    assert [event.job_id for event in seen if not event.is_gap] == [job.job_id for job in kept[1:]]


def test_a_stream_made_anew_is_a_gap_too(ledger: JobLedger, events: JobEvents, client: redis.Redis) -> None:
    accept(ledger)
    after = events.position()
    client.delete("rmos:events")
    assert told(events, after) == [("", "gap")]
    (job,) = accept(ledger)
    assert told(events, after) == [("", "gap"), (job.job_id, "accepted")]
    future = f"{int(after.partition('-')[0]) + 10**9}-0"
    assert told(events, future) == [("", "gap"), (job.job_id, "accepted")]


def test_entries_of_other_programs_and_versions_stop_no_reader(
    ledger: JobLedger, events: JobEvents, client: redis.Redis
) -> None:
    accept(ledger)
    after = events.position()
    for _ in range(300):
        client.xadd("rmos:events", {"other": "thing"})
    client.xadd("rmos:events", {"state": "later", "jobs": "a\tb\tc\td"})
    client.xadd("rmos:events", {"state": "done", "jobs": b"\xff\tb\tc"})
    client.xadd("rmos:events", {"state": "gap", "jobs": "a\tb\tc\td"})
    assert told(events, after) == []
    (job,) = accept(ledger)
    assert told(events, after) == [(job.job_id, "accepted")]
    client.xadd("rmos:events", {"state": "done", "jobs": b"\xff\tb\tc\t"}, id=f"{2**64 - 1}-5")
    assert events.read(after)[-1].job_id == "\ufffd"


def test_the_stream_is_bounded(ledger: JobLedger, client: redis.Redis) -> None:
    for _ in range(110):
        with client.pipeline(transaction=False) as pipe:
            for _ in range(100):
                pipe.xadd("rmos:events", {"state": "done", "jobs": "a\tb\tc\td"})
            pipe.execute()
    accept(ledger, 26)
    assert 10_000 <= client.xlen("rmos:events") <= 10_100
    assert [entry[b"jobs"].count(b"\n") + 1 for entry in entries(client)[-2:]] == [25, 1]


@pytest.mark.parametrize("broken", ["wrong type", "exhausted"])
def test_a_damaged_stream_stops_no_job_and_is_made_anew(
    ledger: JobLedger, events: JobEvents, client: redis.Redis, broken: str
) -> None:
    if isinstance(client, fakeredis.FakeRedis) and broken == "exhausted":
        pytest.skip("fakeredis does not count ids to their end")
    accept(ledger)
    after = events.position()
    if broken == "wrong type":
        client.delete("rmos:events")
        client.set("rmos:events", "garbage")
    else:
        client.xadd("rmos:events", {"a": "b"}, id=f"{2**64 - 1}-{2**64 - 1}")
    (job,) = accept(ledger)
    assert ledger.stats().invariant
    assert told(events, after) == [("", "gap"), (job.job_id, "accepted")]


@pytest.mark.parametrize(
    "after", ["", "nope", "1", "1-", "-1", "1-1.", "1-2-3", f"{2**64}-0", "\u0661-\u0662", "1-1\n"]
)
def test_an_id_that_is_none_is_refused(events: JobEvents, after: str) -> None:
    with pytest.raises(InvalidRequest, match="event_id"):
        events.read(after)


# Many followers in one loop


def in_loop(url: str, body: Callable[[AsyncJobEvents], Awaitable[T]], **options: int) -> T:
    async def run() -> T:
        stream = AsyncJobEvents.connect(BrokerSettings.load(broker_url=url))
        if options:
            stream.recent = type(stream.recent)(options["recent"])
        try:
            async with asyncio.timeout(60):
                return await body(stream)
        finally:
            await stream.close()

    return asyncio.run(run())


async def first(source: AsyncIterator[JobEvent], amount: int) -> list[JobEvent]:
    found: list[JobEvent] = []
    async for event in source:
        found.append(event)
        if len(found) == amount:
            break
    return found


@pytest.mark.parametrize("recent", [1, 4_096])
def test_followers_see_every_event_once_whenever_they_begin(broker_url: str, recent: int) -> None:
    with redis.Redis.from_url(broker_url) as client:
        ledger = JobLedger(client)
        accept(ledger, 30)

        async def body(stream: AsyncJobEvents) -> None:
            late = [asyncio.create_task(first(stream.follow("0-0"), 230)) for _ in range(20)]
            for turn in range(20):
                await asyncio.to_thread(accept, ledger, 10)
                late.append(asyncio.create_task(first(stream.follow("0-0"), 230)))
                if turn % 5 == 0:
                    await asyncio.sleep(0)
            seen = await asyncio.gather(*late)
            expected = JobEvents(client).read("0-0")
            assert len(expected) == 230
            assert all(events == expected for events in seen)

        in_loop(broker_url, body, recent=recent)


def test_a_follower_hears_from_now_on(broker_url: str) -> None:
    with redis.Redis.from_url(broker_url) as client:
        ledger = JobLedger(client)
        accept(ledger, 5)

        async def body(stream: AsyncJobEvents) -> None:
            followers = [await stream.follower() for _ in range(50)]
            assert [await follower.batch(0.01) for follower in followers] == [[]] * 50
            waiting = [asyncio.create_task(follower.batch(30)) for follower in followers]
            (job,) = await asyncio.to_thread(accept, ledger)
            for events in await asyncio.gather(*waiting):
                assert [event.job_id for event in events] == [job.job_id]
            # One connection waits for all of them.
            blocked = int(client.info("clients")["blocked_clients"])
            assert blocked <= 1

        in_loop(broker_url, body)


def test_a_follower_is_told_of_a_gap_first_and_once(broker_url: str) -> None:
    with redis.Redis.from_url(broker_url) as client:
        ledger = JobLedger(client)
        accept(ledger)
        after = JobEvents(client).position()

        async def body(stream: AsyncJobEvents) -> None:
            live = await stream.follower()
            assert await live.batch(0.01) == []
            client.delete("rmos:events")
            (job,) = await asyncio.to_thread(accept, ledger)
            behind = await stream.follower(after)
            for follower in (live, behind):
                seen: list[JobEvent] = []
                while not any(event.job_id == job.job_id for event in seen):
                    seen += await follower.batch(30)
                assert [event.state.value for event in seen] == ["gap", "accepted"]
                assert await follower.batch(0.01) == []

        in_loop(broker_url, body)


def test_followers_end_when_the_stream_is_closed(broker_url: str) -> None:
    async def body(stream: AsyncJobEvents) -> None:
        waiting = [asyncio.create_task(first(stream.follow(), 1)) for _ in range(10)]
        await asyncio.sleep(0.05)
        await stream.close()
        assert await asyncio.gather(*waiting) == [[]] * 10

    in_loop(broker_url, body)


def test_a_stream_that_is_only_starting_is_closed_at_once(broker_url: str) -> None:
    """A client that is connecting may swallow that it was cancelled."""

    async def body(stream: AsyncJobEvents) -> float:
        waiting = [asyncio.create_task(first(stream.follow(), 1)) for _ in range(10)]
        await asyncio.sleep(next(delays) % 100 * 0.000_2)
        began = time.monotonic()
        await stream.close()
        assert await asyncio.gather(*waiting) == [[]] * 10
        return time.monotonic() - began

    delays = iter(range(300))
    assert max(in_loop(broker_url, body) for _ in range(300)) < MOST_BLOCK_SECONDS / 2


def test_a_follower_without_a_broker_is_told_in_time() -> None:
    async def body(stream: AsyncJobEvents) -> None:
        with pytest.raises(BrokerUnavailable):
            await stream.follower()

    in_loop("redis://127.0.0.1:1/0", body)
