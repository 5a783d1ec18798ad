"""Workers whose clocks are a day off: leases and delays go by the server's clock, so nobody is robbed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import pytest

from rmos_runs.client import Receipt, RunsClient
from rmos_shared.ids import new_uuid7
from rmos_shared.jobs.ledger import JobLedger
from support.runs import Runs
from support.worker import Worker

DAY = timedelta(days=1)
LEASE_SECONDS = 1.0
Eventually = Callable[..., None]


class Store(Protocol):
    """The advisory store fixture, as far as these tests use it."""

    url: str

    def faults(self, **switches: float) -> None: ...


@pytest.fixture
def store(advisory_store: Callable[..., Store]) -> Store:
    return advisory_store()


@pytest.fixture
def start_shifted(
    start_worker: Callable[..., Worker], store: Store, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Worker]:
    """Start a worker whose clock is ahead by so much, or behind."""

    def start(shift: timedelta, pool: str = "threads", **settings: Any) -> Worker:
        monkeypatch.setenv("SHIFT_CLOCK_SECONDS", str(shift.total_seconds()))
        try:
            return start_worker(pool, 4, advisory_url=store.url, lease_seconds=LEASE_SECONDS, **settings)
        finally:
            monkeypatch.delenv("SHIFT_CLOCK_SECONDS")

    return start


def enqueue(client: RunsClient, requests: list[dict[str, Any]]) -> list[Receipt]:
    return [client.create_run({**each, "run_id": new_uuid7()}, explain=True) for each in requests]


def test_jobs_of_healthy_workers_are_done_once_however_wrong_their_clocks_are(
    *,
    start_shifted: Callable[..., Worker],
    store: Store,
    runs_client: RunsClient,
    ledger: JobLedger,
    run_log: Runs,
    sample_requests: list[dict[str, Any]],
    eventually: Eventually,
) -> None:
    workers = [start_shifted(DAY, "prefork"), start_shifted(-DAY)]
    # Each takes longer than a lease: whoever took a heartbeat of yesterday for silence would take the job.
    store.faults(latency_ms=int(LEASE_SECONDS * 2_000))
    receipts = enqueue(runs_client, sample_requests[:8])
    eventually(lambda: ledger.stats().pending == 0, told=ledger.stats)
    assert all(worker.alive for worker in workers)
    for receipt in receipts:
        for job_id in (receipt.job_id, receipt.explain_job_id or ""):
            record = ledger.get(job_id)
            assert (record.state, record.crash_count, record.retry_count) == ("done", 1, 0)
    stats = ledger.stats()
    assert (stats.accepted, stats.done, stats.invariant) == (16, 16, True)
    # Their clocks were wrong, as what they wrote shows, and each has done its share.
    links = [entry.link for entry in run_log.reader.list_links() if entry.link]
    assert len(links) == 8
    now = datetime.now(UTC)
    assert {round((link.created_at_utc - now) / DAY) for link in links} == {1, -1}


@pytest.mark.parametrize("shift", [DAY, -DAY], ids=["ahead", "behind"])
def test_a_job_that_was_put_off_comes_back_when_it_is_due(
    *,
    shift: timedelta,
    start_shifted: Callable[..., Worker],
    store: Store,
    runs_client: RunsClient,
    ledger: JobLedger,
    sample_requests: list[dict[str, Any]],
    eventually: Eventually,
) -> None:
    start_shifted(shift, retry_cap_seconds=10, advisory_tries=1)
    store.faults(rate_429=1, retry_after_seconds=2)
    (receipt,) = enqueue(runs_client, sample_requests[:1])
    job_id = receipt.explain_job_id or ""
    eventually(lambda: (record := ledger.find(job_id)) and record.state == "waiting")
    store.faults()
    waiting = ledger.get(job_id)
    assert waiting.due_at_utc is not None
    delay = waiting.due_at_utc - waiting.changed_at_utc
    assert timedelta(seconds=2) <= delay < timedelta(seconds=3)
    assert abs(waiting.due_at_utc - datetime.now(UTC)) < timedelta(seconds=30), "by the server's clock"
    done = runs_client.wait(job_id, 20)
    assert (done.state, done.retry_count) == ("done", 1)
    assert timedelta(0) <= done.changed_at_utc - waiting.due_at_utc < timedelta(seconds=5)


@pytest.mark.parametrize("shift", [DAY, -DAY], ids=["ahead", "behind"])
def test_a_killed_workers_jobs_run_elsewhere_as_soon_as_if_its_clock_were_right(
    *,
    shift: timedelta,
    start_shifted: Callable[..., Worker],
    store: Store,
    runs_client: RunsClient,
    ledger: JobLedger,
    sample_requests: list[dict[str, Any]],
    eventually: Eventually,
) -> None:
    wrong = start_shifted(shift, advisory_timeout_seconds=60, advisory_total_seconds=60)
    store.faults(latency_ms=60_000)
    (receipt,) = enqueue(runs_client, sample_requests[:1])
    job_id = receipt.explain_job_id or ""
    eventually(lambda: (record := ledger.find(job_id)) and record.state == "running")
    right = start_shifted(-shift)
    store.faults()
    record = ledger.get(job_id)
    assert (record.state, record.crash_count) == ("running", 1), "it beats, so its job is its own"
    wrong.kill()
    assert runs_client.wait(job_id, LEASE_SECONDS + 10).state == "done"
    assert right.alive
    assert ledger.stats().invariant
