"""No poison loop: a task that ends its process, or tries to, ends dead soon, and blocks nobody."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from rmos_runs import RunsClient
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.model import JobRecord, JobState

#: What ends the process, or asks it to end as a signal would, is a crash loop; the rest is judged by itself.
ENDS = {
    "segfault": "crash_loop",
    "os_exit": "crash_loop",
    "out_of_memory_kill": "crash_loop",
    "hard_limit": "crash_loop",
    "memory_error": "retries_exhausted",
    "sys_exit": "crash_loop",
    "reject": "unexpected_error",
    "ignore": "unexpected_error",
    "keyboard_interrupt": "crash_loop",
    "recursion": "unexpected_error",
}
RAISED = ["memory_error", "sys_exit", "reject", "ignore", "keyboard_interrupt", "recursion"]

pytestmark = pytest.mark.timeout(180)


def enqueue(
    client: RunsClient, request: dict[str, Any], poisons: list[str], good: int
) -> tuple[dict[str, str], list[str]]:
    """Mix poisoned jobs with good ones; return the job of each poison, and the good jobs."""
    poisoned = {
        poison: client.create_run({**request, "meta": {"poison": poison}}).job_id for poison in poisons
    }
    return poisoned, [client.create_run(request).job_id for _ in range(good)]


def check_dead(record: JobRecord, reason: str) -> None:
    assert (record.state, record.failure and record.failure.reason) == (JobState.DEAD, reason), record.failure
    assert record.crash_count <= 3
    assert "secret-in-an-exception" not in record.model_dump_json()


def test_on_prefork_every_poison_ends_dead_and_the_others_go_on(
    start_worker: Callable[..., Any],
    runs_client: RunsClient,
    ledger: JobLedger,
    sample_requests: list[dict[str, Any]],
) -> None:
    worker = start_worker("prefork", 2, app="poisoned", max_crashes=3, max_tries=2)
    poisoned, good = enqueue(runs_client, sample_requests[0], list(ENDS), 30)

    for job_id in good:
        assert runs_client.wait(job_id, 90).state is JobState.DONE
    for poison, job_id in poisoned.items():
        check_dead(runs_client.wait(job_id, 90), ENDS[poison])

    assert worker.alive
    stats = ledger.stats()
    assert (stats.done, stats.dead, stats.pending, stats.invariant) == (30, len(ENDS), 0, True)


@pytest.mark.parametrize("poison", ["os_exit", "reject", "sys_exit"])
def test_a_job_that_ends_badly_takes_none_of_its_group_with_it(
    start_worker: Callable[..., Any],
    runs_client: RunsClient,
    ledger: JobLedger,
    sample_requests: list[dict[str, Any]],
    poison: str,
) -> None:
    poisoned, good = enqueue(runs_client, sample_requests[0], [poison], 20)
    # They wait in line before there is a worker, so it takes them all at once.
    worker = start_worker("prefork", 1, app="poisoned", max_crashes=3)

    for job_id in good:
        record = runs_client.wait(job_id, 60)
        assert record.state is JobState.DONE
        assert record.crash_count <= 2
    check_dead(runs_client.wait(poisoned[poison], 60), ENDS[poison])
    assert worker.alive
    assert ledger.stats().invariant


def test_on_threads_nothing_raised_leaves_its_job_or_costs_a_slot(
    start_worker: Callable[..., Any],
    runs_client: RunsClient,
    ledger: JobLedger,
    sample_requests: list[dict[str, Any]],
) -> None:
    worker = start_worker("threads", 2, app="poisoned", max_crashes=3, max_tries=2)
    # More of each than there are slots: a leaked slot would stop the good jobs behind them.
    poisoned = [enqueue(runs_client, sample_requests[0], RAISED, 0)[0] for _ in range(3)]
    _, good = enqueue(runs_client, sample_requests[0], [], 10)

    for job_id in good:
        assert runs_client.wait(job_id, 60).state is JobState.DONE
    for round_ in poisoned:
        for poison, job_id in round_.items():
            check_dead(runs_client.wait(job_id, 60), ENDS[poison])

    assert worker.alive
    assert ledger.stats().invariant


def test_on_threads_a_job_that_ends_the_whole_worker_ends_dead_too(
    start_worker: Callable[..., Any],
    runs_client: RunsClient,
    ledger: JobLedger,
    sample_requests: list[dict[str, Any]],
    eventually: Callable[..., None],
) -> None:
    poisoned, good = enqueue(runs_client, sample_requests[0], ["segfault"], 5)
    for _ in range(3):
        worker = start_worker("threads", 1, app="poisoned", max_crashes=3, wait=False)
        eventually(lambda worker=worker: not worker.alive, 60)
    start_worker("threads", 1, app="poisoned", max_crashes=3)

    check_dead(runs_client.wait(poisoned["segfault"], 60), "crash_loop")
    for job_id in good:
        assert runs_client.wait(job_id, 60).state is JobState.DONE
    assert ledger.stats().invariant
