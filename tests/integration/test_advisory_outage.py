"""An advisory store that nobody reaches: what that costs, what is told, and how soon the jobs are done."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import pytest
import redis

from rmos_runs.client import RunsClient
from rmos_shared.ids import new_uuid7
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.model import Failure, Job, JobRecord, JobState
from rmos_shared.jobs.work import Lease
from rmos_shared.tasks.table import CREATE, SUGGEST
from rmos_worker.advisories.breaker import Reading
from rmos_worker.engine.reconciler import brought_forward
from support.http_server import Call, HttpServer, answer, stores
from support.worker import StartWorker, Worker

JOBS = 200
#: As shipped, but for the breaker's own time, for which these tests wait.
DEFAULTS = {"retry_base_seconds": 2, "retry_cap_seconds": 900, "reconcile_seconds": 0.2}
FAILURE = Failure(reason="breaker_open", error_type="X", message="x")
LEASE = Lease("w", "1")
FAR_MS = 522_000
#: Gives every waiting job the time of its own that a long outage leads to.
ALL_FAR_OFF = """
local clock = redis.call('TIME')
local due = clock[1] * 1000 + ARGV[1]
local ids = redis.call('ZRANGE', 'rmos:waiting', 0, -1)
for _, id in ipairs(ids) do
  redis.call('ZADD', 'rmos:waiting', due, id)
  redis.call('HSET', 'rmos:job:' .. id, 'due_at', due)
end
return #ids
"""
Eventually = Callable[..., None]


class Store(Protocol):
    """The advisory store fixture, as far as these tests use it."""

    url: str

    def start(self) -> None: ...
    def stop(self) -> None: ...


def told(worker: Worker) -> list[dict[str, Any]]:
    return [json.loads(line) for line in worker.log.read_text().splitlines() if line.startswith("{")]


def suggestions(ledger: JobLedger) -> Iterator[JobRecord]:
    return (record for record in ledger.jobs() if record.task == SUGGEST.name)


@pytest.fixture
def stored_runs(
    runs_client: RunsClient, start_worker: StartWorker, sample_requests: list[dict[str, Any]]
) -> list[str]:
    """Runs that are stored and not explained."""
    worker = start_worker("threads", 2)
    requests = [{**request, "run_id": new_uuid7()} for request in sample_requests[:JOBS]]
    receipts = list(runs_client.create_runs(requests))
    assert all(runs_client.wait(receipt.job_id, 30).state is JobState.DONE for receipt in receipts)
    worker.stop()
    return [receipt.run_id for receipt in receipts]


def test_an_outage_is_told_twice_and_over_at_once(
    *,
    stored_runs: list[str],
    advisory_store: Callable[..., Store],
    start_worker: StartWorker,
    runs_client: RunsClient,
    redis_client: redis.Redis,
    ledger: JobLedger,
    eventually: Eventually,
) -> None:
    store = advisory_store()
    store.stop()
    worker = start_worker("threads", 8, advisory_url=store.url, breaker_open_seconds=0.5, **DEFAULTS)
    before = len(told(worker))
    for run_id in stored_runs:
        runs_client.suggest_and_attach(run_id)

    def probes() -> int:
        return int(redis_client.get("rmos:breaker:advisory:failures") or 0) - 5

    eventually(lambda: ledger.stats().waiting == JOBS and probes() >= 2, 40, told=ledger.stats)
    eventually(lambda: probes() >= 3, 40)
    assert ledger.stats().dead == 0
    lines = told(worker)[before:]
    # The first calls that failed, one for each thread at most, and the outage. Nothing for each of 200 jobs.
    assert len(lines) <= 5 + 2 * 8, "\n".join(map(str, lines))
    (begun,) = [line for line in lines if line["level"] == "error"]
    assert begun["event"] == "advisory_store.unreachable"
    assert begun["error"] == "ADVISORY_UNAVAILABLE"
    waiting = [record for record in suggestions(ledger) if record.failure]
    reasons = {record.failure.reason for record in waiting if record.failure}
    assert reasons <= {"breaker_open", "advisory_unavailable"}
    assert sum(record.retry_count for record in waiting) <= 5 + 8, "an outage costs no tries"

    # Hours later each of them waits for its own time, and nobody but the reconciler finds the store back.
    assert redis_client.eval(ALL_FAR_OFF, 0, FAR_MS)
    store.start()
    eventually(lambda: ledger.stats().pending == 0, 30, told=ledger.stats)
    stats = ledger.stats()
    assert (stats.done, stats.dead, stats.invariant) == (2 * JOBS, 0, True)
    (ended,) = [line for line in told(worker) if line["event"] == "advisory_store.back"]
    assert ended["outage_seconds"] > 0
    assert sum(line["event"] == begun["event"] for line in told(worker)) == 1


def test_a_store_that_asks_for_years_is_asked_again_once_it_answers(
    *,
    stored_runs: list[str],
    start_worker: StartWorker,
    runs_client: RunsClient,
    ledger: JobLedger,
    eventually: Eventually,
) -> None:
    well = False

    def act(call: Call) -> None:
        (stores if well else answer(429, Retry_After="1000000000"))(call)

    with HttpServer(act) as server:
        start_worker("threads", 4, advisory_url=server.url, breaker_open_seconds=0.3, **DEFAULTS)
        for run_id in stored_runs[:20]:
            runs_client.suggest_and_attach(run_id)
        eventually(lambda: ledger.stats().waiting == 20, 30, told=ledger.stats)
        longest = max(record.due_at_utc for record in suggestions(ledger) if record.due_at_utc)
        now, _ = ledger._client.time()
        assert longest.timestamp() - now <= 901, "within our own cap"
        well = True
        eventually(lambda: ledger.stats().pending == 0, 20, told=ledger.stats)
    assert ledger.stats().dead == 0


@pytest.mark.parametrize("status", [301, 302, 401, 403, 404, 405])
def test_an_operators_mistake_buries_no_job_and_is_told_loudly(
    *,
    status: int,
    stored_runs: list[str],
    start_worker: StartWorker,
    runs_client: RunsClient,
    ledger: JobLedger,
    eventually: Eventually,
) -> None:
    repaired = False

    def act(call: Call) -> None:
        (stores if repaired else answer(status, b'{"said":"by-the-store"}', Location="/elsewhere"))(call)

    with HttpServer(act) as server:
        worker = start_worker("threads", 4, advisory_url=server.url, breaker_open_seconds=0.3, **DEFAULTS)
        for run_id in stored_runs[:10]:
            runs_client.suggest_and_attach(run_id)
        eventually(lambda: ledger.stats().waiting == 10, 20, told=ledger.stats)
        assert {record.retry_count for record in suggestions(ledger)} == {0}
        eventually(lambda: any(line["level"] == "error" for line in told(worker)), 10)
        (loud,) = [line for line in told(worker) if line["level"] == "error"]
        assert loud["error"] == "ADVISORY_MISCONFIGURED"
        assert f"status {status}" in loud["reason"]
        assert "RMOS_ADVISORY_" in loud["reason"]
        assert "by-the-store" not in worker.log.read_text()
        repaired = True
        eventually(lambda: ledger.stats().pending == 0, 20, told=ledger.stats)
    assert ledger.stats().dead == 0


# -- bringing forward -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reading", "expected"),
    [
        (Reading(open=False, holds=False, ended_ms=0), None),
        (Reading(open=False, holds=False, ended_ms=5), (500, 10_005)),
        (Reading(open=True, holds=True, ended_ms=5), None),
        (Reading(open=True, holds=False, ended_ms=5), (1, None)),
    ],
)
def test_who_is_brought_forward(reading: Reading, expected: tuple[int, int | None] | None) -> None:
    assert brought_forward(reading, batch=500) == expected


def put_off(ledger: JobLedger, *, held: bool, delay_seconds: float = 600) -> str:
    job = Job(job_id=new_uuid7(), task=CREATE.name, run_id=new_uuid7(), request_id=None, payload="{}")
    ledger.accept([job])
    ledger.work.claim([job.job_id], LEASE, lease_seconds=60)
    ledger.work.reschedule(
        job.job_id, LEASE, delay_seconds=delay_seconds, spends_retry=False, failure=FAILURE, held=held
    )
    return job.job_id


def due(ledger: JobLedger) -> set[str]:
    ledger.queues.reconcile(batch=100, grace_seconds=60, max_crashes=3)
    return {record.job_id for record in ledger.jobs() if record.state is JobState.ACCEPTED}


def test_only_what_waits_for_the_store_is_brought_forward_the_longest_first(ledger: JobLedger) -> None:
    put_off(ledger, held=False)
    held = [put_off(ledger, held=True) for _ in range(5)]
    assert ledger.work.bring_forward(most=2) == 2
    assert due(ledger) == set(held[:2])
    assert ledger.work.bring_forward(most=100) == 3
    assert due(ledger) == set(held)
    assert ledger.work.bring_forward(most=100) == 0
    assert ledger._client.exists("rmos:held") == 0
    assert ledger.stats().waiting == 1
    assert ledger.stats().invariant


def test_what_was_put_off_later_is_left_alone(ledger: JobLedger) -> None:
    held = put_off(ledger, held=True)
    changed = int(ledger.get(held).changed_at_utc.timestamp() * 1000)
    assert ledger.work.bring_forward(most=100, put_off_by_ms=changed - 1_000) == 0
    assert ledger.work.bring_forward(most=100, put_off_by_ms=changed + 1_000) == 1


def test_what_moved_on_long_ago_is_forgotten_without_an_outage(ledger: JobLedger) -> None:
    old, new = put_off(ledger, held=True), new_uuid7()
    ledger._client.zadd("rmos:held", {new: 1})
    assert ledger._client.zrange("rmos:held", 0, -1) == [new.encode(), old.encode()]
    youngest = put_off(ledger, held=True)
    assert ledger._client.zrange("rmos:held", 0, -1) == [old.encode(), youngest.encode()]


def test_a_job_that_has_moved_on_is_not_brought_forward(ledger: JobLedger, eventually: Eventually) -> None:
    moved = put_off(ledger, held=True, delay_seconds=0)
    again = Lease("w", "2")
    eventually(lambda: ledger.work.claim([moved], again, lease_seconds=60).claimed)
    assert ledger.work.bring_forward(most=100) == 0
    # Nor once it waits for something else.
    before = ledger.get(moved).changed_at_utc
    eventually(lambda: ledger._client.time()[0] > before.timestamp() + 0.01)
    first = put_off(ledger, held=True, delay_seconds=0)
    eventually(lambda: ledger.work.claim([first], again, lease_seconds=60).claimed)
    ledger.work.reschedule(first, again, delay_seconds=600, spends_retry=False, failure=FAILURE)
    assert ledger.work.bring_forward(most=100) == 0
    assert ledger.get(first).state is JobState.WAITING
