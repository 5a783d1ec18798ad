"""The report of a batch: one file under ``_batches/``, written once, which proves itself by its hash."""

from __future__ import annotations

from typing import Literal

from rmos_shared.batches.record import BatchCounts, BatchRecord, BatchSpec, BatchState
from rmos_shared.canonical import canonical_sha256
from rmos_shared.errors import BatchNotFound, CorruptArtifact
from rmos_shared.ids import uuid7_time
from rmos_shared.models.base import Frozen, Sha256, SingleLine, UtcTime, Utf8Text
from rmos_shared.runs.files import reported
from rmos_shared.runs.record import parse
from rmos_shared.store.base import ArtifactStore, Outcome
from rmos_shared.store.publication import Publication

_BATCHES = "_batches/"


class BatchReport(Frozen):
    """What a batch had come to when its last job ended; a dead letter replayed later changes nothing here."""

    batch_id: SingleLine
    state: Literal["done", "cancelled"]
    spec: BatchSpec
    counts: BatchCounts
    engine_id: Utf8Text | None
    engine_version: Utf8Text | None
    created_at_utc: UtcTime
    #: When its last job ended, or its last page was looked through.
    ended_at_utc: UtcTime
    #: Over all the fields but this, as contract section 2 hashes.
    report_sha256: Sha256

    @classmethod
    def of(cls, batch: BatchRecord) -> BatchReport:
        """Return the report of a batch in which nothing is left to do."""
        fields = {
            "batch_id": batch.batch_id,
            "state": "cancelled" if batch.state is BatchState.CANCELLING else "done",
            "spec": batch.spec.dump(),
            "counts": batch.counts.dump(),
            "engine_id": batch.engine_id,
            "engine_version": batch.engine_version,
            "created_at_utc": batch.dump()["created_at_utc"],
            "ended_at_utc": batch.dump()["changed_at_utc"],
        }
        return cls.read({**fields, "report_sha256": canonical_sha256(fields)})

    def key(self) -> str:
        """Return the key that it belongs under; an invalid one if its hash does not prove it."""
        fields = self.dump()
        proven = canonical_sha256({name: fields[name] for name in fields if name != "report_sha256"})
        return report_key(self.batch_id) if proven == self.report_sha256 else ""


def report_key(batch_id: str) -> str:
    """Return where the report of a batch lies: under the UTC day on which the batch was opened or due.

    Raises:
        BatchNotFound: it is no id of a batch.
    """
    moment = uuid7_time(batch_id)
    if moment is None:
        raise BatchNotFound(batch_id)
    return f"{_BATCHES}{moment.date().isoformat()}/{batch_id}.json"


class BatchReports:
    """Every method raises ``StoreUnavailable`` when the store is away."""

    def __init__(self, store: ArtifactStore) -> None:
        """Read and write in ``store``."""
        self._store = store

    def publish(self, report: BatchReport) -> tuple[BatchReport, Publication]:
        """Publish a report, durable when this returns; and return the one that stands, as the log is told.

        Of two reports of one batch the first stands: the job that writes it may run again after its counts
        have moved on, for somebody replayed a dead letter.

        Raises:
            CorruptArtifact: one stands, and it cannot be read.
        """
        key, data = report_key(report.batch_id), report.to_bytes()
        outcome = self._store.create(key, data)
        if outcome is Outcome.CONFLICT:
            data = self._store.get(key) or data
            report = _proven(key, data)
        return report, Publication.of(key, data, outcome)

    def find(self, batch_id: str) -> BatchReport | None:
        """Return the report of a batch, proven; None when there is none.

        Raises:
            CorruptArtifact: there is, and it cannot be read or fails its own proof.
        """
        key = report_key(batch_id)
        data = self._store.get(key)
        return None if data is None else _proven(key, data)


def _proven(key: str, data: bytes) -> BatchReport:
    try:
        return parse(BatchReport, key, data, BatchReport.key)
    except CorruptArtifact as error:
        raise reported(error) from None
