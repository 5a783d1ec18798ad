"""``runs.create`` and ``runs.create_many``: store runs, write once."""

from __future__ import annotations

from collections.abc import Sequence

from rmos_shared.errors import ArtifactConflict, RmosError
from rmos_shared.ids import explain_job_id
from rmos_shared.ledger.job_ledger import Claim, Finish
from rmos_shared.models.job import CreateRun, Failure, Job, SuggestAndAttach
from rmos_shared.models.run import RunArtifact
from rmos_shared.run_log import RunLog
from rmos_shared.store.base import Outcome
from rmos_shared.tasks import SUGGEST
from rmos_worker.artifact import GCODE_SUFFIX, artifact_of
from rmos_worker.handlers.base import read_payload


class CreateHandler:
    """Stores the runs of a group together, so that they share file syncs."""

    def __init__(self, runs: RunLog) -> None:
        """Write to ``runs``."""
        self._runs = runs

    def handle(self, claims: Sequence[Claim]) -> list[Finish | Exception]:
        """Store each run; a run of this id with other content is a conflict, the same content a repeat."""
        ends: dict[str, Finish | Exception] = {}
        ready: list[tuple[Claim, CreateRun, RunArtifact]] = []
        for claim in claims:
            try:
                payload = read_payload(claim, CreateRun)
                artifact, gcode = artifact_of(payload.run)
                if gcode is not None:
                    # Before the artifact that names it, so that no reader finds the name without the file.
                    self._runs.put_attachment(gcode, GCODE_SUFFIX)
            except Exception as error:  # noqa: BLE001 - one bad job must not touch the others of its group
                ends[claim.job_id] = error
            else:
                ready.append((claim, payload, artifact))
        outcomes = self._put([artifact for _, _, artifact in ready])
        for (claim, payload, artifact), outcome in zip(ready, outcomes, strict=True):
            if isinstance(outcome, RmosError):
                ends[claim.job_id] = outcome
            elif outcome is Outcome.CONFLICT:
                ends[claim.job_id] = self._conflict(artifact)
            else:
                ends[claim.job_id] = Finish(
                    claim.job_id,
                    {
                        "run_id": artifact.run_id,
                        "outcome": outcome.value,
                        "status": artifact.status.value,
                        "missing": list(payload.run.missing()),
                    },
                    _following(claim, payload),
                )
        return [ends[claim.job_id] for claim in claims]

    def _put(self, artifacts: list[RunArtifact]) -> list[Outcome | RmosError]:
        try:
            return list(self._runs.put_runs(artifacts))
        except RmosError:
            # Each by itself then, so that what is wrong with one run leaves the others alone.
            return [self._put_one(artifact) for artifact in artifacts]

    def _put_one(self, artifact: RunArtifact) -> Outcome | RmosError:
        try:
            return self._runs.put_run(artifact)
        except RmosError as error:
            return error

    def _conflict(self, artifact: RunArtifact) -> RmosError:
        """Tell a rival from damage: what has the name may be no artifact at all."""
        try:
            self._runs.get_artifact(artifact.run_id)
        except RmosError as error:
            return error
        return ArtifactConflict(f"{artifact.date}/{artifact.run_id}.json")

    def mourn(self, claim: Claim, failure: Failure) -> None:
        """Record nothing: the dead letter holds the request itself."""


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
        ),
    )
