"""How many messages a worker has in hand: those it works on, and no more."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import redis

from rmos_runs.client import RunsClient
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.runs.model import RunRequest
from rmos_shared.tasks.table import SUGGEST
from rmos_worker.handlers.artifact import artifact_of
from support.runs import Runs
from support.worker import StartWorker

JOBS, CONCURRENCY = 6, 2


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_what_a_worker_cannot_work_on_yet_is_left_to_others(
    *,
    pool: str,
    start_worker: StartWorker,
    advisory_store: Callable[..., Any],
    runs_client: RunsClient,
    run_log: Runs,
    ledger: JobLedger,
    redis_client: redis.Redis,
    sample_requests: list[dict[str, Any]],
    eventually: Callable[..., None],
) -> None:
    runs = [artifact_of(RunRequest.read(request))[0] for request in sample_requests[:JOBS]]
    run_log.writer.put_runs(runs)
    for run in runs:
        runs_client.suggest_and_attach(run.run_id)
    left = JOBS - CONCURRENCY
    slow = advisory_store({"latency_ms": 600_000})
    start_worker(pool, CONCURRENCY, advisory_url=slow.url, notification_grace_seconds=60)
    eventually(lambda: ledger.stats().running == CONCURRENCY and redis_client.llen(SUGGEST.queue) <= left)
    time.sleep(0.5)
    assert redis_client.llen(SUGGEST.queue) == left
