"""More that is killed: all workers at once, a producer in mid-stream; and how long it takes to repair."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rmos_runs.client import RunsClient
from rmos_shared.ids import new_uuid7
from rmos_shared.jobs.ledger import JobLedger
from support import spawn
from support.http_server import Call, HttpServer, stores
from support.runs import Runs
from support.worker import StartWorker

POOLS = ["prefork", "threads"]
RUNS = 60
#: The promise: no job of a killed process waits longer until it runs elsewhere.
MENDED_SECONDS = 20
#: As delivered; the fixture's own are quicker.
DEFAULTS = {
    "lease_seconds": 10,
    "heartbeat_seconds": 2,
    "reconcile_seconds": 1,
    "notification_grace_seconds": 5,
}
Eventually = Callable[..., None]


@pytest.fixture
def requests(sample_requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**request, "run_id": new_uuid7()} for request in sample_requests[:RUNS]]


def stores_slowly(call: Call) -> None:
    call.stop.wait(0.02)
    stores(call)


def assert_each_is_there_once(ledger: JobLedger, run_log: Runs, run_ids: set[str]) -> None:
    stats = ledger.stats()
    assert stats.invariant
    assert (stats.accepted, stats.pending, stats.raw) == (stats.done, 0, 0), list(ledger.dead_letters.dead())
    entries = list(run_log.reader.list_runs())
    assert [entry.error for entry in entries if entry.error] == []
    assert Counter(entry.artifact.run_id for entry in entries if entry.artifact) == dict.fromkeys(run_ids, 1)
    links = Counter(entry.link.run_id for entry in run_log.reader.list_links() if entry.link)
    assert links == dict.fromkeys(run_ids, 1)


def test_all_workers_killed_at_once_under_load_cost_nothing(
    *,
    start_worker: StartWorker,
    runs_client: RunsClient,
    ledger: JobLedger,
    run_log: Runs,
    requests: list[dict[str, Any]],
    eventually: Eventually,
) -> None:
    with HttpServer(stores_slowly) as advisories:
        workers = [start_worker(pool, wait=False, advisory_url=advisories.url) for pool in POOLS]
        half = RUNS // 2
        for request in requests[:half]:
            runs_client.create_run(request, explain=True)
        list(runs_client.create_runs(requests[half:], explain=True))
        for count in (10, 50):
            eventually(lambda count=count: ledger.stats().done >= count)
            for worker in workers:
                os.kill(worker.pid, signal.SIGKILL)
            for worker in workers:
                worker.kill()
            stats = ledger.stats()
            assert stats.invariant
            assert stats.pending > 0
            workers = [start_worker(pool, wait=False, advisory_url=advisories.url) for pool in POOLS]
        eventually(lambda: ledger.stats().pending == 0, 60, told=ledger.stats)
        assert all(worker.alive for worker in workers)
    assert_each_is_there_once(ledger, run_log, {request["run_id"] for request in requests})
    assert ledger.stats().done == 2 * RUNS


@pytest.mark.parametrize("pool", POOLS)
def test_a_worker_that_is_asked_to_quit_under_load_gives_back_what_it_holds(
    *,
    pool: str,
    start_worker: StartWorker,
    runs_client: RunsClient,
    ledger: JobLedger,
    run_log: Runs,
    requests: list[dict[str, Any]],
    eventually: Eventually,
) -> None:
    quitting = False

    def stuck_when_quitting(call: Call) -> None:
        call.stop.wait(60 if quitting else 0.02)
        stores(call)

    with HttpServer(stuck_when_quitting) as advisories:
        # A thread cannot be ended, so its worker outlasts the call that it is in; a child can.
        seconds = 4 if pool == "threads" else 60
        worker = start_worker(
            pool,
            app="quick_quit",
            advisory_url=advisories.url,
            advisory_timeout_seconds=seconds,
            advisory_total_seconds=seconds,
            lease_seconds=300,  # nobody can have waited for it
        )
        list(runs_client.create_runs(requests, explain=True))
        eventually(lambda: ledger.stats().done >= RUNS + 10)
        quitting = True
        before = len(advisories.calls)
        eventually(lambda: len(advisories.calls) >= before + 2)
        os.kill(worker.pid, signal.SIGQUIT)
        eventually(lambda: not worker.alive, 20, told=lambda: worker.log.read_text()[-2_000:])
        stats = ledger.stats()
        assert stats.invariant
        assert (stats.running, stats.dead) == (0, 0)
        assert stats.pending > 0
        quitting = False
        start_worker(pool, advisory_url=advisories.url)
        eventually(lambda: ledger.stats().pending == 0)
    assert_each_is_there_once(ledger, run_log, {request["run_id"] for request in requests})


SEND = """
import json, sys
from rmos_runs import RunsClient
from rmos_shared.settings.producer import ProducerSettings
settings = ProducerSettings.load(broker_url=sys.argv[1], accept_batch_jobs=7)
with RunsClient.connect(settings) as client:
    requests = (json.loads(line) for line in open(sys.argv[2]))
    for receipt in client.create_runs(requests, explain=True):
        print(receipt.run_id, flush=True)
"""


def test_a_producer_killed_amid_its_stream_has_what_it_has_receipts_for_and_may_send_all_again(
    *,
    start_worker: StartWorker,
    broker_url: str,
    ledger: JobLedger,
    run_log: Runs,
    requests: list[dict[str, Any]],
    eventually: Eventually,
    tmp_path: Path,
) -> None:
    lines = tmp_path / "requests.ndjson"
    lines.write_text("\n".join(map(json.dumps, requests)))
    arguments = [sys.executable, "-c", SEND, broker_url, str(lines)]
    run_ids = {request["run_id"] for request in requests}
    with HttpServer(stores) as advisories:
        start_worker("threads", advisory_url=advisories.url)
        receipts: set[str] = set()
        for count in (3, 17, 35):  # each time from the start again
            with spawn.Popen(arguments, stdout=subprocess.PIPE, text=True) as producer:
                assert producer.stdout
                told = [producer.stdout.readline() for _ in range(count)]
                producer.kill()
                told += producer.stdout.readlines()
            # The last line may be cut off, and is then no receipt.
            receipts |= {line.strip() for line in told if line.endswith("\n")}
            assert len(told) < RUNS, "it was killed too late to tell"
        eventually(lambda: ledger.stats().pending == 0)
        stored = {entry.artifact.run_id for entry in run_log.reader.list_runs() if entry.artifact}
        assert receipts <= stored <= run_ids
        assert_each_is_there_once(ledger, run_log, stored)

        spawn.run(arguments, stdout=subprocess.DEVNULL, check=True, timeout=60)
        eventually(lambda: ledger.stats().pending == 0)
    assert_each_is_there_once(ledger, run_log, run_ids)
    again = [job.result for job in ledger.jobs() if job.task == "runs.create_many"]
    outcomes = Counter(result["outcome"] for result in again if result)
    assert outcomes["created"] == RUNS
    assert outcomes["already_same"] >= len(receipts)


@pytest.mark.parametrize(("pool", "whom"), [("threads", "main"), ("prefork", "child")])
def test_with_the_settings_as_delivered_a_killed_process_s_jobs_run_elsewhere_within_20_seconds(
    *,
    pool: str,
    whom: str,
    start_worker: StartWorker,
    runs_client: RunsClient,
    ledger: JobLedger,
    requests: list[dict[str, Any]],
    eventually: Eventually,
) -> None:
    patience = {"advisory_timeout_seconds": 60, "advisory_total_seconds": 60}
    healthy = False

    def hangs_at_first(call: Call) -> None:
        if not healthy:
            call.stop.wait()
        stores(call)

    with HttpServer(hangs_at_first) as advisories:
        busy = start_worker(pool, advisory_url=advisories.url, **DEFAULTS, **patience)
        receipts = [runs_client.create_run(request, explain=True) for request in requests[:2]]
        jobs = [receipt.explain_job_id or "" for receipt in receipts]
        eventually(lambda: len(advisories.calls) == len(jobs))
        healthy = True
        other = start_worker("threads", advisory_url=advisories.url, **DEFAULTS, **patience)
        time.sleep(DEFAULTS["heartbeat_seconds"])  # however long ago it was claimed, the lease is fresh
        assert [ledger.get(job_id).state for job_id in jobs] == ["running"] * len(jobs)
        if whom == "main":
            busy.kill()
        else:
            children = busy.children()
            for child in children:
                os.kill(child, signal.SIGKILL)
        killed = time.monotonic()
        # Running elsewhere is done at once: the store is well by now.
        eventually(lambda: ledger.stats().done == 4, MENDED_SECONDS, told=ledger.stats)
        assert time.monotonic() - killed <= MENDED_SECONDS
        assert [ledger.get(job_id).crash_count for job_id in jobs] == [2, 2]
        assert len(advisories.calls) == 2 * len(jobs)
        assert other.alive
        if whom == "child":
            assert busy.alive
            eventually(lambda: len(set(busy.children()) - set(children)) == len(children))
    assert ledger.stats().invariant
