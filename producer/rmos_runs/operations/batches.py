"""What an operator does with batches of re-explanations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rmos_shared.advisories.engine import BUILT_IN, Engine
from rmos_shared.batches.candidates import Candidates, Fate, version_of
from rmos_shared.batches.choice import RunChoice
from rmos_shared.batches.record import BatchRecord, BatchSpec
from rmos_shared.batches.report import BatchReport, BatchReports
from rmos_shared.errors import BatchNotFound
from rmos_shared.ids import new_uuid7, page_job_id, report_job_id
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.model import JobState
from rmos_shared.store.base import ArtifactStore

#: Runs that a preview names.
SAMPLE = 10


@dataclass(slots=True)
class Preview:
    """What a batch would do now; nothing is written to find out."""

    #: By the names of ``Fate``.
    counts: Counter[str] = field(default_factory=Counter)
    #: The first runs that are meant, newest day first.
    sample: list[str] = field(default_factory=list)
    #: Whether the limit ended it before the last run.
    limited: bool = False

    def dump(self) -> dict[str, Any]:
        """Return it as JSON-ready types."""
        counts = {fate.value: self.counts[fate.value] for fate in Fate}
        return {"dry_run": True, **counts, "limited": self.limited, "sample": self.sample}


def preview(
    store: ArtifactStore, ledger: JobLedger, choice: RunChoice, limit: int | None, engine: Engine = BUILT_IN
) -> Preview:
    """Return what a batch of this choice would do now, counted as its own pages would; reads every run.

    Raises:
        InvalidRequest: the choice names no version of an engine where it should.
        StoreUnavailable: the store is away.
        BrokerUnavailable: the ledger cannot say what is under way.
    """
    found = Preview()
    for candidate in Candidates(store, ledger, engine).walk(choice):
        if limit is not None and found.counts[Fate.MEANT.value] >= limit:
            found.limited = True
            break
        found.counts[candidate.fate.value] += 1
        if candidate.fate is Fate.MEANT and candidate.run_id and len(found.sample) < SAMPLE:
            found.sample.append(candidate.run_id)
    return found


def open_batch(ledger: JobLedger, spec: BatchSpec) -> str:
    """Open a batch and return its id; the workers plan and do it.

    Raises:
        InvalidRequest: see ``preview``; no batch is opened.
        BrokerUnavailable: nobody knows if it was opened; `rmos batches list` tells once the broker is back.
    """
    version_of(spec.choice)
    batch_id = new_uuid7()
    ledger.batches.open(batch_id, spec)
    return batch_id


def dead_job_of(ledger: JobLedger, batch: BatchRecord) -> str | None:
    """Return the dead job for which a batch stands still, if there is one: a page of it, or its report."""
    if batch.state.ended:
        return None
    waits_for = (page_job_id(batch.batch_id, batch.pages), report_job_id(batch.batch_id))
    jobs = (ledger.find(job_id) for job_id in waits_for)
    return next((job.job_id for job in jobs if job is not None and job.state is JobState.DEAD), None)


def find_batch(
    ledger: JobLedger, store: Callable[[], ArtifactStore], batch_id: str
) -> tuple[BatchRecord | None, BatchReport | None]:
    """Return what the ledger has of a batch, and its report; the report stays when the ledger is lost.

    The store is opened only where there may be a report: it may be away while the batch is under way.

    Raises:
        BatchNotFound: there is neither.
        CorruptArtifact: there is a report, and it cannot be read.
    """
    record = ledger.batches.find(batch_id)
    report = BatchReports(store()).find(batch_id) if record is None or record.state.ended else None
    if record is None and report is None:
        raise BatchNotFound(batch_id)
    return record, report
