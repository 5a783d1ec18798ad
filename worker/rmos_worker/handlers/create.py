"""``runs.create`` and ``runs.create_many``: store runs, write once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rmos_shared.errors import ArtifactConflict, InvalidRequest, RmosError
from rmos_shared.ids import explain_job_id
from rmos_shared.jobs.model import Failure, Job
from rmos_shared.jobs.work import Claim, Finish
from rmos_shared.runs.model import Status
from rmos_shared.runs.reader import RunReader
from rmos_shared.runs.writer import RunWriter, StoredRun, as_stored
from rmos_shared.store.base import Outcome
from rmos_shared.store.publication import Publication
from rmos_shared.store.told import Tell
from rmos_shared.tasks.payloads import CreateRun, SuggestAndAttach
from rmos_shared.tasks.table import SUGGEST
from rmos_shared.telemetry.scope import busy_with
from rmos_worker.handlers.artifact import GCODE_SUFFIX, artifact_of
from rmos_worker.handlers.attachments import NamedAttachments
from rmos_worker.handlers.base import read_payload


@dataclass(frozen=True, slots=True)
class _Ready:
    """A run to store, and what its job's end will tell.

    All that is kept of a request while the rest of its group is made: its hundreds of small objects would be
    walked by one garbage collection after the other.
    """

    run: StoredRun
    run_id: str
    status: Status
    missing: tuple[str, ...]
    following: tuple[Job, ...]
    #: Its G-code, if that is too large to lie in the artifact.
    attached: tuple[Publication, ...]


class CreateHandler:
    """Stores the runs of a group together, so that they share file syncs."""

    def __init__(self, writer: RunWriter, reader: RunReader, named: NamedAttachments, tell: Tell) -> None:
        """Publish with ``writer``; ``reader`` tells a rival from damage; ``named`` proves attachments.

        ``tell``, which must not raise, hears of what was published by jobs that do not end.
        """
        self._writer = writer
        self._reader = reader
        self._named = named
        self._tell = tell

    def handle(self, claims: Sequence[Claim]) -> list[Finish | Exception]:
        """Store each run; a run of this id with other content is a conflict, the same content a repeat."""
        ends: dict[str, Finish | Exception] = {}
        ready: list[tuple[Claim, _Ready]] = []
        for claim in claims:
            try:
                with busy_with(claim.scope):
                    ready.append((claim, self._make(claim)))
            except Exception as error:  # noqa: BLE001 - one bad job must not touch the others of its group
                ends[claim.job_id] = error
        outcomes = self._put_all([item for _, item in ready])
        for (claim, item), outcome in zip(ready, outcomes, strict=True):
            with busy_with(claim.scope):
                ends[claim.job_id] = self._end(claim, item, outcome)
        return [ends[claim.job_id] for claim in claims]

    def _make(self, claim: Claim) -> _Ready:
        payload = read_payload(claim, CreateRun)
        artifact, gcode = artifact_of(payload.run)
        self._named.prove(
            artifact.outputs,
            written=None if gcode is None else artifact.outputs.gcode_path,
            waiting_seconds=claim.waiting_seconds,
        )
        run = as_stored(artifact)
        # Last of all that may fail or wait: what a job publishes the audit log is told at its end, and calls
        # it late two minutes after. And before the artifact, so that no reader finds a name without its file.
        written = () if gcode is None else (self._writer.publish_attachment(gcode, GCODE_SUFFIX),)
        return _Ready(
            run,
            artifact.run_id,
            artifact.status,
            payload.run.missing(),
            _following(claim, payload),
            written,
        )

    def _put_all(self, items: Sequence[_Ready]) -> list[Outcome | RmosError]:
        """Publish the runs; tell of the attachment of each that fails, for its job may wait for days."""
        try:
            outcomes = self._put([item.run for item in items])
        except Exception:
            self._tell_of(items)
            raise
        self._tell_of(
            [item for item, outcome in zip(items, outcomes, strict=True) if isinstance(outcome, RmosError)]
        )
        return outcomes

    def _tell_of(self, items: Sequence[_Ready]) -> None:
        # As of what was there before: nobody knows how long ago that was, and the job tells of it once more.
        if attached := [replace(each, created=False) for item in items for each in item.attached]:
            self._tell(attached)

    def _put(self, runs: list[StoredRun]) -> list[Outcome | RmosError]:
        try:
            return list(self._writer.publish(runs))
        except RmosError:
            # Each by itself then, so that what is wrong with one run leaves the others alone.
            return [self._put_one(run) for run in runs]

    def _put_one(self, run: StoredRun) -> Outcome | RmosError:
        try:
            return self._writer.publish([run])[0]
        except RmosError as error:
            return error

    def _end(self, claim: Claim, item: _Ready, outcome: Outcome | RmosError) -> Finish | Exception:
        if isinstance(outcome, RmosError):
            return outcome
        if outcome is Outcome.CONFLICT:
            return self._conflict(item)
        result = {
            "run_id": item.run_id,
            "outcome": outcome.value,
            "status": item.status.value,
            "missing": list(item.missing),
        }
        published = (*item.attached, Publication.of(*item.run, outcome))
        return Finish(claim.job_id, result, item.following, published)

    def _conflict(self, item: _Ready) -> RmosError:
        """Tell a rival from damage: what has the name may be no artifact at all."""
        try:
            self._reader.get_artifact(item.run_id)
        except RmosError as error:
            return error
        key, _ = item.run
        return ArtifactConflict(key)

    def on_dead(self, claim: Claim, failure: Failure) -> Sequence[Publication]:  # noqa: ARG002
        """Record nothing, for the dead letter holds the request; tell of the G-code that lies there."""
        try:
            _, gcode = artifact_of(read_payload(claim, CreateRun).run)
        except InvalidRequest:
            return ()
        return () if gcode is None else self._named.told(gcode, GCODE_SUFFIX)


def _following(claim: Claim, payload: CreateRun) -> tuple[Job, ...]:
    if payload.explain is None:
        return ()
    suggest = SuggestAndAttach(run_id=claim.run_id, request_id=claim.request_id, detail=payload.explain)
    return (
        Job(
            job_id=explain_job_id(claim.job_id),
            task=SUGGEST.name,
            run_id=claim.run_id,
            request_id=claim.request_id,
            payload=suggest.to_json(),
            traceparent=claim.traceparent,
        ),
    )
