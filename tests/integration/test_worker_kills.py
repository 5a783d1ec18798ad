"""Real workers killed under load, racing clients, a store that goes away: the totals come out right."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import pytest
import redis

from rmos_runs.client import Receipt, RunsClient
from rmos_shared.ids import new_uuid7
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.model import JobState
from rmos_shared.runs.model import ExplanationStatus
from support import spawn
from support.runs import Runs
from support.worker import StartWorker

POOLS = ["prefork", "threads"]
RUNS = 50
Eventually = Callable[..., None]


class Store(Protocol):
    """The advisory store fixture, as far as these tests use it."""

    url: str
    advisory_dir: Path

    def start(self) -> None: ...
    def stop(self) -> None: ...


@pytest.fixture
def store(advisory_store: Callable[..., Store]) -> Store:
    return advisory_store({"latency_ms": 20})


@pytest.fixture
def requests(sample_requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Requests whose run ids are fixed, as a caller's are who may send them again."""
    return [{**request, "run_id": new_uuid7()} for request in sample_requests[:RUNS]]


def files(root: Path) -> Counter[str]:
    """Count the published files by kind; what is still being written lies under ``_`` and does not count."""
    kinds: Counter[str] = Counter()
    for path in root.glob("20*/*"):
        kinds["links" if "_advisory_" in path.name else "artifacts"] += 1
    return kinds


def assets(store: Store) -> int:
    return sum(1 for _ in store.advisory_dir.rglob("*/*.json"))


def enqueue(client: RunsClient, requests: list[dict[str, Any]]) -> list[Receipt]:
    """Half as single jobs, half in bulk."""
    half = len(requests) // 2
    singles = [client.create_run(request, explain=True) for request in requests[:half]]
    return singles + list(client.create_runs(requests[half:], explain=True))


def settled(ledger: JobLedger) -> Callable[[], bool]:
    return lambda: ledger.stats().pending == 0


def some_done(ledger: JobLedger, count: int) -> Callable[[], bool]:
    return lambda: ledger.stats().done >= count


def assert_all_recorded(ledger: JobLedger, run_log: Runs, runs_dir: Path, store: Store) -> None:
    stats = ledger.stats()
    assert stats.invariant
    assert (stats.pending, stats.dead, stats.discarded) == (0, 0, 0), list(ledger.dead_letters.dead())
    assert stats.raw == 0, [(letter.reason, letter.detail) for letter in ledger.dead_letters.raw_letters()]
    assert files(runs_dir) == {"artifacts": RUNS, "links": RUNS}
    assert assets(store) == RUNS
    entries = list(run_log.reader.list_runs())
    assert len({entry.artifact.run_id for entry in entries if entry.artifact}) == RUNS
    assert all(entry.error is None for entry in run_log.reader.list_links())


@pytest.mark.parametrize(
    ("pool", "how"),
    [("prefork", "kill_child"), *((pool, how) for pool in POOLS for how in ("kill_main", "sigterm"))],
)
def test_a_worker_that_ends_under_load_costs_nothing(
    *,
    pool: str,
    how: str,
    start_worker: StartWorker,
    store: Store,
    runs_client: RunsClient,
    ledger: JobLedger,
    run_log: Runs,
    runs_dir: Path,
    requests: list[dict[str, Any]],
    eventually: Eventually,
) -> None:
    worker = start_worker(pool, advisory_url=store.url)
    enqueue(runs_client, requests)
    for count in (15, 60):
        eventually(some_done(ledger, count))
        if how == "kill_child":
            for child in worker.children()[:1]:
                os.kill(child, signal.SIGKILL)
            continue
        if how == "kill_main":
            worker.kill()
        else:
            assert worker.stop() == 0
            # Whatever it held is given back before it ends; nobody has to wait for a lease.
            assert ledger.stats().running == 0
        assert ledger.stats().invariant
        worker = start_worker(pool, advisory_url=store.url)
    eventually(settled(ledger), 60, told=lambda: (ledger.stats(), worker.log.read_text()[-2_000:]))
    assert worker.alive
    assert_all_recorded(ledger, run_log, runs_dir, store)
    assert ledger.stats().done == 2 * RUNS

    # The same requests once more: every job is done, and no file is new.
    before = {path: path.stat().st_mtime_ns for path in runs_dir.glob("20*/*")}
    receipts = enqueue(runs_client, requests)
    eventually(settled(ledger), 60)
    assert ledger.get(receipts[0].job_id).result["outcome"] == "already_same"  # type: ignore[index]
    assert {path: path.stat().st_mtime_ns for path in runs_dir.glob("20*/*")} == before
    assert_all_recorded(ledger, run_log, runs_dir, store)
    assert ledger.stats().done == 4 * RUNS


def test_the_same_requests_sent_by_two_clients_at_once_are_one_set_of_records(
    *,
    start_worker: StartWorker,
    store: Store,
    broker_url: str,
    ledger: JobLedger,
    run_log: Runs,
    runs_dir: Path,
    requests: list[dict[str, Any]],
    eventually: Eventually,
    tmp_path: Path,
) -> None:
    start_worker("prefork", advisory_url=store.url)
    start_worker("threads", advisory_url=store.url)
    lines = tmp_path / "requests.ndjson"
    lines.write_text("\n".join(map(json.dumps, requests)))
    run_clients([SEND_ALL, broker_url, str(lines)], 2)
    eventually(settled(ledger), 60, told=ledger.stats)
    assert_all_recorded(ledger, run_log, runs_dir, store)
    assert ledger.stats().done == 4 * RUNS


SEND_ALL = """
import json, sys
from rmos_runs import RunsClient
with RunsClient.connect(broker_url=sys.argv[1]) as client:
    for line in open(sys.argv[2]):
        client.create_run(json.loads(line), explain=True)
"""
SEND_RIVALS = """
import json, sys
from rmos_runs import RunsClient
with RunsClient.connect(broker_url=sys.argv[1]) as client:
    for line in open(sys.argv[2]):
        request = json.loads(line)
        request["meta"] = {"sender": sys.argv[-1]}
        print(request["run_id"], client.create_run(request).job_id)
"""


def run_clients(arguments: list[str], count: int) -> list[str]:
    """Run client processes at once; each has its number as its last argument."""
    clients = [
        spawn.Popen([sys.executable, "-c", *arguments, str(number)], stdout=subprocess.PIPE, text=True)
        for number in range(count)
    ]
    told = []
    try:
        for client in clients:
            told.append(client.communicate(timeout=60)[0])
            assert client.returncode == 0
    finally:
        for client in clients:
            client.kill()
            client.wait()
    return told


def test_of_two_different_runs_of_one_id_one_wins_and_the_other_is_a_dead_letter(
    *,
    start_worker: StartWorker,
    broker_url: str,
    ledger: JobLedger,
    run_log: Runs,
    runs_dir: Path,
    requests: list[dict[str, Any]],
    eventually: Eventually,
    tmp_path: Path,
) -> None:
    start_worker("prefork")
    start_worker("threads")
    lines = tmp_path / "requests.ndjson"
    lines.write_text("\n".join(map(json.dumps, requests)))
    told = run_clients([SEND_RIVALS, broker_url, str(lines)], 2)
    eventually(settled(ledger), 60, told=ledger.stats)

    jobs = [dict(line.split() for line in text.splitlines()) for text in told]
    for request in requests:
        run_id = request["run_id"]
        rivals = {str(sender): ledger.get(jobs[sender][run_id]) for sender in (0, 1)}
        winner = run_log.reader.get_artifact(run_id).meta["sender"]
        (loser,) = rivals.keys() - {winner}
        assert rivals[winner].state is JobState.DONE
        assert (rivals[winner].result or {})["outcome"] == "created"
        assert rivals[loser].state is JobState.DEAD
        failure = rivals[loser].failure
        assert failure is not None
        assert failure.reason == "conflict"
        # The loser's request is not lost with its race.
        payload = json.loads(ledger.dead_letters.payload(rivals[loser].job_id) or b"")
        assert payload["run"]["meta"] == {"sender": loser}
    assert files(runs_dir) == {"artifacts": 50}
    stats = ledger.stats()
    assert (stats.done, stats.dead, stats.raw) == (50, 50, 0)
    assert stats.invariant


@pytest.mark.parametrize("pool", POOLS)
def test_an_advisory_store_that_goes_away_and_comes_back_costs_only_time(
    *,
    pool: str,
    start_worker: StartWorker,
    store: Store,
    runs_client: RunsClient,
    ledger: JobLedger,
    run_log: Runs,
    runs_dir: Path,
    requests: list[dict[str, Any]],
    eventually: Eventually,
) -> None:
    start_worker(pool, advisory_url=store.url, max_tries=100)
    enqueue(runs_client, requests[: RUNS // 2])
    eventually(lambda: files(runs_dir)["links"] >= 5)
    store.stop()
    enqueue(runs_client, requests[RUNS // 2 :])
    eventually(lambda: files(runs_dir)["artifacts"] == RUNS and ledger.stats().waiting > 0, told=ledger.stats)
    pending = next(
        run_id
        for run_id in (request["run_id"] for request in reversed(requests))
        if not run_log.reader.links(run_id)
    )
    assert run_log.reader.read(pending).explanation_status is ExplanationStatus.PENDING
    store.start()
    eventually(settled(ledger), 60, told=ledger.stats)
    assert_all_recorded(ledger, run_log, runs_dir, store)


@pytest.mark.parametrize("pool", POOLS)
def test_an_advisory_store_that_stays_away_costs_no_run_and_a_replay_repairs_all(
    *,
    pool: str,
    start_worker: StartWorker,
    store: Store,
    runs_client: RunsClient,
    ledger: JobLedger,
    run_log: Runs,
    runs_dir: Path,
    redis_client: redis.Redis,
    requests: list[dict[str, Any]],
    eventually: Eventually,
) -> None:
    store.stop()
    start_worker(pool, advisory_url=store.url, advisory_tries=1, max_tries=2, retry_total_seconds=1.5)
    receipts = enqueue(runs_client, requests)
    eventually(settled(ledger), 60, told=ledger.stats)
    stats = ledger.stats()
    assert (stats.done, stats.dead, stats.raw) == (RUNS, RUNS, 0)
    assert stats.invariant
    assert files(runs_dir) == {"artifacts": RUNS}
    dead = list(ledger.dead_letters.dead())
    assert {record.job_id for record in dead} == {receipt.explain_job_id for receipt in receipts}
    assert {record.failure.reason for record in dead if record.failure} == {"retries_exhausted"}
    assert redis_client.llen("runs.dead_letter") == RUNS
    for request in requests:
        run = run_log.reader.read(request["run_id"])
        assert run.explanation_status is ExplanationStatus.ERROR
        assert "retries_exhausted" in (run.explanation_summary or "")

    store.start()
    for record in dead:
        ledger.dead_letters.replay(record.job_id, by="operator", why="the store is back")
    # On its way again, or there already: the workers do not wait for us.
    status = run_log.reader.read(requests[-1]["run_id"]).explanation_status
    assert status in {ExplanationStatus.PENDING, ExplanationStatus.READY}
    eventually(settled(ledger), 60, told=ledger.stats)
    assert_all_recorded(ledger, run_log, runs_dir, store)
    assert redis_client.llen("runs.dead_letter") == 0
    for request in requests:
        assert run_log.reader.read(request["run_id"]).explanation_status is ExplanationStatus.READY
