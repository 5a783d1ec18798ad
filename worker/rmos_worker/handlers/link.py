"""The last step of both advisory tasks: tie the advisory to its run."""

from __future__ import annotations

from datetime import datetime

from rmos_shared.advisories.model import AdvisoryAsset, AdvisoryKind, AdvisoryLink, Verdict
from rmos_shared.errors import ArtifactConflict
from rmos_shared.jobs.work import Claim, Finish
from rmos_shared.runs.model import RunArtifact
from rmos_shared.runs.writer import RunWriter
from rmos_shared.store.base import Outcome


def attach_link(
    writer: RunWriter,
    claim: Claim,
    run: RunArtifact,
    asset: AdvisoryAsset,
    verdict: Verdict,
    *,
    kind: AdvisoryKind,
    summary: str,
    inputs_sha256: str,
    created_at: datetime,
) -> Finish:
    """Publish the link of ``asset`` to ``run``; the same advisory again is a repeat.

    Raises:
        ArtifactConflict: another advisory of this id is linked to the run.
    """
    link = AdvisoryLink(
        run_id=run.run_id,
        advisory_id=asset.asset_id,
        kind=kind,
        created_at_utc=created_at,
        request_id=claim.request_id,
        engine_id=asset.provider,
        engine_version=asset.model,
        summary=summary,
        inputs_sha256=inputs_sha256,
        advisory_sha256=asset.content_hash,
        policy_id=verdict.policy_id,
        policy_version=verdict.policy_version,
        approved=verdict.approved,
        reviewed_by=verdict.reviewed_by,
        reason=verdict.reason,
    )
    outcome, publication = writer.publish_link(link)
    if outcome is Outcome.CONFLICT:
        raise ArtifactConflict(f"{run.date}/{run.run_id}_advisory_{link.advisory_id}.json")
    result = {"run_id": run.run_id, "advisory_id": link.advisory_id, "outcome": outcome.value}
    return Finish(claim.job_id, {**result, "approved": link.approved}, published=(publication,))
