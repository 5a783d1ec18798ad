"""``batches.plan``: look through a page of a batch's runs, and have those explained that it means."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from rmos_shared.advisories.engine import Engine
from rmos_shared.batches.candidates import Candidate, Candidates, Fate
from rmos_shared.ids import reexplain_job_id
from rmos_shared.jobs.model import Failure, Job
from rmos_shared.jobs.work import Claim, Finish
from rmos_shared.store.publication import Publication
from rmos_shared.tasks.payloads import PlanBatch, ReexplainRun
from rmos_shared.tasks.table import REEXPLAIN
from rmos_worker.handlers.base import each, read_payload

#: Runs that one page looks at, so that none holds a worker long.
PAGE_RUNS = 1_000


@dataclass(slots=True)
class _Page:
    """What a page has come to so far."""

    place: str | None
    counts: Counter[str] = field(default_factory=Counter)
    jobs: list[Job] = field(default_factory=list)


class PlanHandler:
    """Goes through the runs of a batch, newest first, a page a job.

    The step that marks a page done also accepts its jobs and moves the batch on, so a page that is killed
    half-way neither leaves a run out nor counts one twice.
    """

    def __init__(self, candidates: Candidates, engine: Engine, *, page_runs: int = PAGE_RUNS) -> None:
        """Take runs from ``candidates``, which are to be explained by ``engine``."""
        self._candidates = candidates
        self._engine = engine
        self._page_runs = page_runs

    def handle(self, claims: Sequence[Claim]) -> list[Finish | Exception]:
        """Do each page."""
        return each(claims, self._plan)

    def _plan(self, claim: Claim) -> Finish:
        batch = read_payload(claim, PlanBatch)
        page, planned = _Page(batch.after), True
        for candidate in self._candidates.walk(batch.choice, after=batch.after):
            if len(page.jobs) == batch.most_jobs or page.counts["looked_at"] == self._page_runs:
                planned = False
                break
            _add(page, candidate, batch, claim)
        rate = batch.rate_per_second
        result = {
            "batch_id": batch.batch_id,
            "counts": dict(page.counts),
            "jobs": len(page.jobs),
            "place": page.place,
            "planned": planned,
            "pause_ms": 0 if rate is None else math.ceil(1_000 * len(page.jobs) / rate),
            "engine_id": self._engine.engine_id,
            "engine_version": self._engine.engine_version,
        }
        return Finish(claim.job_id, result, tuple(page.jobs))

    def on_dead(self, claim: Claim, failure: Failure) -> Sequence[Publication]:  # noqa: ARG002
        """Record nothing: no run's explanation has failed. The batch waits until the page is replayed."""
        return ()


def _add(page: _Page, candidate: Candidate, batch: PlanBatch, claim: Claim) -> None:
    page.place = candidate.key
    page.counts["looked_at"] += 1
    if candidate.fate is not Fate.MEANT or candidate.run_id is None:
        page.counts[candidate.fate.value] += 1
        return
    payload = ReexplainRun(batch_id=batch.batch_id, run_id=candidate.run_id, detail=candidate.detail)
    page.jobs.append(
        Job(
            job_id=reexplain_job_id(batch.batch_id, candidate.run_id),
            task=REEXPLAIN.name,
            run_id=candidate.run_id,
            request_id=claim.request_id,
            payload=payload.to_json(),
            batch_id=batch.batch_id,
        )
    )
