"""A message lost on its way to a worker: how long its job waits with the settings as shipped."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rmos_runs.client import RunsClient
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.model import JobState
from rmos_shared.settings.worker import WorkerSettings
from support.proxy import Proxy, proxied

#: More by hand: LOST_NOTIFICATIONS=20 shows the spread.
TIMES = int(os.environ.get("LOST_NOTIFICATIONS", "2"))
#: The grace, a round of the reconciler, the worker's new connection, and room for a busy machine.
LONGEST_SECONDS = 15.0
AS_SHIPPED = {
    name: WorkerSettings.model_fields[name].default
    for name in ("heartbeat_seconds", "lease_seconds", "reconcile_seconds", "notification_grace_seconds")
}


@pytest.fixture
def line(broker_url: str) -> Iterator[Proxy]:
    with proxied(broker_url) as proxy:
        yield proxy


@pytest.mark.timeout(60 + 20 * TIMES)
def test_a_job_whose_message_is_lost_runs_within_seconds(
    *,
    line: Proxy,
    start_worker: Callable[..., Any],
    runs_client: RunsClient,
    ledger: JobLedger,
    sample_requests: list[dict[str, Any]],
    record_property: Callable[[str, object], None],
) -> None:
    worker = start_worker("threads", 2, broker_url=f"redis://127.0.0.1:{line.port}/0", **AS_SHIPPED)
    waits = []
    for request in sample_requests[:TIMES]:
        # The server hands the message out, and the answer never arrives.
        line.cut_before_answer(1, only=b"\r\ntake\r\n")
        began = time.monotonic()
        receipt = runs_client.create_run(request)
        assert runs_client.wait(receipt.job_id, LONGEST_SECONDS).state is JobState.DONE
        waits.append(round(time.monotonic() - began, 1))
    record_property("seconds", waits)
    print(waits)  # noqa: T201 - shown by pytest -s, for the documents
    assert worker.alive
    assert ledger.stats().invariant
