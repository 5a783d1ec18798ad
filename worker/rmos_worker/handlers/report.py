"""``batches.report``: write down, once and for good, what a batch has come to."""

from __future__ import annotations

from collections.abc import Sequence

from rmos_shared.batches.report import BatchReport, BatchReports, report_key
from rmos_shared.jobs.batches import JobBatches
from rmos_shared.jobs.model import Failure
from rmos_shared.jobs.work import Claim, Finish
from rmos_shared.store.publication import Publication
from rmos_shared.tasks.payloads import ReportBatch
from rmos_shared.telemetry.events import BatchEnded
from rmos_shared.telemetry.log import emit
from rmos_worker.handlers.base import each, read_payload


class ReportHandler:
    """Publishes reports. One that a killed try has published stands, whatever was counted since."""

    def __init__(self, batches: JobBatches, reports: BatchReports) -> None:
        """Read ``batches``, write ``reports``."""
        self._batches = batches
        self._reports = reports

    def handle(self, claims: Sequence[Claim]) -> list[Finish | Exception]:
        """Publish each report."""
        return each(claims, self._report)

    def _report(self, claim: Claim) -> Finish:
        batch = self._batches.get(read_payload(claim, ReportBatch).batch_id)
        report, publication = self._reports.publish(BatchReport.of(batch))
        counts = report.counts
        emit(
            BatchEnded(
                batch_id=report.batch_id,
                state=report.state,
                jobs=counts.jobs,
                linked=counts.linked,
                dead=counts.dead,
            )
        )
        told = {"key": report_key(report.batch_id), "sha256": report.report_sha256}
        about = {"batch_id": report.batch_id, "state": report.state, "counts": counts.dump()}
        return Finish(claim.job_id, about | told, published=(publication,))

    def on_dead(self, claim: Claim, failure: Failure) -> Sequence[Publication]:  # noqa: ARG002
        """Record nothing: the batch is as it is, and has no report until the job is replayed."""
        return ()
