"""The line to the broker fails under load, in every way that a line can: workers live, nothing is lost."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from rmos_runs.client import RunsClient
from rmos_shared.errors import BrokerUnavailable
from rmos_shared.ids import new_uuid7
from rmos_shared.jobs.ledger import JobLedger
from support.embedded_server import EmbeddedServer
from support.http_server import HttpServer, stores
from support.proxy import Proxy, proxied
from support.runs import Runs
from support.stores import local_store
from support.worker import StartWorker

POOLS = ["prefork", "threads"]
RUNS = 40
Eventually = Callable[..., None]


@pytest.fixture
def line(broker_url: str) -> Iterator[Proxy]:
    """What lies between the worker and the broker; the tests themselves go past it."""
    with proxied(broker_url) as proxy:
        yield proxy


@pytest.fixture
def advisories() -> Iterator[HttpServer]:
    with HttpServer(stores) as server:
        yield server


@pytest.fixture
def requests(sample_requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**request, "run_id": new_uuid7()} for request in sample_requests[:RUNS]]


def cut(line: Proxy, _: redis.Redis) -> None:
    for _turn in range(3):
        assert line.cut() > 0
        time.sleep(0.2)


def cut_before_answers(line: Proxy, _: redis.Redis) -> None:
    """Whatever is asked next is done, and nobody is told."""
    line.cut_before_answer(20)
    deadline = time.monotonic() + 15
    while line.swallowed < 20 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert line.swallowed == 20


def half_open(line: Proxy, _: redis.Redis) -> None:
    """The other side is gone and has not said so; a new connection would be answered."""
    assert line.freeze() > 0


def slow(line: Proxy, _: redis.Redis) -> None:
    line.slow(2.0, each=0.1)
    time.sleep(2.0)


def refused(line: Proxy, _: redis.Redis) -> None:
    assert line.refuse(1.5) > 0
    time.sleep(1.5)


def client_kill(_: Proxy, client: redis.Redis) -> None:
    assert sum(client.client_kill_filter(_type=kind, skipme=True) for kind in ("normal", "pubsub")) > 0


def no_writes(_: Proxy, client: redis.Redis) -> None:
    client.config_set("min-replicas-to-write", 1)
    try:
        time.sleep(1.5)
    finally:
        client.config_set("min-replicas-to-write", 0)


CHEAP = [cut, cut_before_answers, slow, refused, client_kill, no_writes]


def end_of(log: Path) -> str:
    return log.read_text()[-2_000:]


def enqueue(client: RunsClient, requests: list[dict[str, Any]]) -> None:
    half = len(requests) // 2
    for request in requests[:half]:
        client.create_run(request, explain=True)
    list(client.create_runs(requests[half:], explain=True))


def assert_each_is_there_once(ledger: JobLedger, run_log: Runs, run_ids: set[str]) -> None:
    stats = ledger.stats()
    assert stats.invariant
    count = 2 * len(run_ids)  # each run, and its explanation
    assert (stats.accepted, stats.done, stats.pending, stats.raw) == (count, count, 0, 0), list(
        ledger.dead_letters.dead()
    )
    entries = list(run_log.reader.list_runs())
    assert [entry.error for entry in entries] == [None] * len(run_ids)
    assert {entry.artifact.run_id for entry in entries if entry.artifact} == run_ids
    links = Counter(entry.link.run_id for entry in run_log.reader.list_links() if entry.link)
    assert links == dict.fromkeys(run_ids, 1)


@pytest.mark.parametrize(
    ("fault", "pool"),
    # A half-open line takes a while to be found out, in the part of the worker that both pools share.
    [*((fault, pool) for fault in CHEAP for pool in POOLS), (half_open, "threads")],
)
def test_a_line_that_fails_under_load_costs_only_time(
    *,
    pool: str,
    fault: Callable[[Proxy, redis.Redis], None],
    line: Proxy,
    start_worker: StartWorker,
    advisories: HttpServer,
    redis_client: redis.Redis,
    runs_client: RunsClient,
    ledger: JobLedger,
    run_log: Runs,
    requests: list[dict[str, Any]],
    eventually: Eventually,
) -> None:
    worker = start_worker(
        pool,
        broker_url=f"redis://127.0.0.1:{line.port}/0",
        broker_timeout_seconds=2,
        advisory_url=advisories.url,
    )
    processes = {worker.pid, *worker.children()}
    enqueue(runs_client, requests[: RUNS // 2])
    eventually(lambda: ledger.stats().done >= 5)
    enqueue(runs_client, requests[RUNS // 2 :])
    assert ledger.stats().pending > 0
    fault(line, redis_client)
    eventually(lambda: ledger.stats().pending == 0, 45, told=lambda: (ledger.stats(), end_of(worker.log)))
    assert_each_is_there_once(ledger, run_log, {request["run_id"] for request in requests})
    assert worker.alive
    assert {worker.pid, *worker.children()} == processes

    # Not only was nothing lost: it listens on, and comes at once for what is new.
    line.heal()
    receipt = runs_client.create_run({**requests[0], "run_id": new_uuid7()})
    assert runs_client.wait(receipt.job_id, 20).state == "done"


@pytest.mark.parametrize("pool", POOLS)
def test_a_broker_killed_under_load_and_replaced_has_all_that_it_accepted(
    *,
    pool: str,
    start_worker: StartWorker,
    advisories: HttpServer,
    runs_dir: Path,
    requests: list[dict[str, Any]],
    eventually: Eventually,
    tmp_path: Path,
) -> None:
    with EmbeddedServer(tmp_path / "valkey") as server, RunsClient.connect(broker_url=server.url) as client:
        url = server.url
        worker = start_worker(pool, broker_url=url, broker_timeout_seconds=2, advisory_url=advisories.url)
        processes = {worker.pid, *worker.children()}
        producer = Producer(client, requests)
        for count in (5, 20):
            eventually(lambda count=count: len(producer.receipts) >= count)
            server.kill()
            time.sleep(0.3)
            # A new process on the same append-only file, at the address that everybody knows.
            eventually(lambda: started(server))
            assert server.url == url
        producer.join()
        ledger = client.ledger
        eventually(lambda: ledger.stats().pending == 0, 60, told=lambda: (ledger.stats(), end_of(worker.log)))
        for receipt in producer.receipts.values():
            assert ledger.get(receipt).state == "done"
        assert producer.receipts.keys() == {request["run_id"] for request in requests}
        # A call whose answer was lost with the server is made again with a job of its own: the same run.
        stats = ledger.stats()
        assert (stats.accepted, stats.raw, stats.invariant) == (stats.done, 0, True), list(
            ledger.dead_letters.dead()
        )
        run_log = Runs(local_store(runs_dir), ledger)
        stored = Counter(entry.artifact.run_id for entry in run_log.reader.list_runs() if entry.artifact)
        linked = Counter(entry.link.run_id for entry in run_log.reader.list_links() if entry.link)
        assert stored == linked == dict.fromkeys(producer.receipts, 1)
        assert worker.alive
        assert {worker.pid, *worker.children()} == processes


def started(server: EmbeddedServer) -> bool:
    try:
        server.start()
    except (BrokerUnavailable, OSError):  # the port may be held for a moment yet by what was connected to it
        return False
    return True


class Producer:
    """Enqueues in a thread of its own, and makes each call again until it has a receipt."""

    def __init__(self, client: RunsClient, requests: list[dict[str, Any]]) -> None:
        self.receipts: dict[str, str] = {}
        self._client = client
        self._requests = requests
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def join(self) -> None:
        self._thread.join(timeout=60)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        for request in self._requests:
            while request["run_id"] not in self.receipts:
                try:
                    receipt = self._client.create_run(request, explain=True)
                except BrokerUnavailable:
                    time.sleep(0.05)
                else:
                    self.receipts[receipt.run_id] = receipt.job_id
            time.sleep(0.03)
