"""A batch over 500 runs on workers that are killed, in the plan and at random: one new link for each run."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from rmos_shared.batches.choice import RunChoice
from rmos_shared.batches.record import BatchSpec, BatchState
from rmos_shared.batches.report import BatchReports
from rmos_shared.ids import new_uuid7, page_job_id
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.runs.model import RunRequest
from rmos_worker.handlers.artifact import artifact_of
from support.batches import TODAY
from support.http_server import HttpServer, stores
from support.runs import Runs
from support.worker import StartWorker, Worker

RUNS = 500
Eventually = Callable[..., None]


def test_a_batch_outlives_workers_killed_in_its_plan_and_at_random(
    *,
    start_worker: StartWorker,
    ledger: JobLedger,
    run_log: Runs,
    sample_requests: list[dict[str, Any]],
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run_ids = [new_uuid7() for _ in range(RUNS)]
    today = [{**request, "run_id": run_id} for request, run_id in zip(sample_requests, run_ids, strict=False)]
    run_log.writer.put_runs([artifact_of(RunRequest.read(request))[0] for request in today])
    seed = random.randrange(10**6)  # noqa: S311 - to kill by
    chance = random.Random(seed)  # noqa: S311

    def opened() -> str:
        batch_id = new_uuid7()
        days = {"date_from": TODAY, "date_to": day_of(run_log)}
        ledger.batches.open(batch_id, BatchSpec(choice=RunChoice.read(days), by="person:ana"))
        return batch_id

    def ended(batch_id: str) -> bool:
        return ledger.batches.get(batch_id).state is BatchState.DONE

    with HttpServer(stores) as advisories:

        def start(version: str, *, wait: bool = False) -> Worker:
            monkeypatch.setenv("ENGINE_VERSION", version)
            return start_worker("threads", 4, app="newer_engine", wait=wait, advisory_url=advisories.url)

        worker = start("1", wait=True)
        first = opened()
        # In the plan itself, unless that is over before anybody sees it.
        page = page_job_id(first, 0)
        eventually(lambda: (job := ledger.find(page)) and job.state in {"running", "done"}, 90)
        worker.kill()
        worker = start("1")
        for share in sorted(chance.random() for _ in range(3)):
            eventually(lambda share=share: ledger.batches.get(first).counts.done >= share * 0.9 * RUNS, 90)
            time.sleep(chance.random() * 0.05)
            worker.kill()
            assert ledger.stats().invariant
            worker = start("1")
        eventually(lambda: ended(first), 120, told=lambda: (seed, ledger.batches.get(first)))

        again = opened()
        eventually(lambda: ended(again), 120, told=lambda: (seed, ledger.batches.get(again)))
        worker.kill()

        # Other words, under another version.
        worker = start("2")
        newer = opened()
        eventually(lambda: ended(newer), 120, told=lambda: (seed, ledger.batches.get(newer)))
        assert "Traceback" not in worker.log.read_text()

    found = Counter(
        (entry.link.run_id, entry.link.engine_version) for entry in run_log.reader.list_links() if entry.link
    )
    assert found == {(run_id, version): 1 for run_id in run_ids for version in "12"}, seed
    for batch_id, jobs in ((first, RUNS), (again, 0), (newer, RUNS)):
        report = BatchReports(run_log.store).find(batch_id)
        assert report is not None
        counts = report.counts
        assert (counts.looked_at, counts.jobs, counts.done, counts.linked) == (RUNS, jobs, jobs, jobs), seed
        assert counts == ledger.batches.get(batch_id).counts
    stats = ledger.stats()
    assert stats.invariant
    # One that seals the log may be under way; there is one at a time.
    assert stats.pending <= 1
    assert stats.accepted == stats.done + stats.pending


def day_of(run_log: Runs) -> str:
    """Return the last day that has runs: midnight may pass while a test runs."""
    return next(entry.artifact.date for entry in run_log.reader.list_runs() if entry.artifact)
