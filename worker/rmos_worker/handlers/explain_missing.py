"""``runs.explain_missing``: a batch that has old runs explained which nobody has explained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from itertools import islice

from rmos_shared.ids import new_uuid7
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.model import Failure, Job
from rmos_shared.jobs.work import Claim, Finish
from rmos_shared.runs.layout import partition_day, partition_of
from rmos_shared.runs.model import ExplanationStatus, RunArtifact
from rmos_shared.runs.reader import RunReader
from rmos_shared.tasks.payloads import ExplainMissing, SuggestAndAttach
from rmos_shared.tasks.table import EXPLAIN_MISSING, SUGGEST
from rmos_worker.handlers.base import each, read_payload

#: Runs that one job looks at; the rest is for a job that follows, so that no batch holds a worker long.
_PAGE = 500


class ExplainMissingHandler:
    """Goes through the runs of some days, newest first, a page a job.

    The explanation jobs are accepted in the step that marks the page done, so a batch that is killed
    half-way neither loses a run nor asks twice.
    """

    def __init__(self, reader: RunReader, ledger: JobLedger, *, page: int = _PAGE) -> None:
        """Read with ``reader``, and ask ``ledger`` which explanations are under way."""
        self._reader = reader
        self._ledger = ledger
        self._page = page

    def handle(self, claims: Sequence[Claim]) -> list[Finish | Exception]:
        """Do a page of each batch."""
        return each(claims, self._explain_page)

    def _explain_page(self, claim: Claim) -> Finish:
        batch = read_payload(claim, ExplainMissing)
        page = list(islice(self._rest(batch), self._page))
        following = [
            _job(
                SUGGEST.name,
                run.run_id,
                SuggestAndAttach(run_id=run.run_id, request_id=batch.request_id, detail=batch.detail),
            )
            for run in page
            if self._lacks_explanation(run.run_id)
        ]
        result = {"runs": len(page), "explanations": len(following)}
        if len(page) == self._page:
            more = batch.model_copy(update={"after_run_id": page[-1].run_id})
            following.append(_job(EXPLAIN_MISSING.name, claim.run_id, more))
        return Finish(claim.job_id, result, tuple(following))

    def _rest(self, batch: ExplainMissing) -> Iterator[RunArtifact]:
        first, last = date.fromisoformat(batch.date_from), date.fromisoformat(batch.date_to)
        after = batch.after_run_id
        key = None if after is None else self._reader.artifact_key(after)
        stopped_in = None if key is None else partition_day(partition_of(key))
        for entry in self._reader.list_runs(first, stopped_in or last):
            run = entry.artifact
            # Corrupt runs are reported where they are listed; there is nothing to explain in them.
            if run is None:
                continue
            if after is not None and run.created_at_utc.date() == stopped_in and run.run_id >= after:
                continue
            yield run

    def _lacks_explanation(self, run_id: str) -> bool:
        job = self._ledger.explanation_job(run_id)
        # One under way comes by itself; a dead one waits for an operator, not for a second try like it.
        return job is None and self._reader.read(run_id).explanation_status is ExplanationStatus.NONE

    def on_dead(self, claim: Claim, failure: Failure) -> None:
        """Record nothing: no single run's explanation has failed."""


def _job(task: str, run_id: str, payload: SuggestAndAttach | ExplainMissing) -> Job:
    return Job(
        job_id=new_uuid7(),
        task=task,
        run_id=run_id,
        request_id=payload.request_id,
        payload=payload.to_json(),
    )
