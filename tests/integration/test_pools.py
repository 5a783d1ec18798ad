"""Celery's pools when they lose a process or cannot have a thread: the jobs get done all the same."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import redis

from rmos_runs.client import RunsClient
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.model import JobState
from support.worker import StartWorker, Worker

REQUEST: dict[str, Any] = {
    "mode": "saw",
    "tool_id": "saw:test",
    "status": "OK",
    "feasibility": {"risk_level": "GREEN"},
    "decision": {"risk_level": "GREEN"},
}
Eventually = Callable[..., None]


def kill_children(worker: Worker) -> int:
    killed = 0
    with suppress(FileNotFoundError):  # the worker itself has ended
        for child in worker.children():
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
                killed += 1
    return killed


def works(client: RunsClient) -> bool:
    return client.wait(client.create_run(REQUEST).job_id, 30).state is JobState.DONE


def test_children_killed_while_the_pool_starts_do_not_end_the_worker(
    start_worker: StartWorker, runs_client: RunsClient, eventually: Eventually
) -> None:
    worker = start_worker("prefork", wait=False)
    killed = 0

    def started() -> bool:
        nonlocal killed
        killed += kill_children(worker)
        return "ready." in worker.log.read_text() or not worker.alive

    eventually(started, 60)
    assert killed
    assert works(runs_client)
    assert worker.alive


def test_children_killed_while_the_connection_is_lost_do_not_end_the_worker(
    start_worker: StartWorker, runs_client: RunsClient, redis_client: redis.Redis, eventually: Eventually
) -> None:
    worker = start_worker("prefork")
    for _ in range(30):
        before = set(worker.children())
        redis_client.client_kill_filter(_type="normal")
        redis_client.client_kill_filter(_type="pubsub")
        kill_children(worker)
        eventually(lambda before=before: not worker.alive or set(worker.children()) - before, 20)
        assert worker.alive, worker.log.read_text()[-3_000:]
    assert works(runs_client)
    assert worker.alive


def test_a_worker_that_can_have_no_thread_ends_as_failed_and_its_jobs_are_done_by_the_next(
    start_worker: StartWorker, runs_client: RunsClient, ledger: JobLedger, eventually: Eventually
) -> None:
    worker = start_worker("threads", 8)
    # Room for a little more memory, and for no further thread's stack.
    told = Path(f"/proc/{worker.pid}/statm").read_text().split()[0]
    room = int(told) * resource.getpagesize() + 1_000_000
    resource.prlimit(worker.pid, resource.RLIMIT_AS, (room, resource.RLIM_INFINITY))
    receipts = [runs_client.create_run(REQUEST) for _ in range(5)]
    eventually(lambda: not worker.alive, 20)
    assert worker.stop() > 0  # so that whoever supervises it starts it again
    start_worker("threads", 8)
    assert all(runs_client.wait(receipt.job_id, 20).state is JobState.DONE for receipt in receipts)
    assert ledger.stats().invariant
