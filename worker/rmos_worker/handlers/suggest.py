"""``runs.suggest_and_attach``: explain a run, store the explanation, judge it, link it (contract 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rmos_shared.advisories.base import AdvisoryStore
from rmos_shared.advisories.model import AdvisoryAsset, Attempt, Explanation, Verdict
from rmos_shared.canonical import canonical_sha256
from rmos_shared.clock import Clock
from rmos_shared.ids import advisory_id
from rmos_shared.jobs.model import Failure
from rmos_shared.jobs.work import Claim, Finish
from rmos_shared.runs.model import RunArtifact
from rmos_shared.runs.writer import RunWriter
from rmos_shared.store.publication import Publication
from rmos_shared.tasks.payloads import SuggestAndAttach
from rmos_worker.explainers.base import Explainer
from rmos_worker.handlers.base import each, read_payload
from rmos_worker.handlers.existing_run import ExistingRuns
from rmos_worker.handlers.link import attach_link
from rmos_worker.policies.base import ApprovalPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class SuggestHandler:
    """Explains runs. The advisory's id derives from its inputs, so doing it again changes nothing."""

    writer: RunWriter
    existing: ExistingRuns
    explainer: Explainer
    advisories: AdvisoryStore
    policy: ApprovalPolicy
    clock: Clock

    def handle(self, claims: Sequence[Claim]) -> list[Finish | Exception]:
        """Explain and link each run."""
        return each(claims, self._suggest)

    def _suggest(self, claim: Claim) -> Finish:
        payload = read_payload(claim, SuggestAndAttach)
        run = self.existing.get(payload.run_id)
        return self.attach(claim, run, self.explainer.explain(run, payload.detail))

    def attach(self, claim: Claim, run: RunArtifact, explanation: Explanation) -> Finish:
        """Save an explanation in the advisory store, have the policy judge it, and link it to its run.

        Raises:
            AdvisoryRefused: the advisory store will never take it.
            AdvisoryUnavailable: it may or may not be saved; nothing is linked. Repeat the call later.
            ArtifactConflict: another advisory of this id is linked to the run.
        """
        # The policy is pure, so it is asked before the asset is saved: the asset, too, is written only once.
        verdict = self.policy.decide(run, explanation)
        asset = self._asset(explanation, verdict, claim.request_id)
        self.advisories.save(asset)
        return attach_link(
            self.writer,
            claim,
            run,
            asset,
            verdict,
            kind="explanation",
            summary=explanation.summary,
            inputs_sha256=explanation.inputs_sha256,
            created_at=asset.created_at_utc,
        )

    def _asset(self, explanation: Explanation, verdict: Verdict, request_id: str | None) -> AdvisoryAsset:
        data = explanation.dump()
        now = self.clock.now()
        return AdvisoryAsset(
            asset_id=advisory_id(
                run_id=explanation.run_id,
                engine_id=explanation.engine_id,
                engine_version=explanation.engine_version,
                detail=explanation.detail,
                inputs_sha256=explanation.inputs_sha256,
            ),
            asset_type="analysis",
            created_at_utc=now,
            source="ai_analysis",
            provider=explanation.engine_id,
            model=explanation.engine_version,
            prompt=f"Explain the feasibility of run {explanation.run_id} at detail {explanation.detail}.",
            content_hash=canonical_sha256(data),
            suggestion_data=data,
            confidence=explanation.confidence,
            reviewed=verdict.approved,
            approved_for_workflow=verdict.approved,
            reviewed_by=verdict.reviewed_by,
            reviewed_at_utc=now if verdict.approved else None,
            review_note=verdict.reason if verdict.approved else None,
            request_id=request_id,
            meta={"run_id": explanation.run_id, "inputs_sha256": explanation.inputs_sha256},
        )

    def on_dead(self, claim: Claim, failure: Failure) -> Sequence[Publication]:
        """Leave an attempt record, from which the run's explanation reads ERROR with the reason."""
        attempt = Attempt(
            run_id=claim.run_id,
            job_id=claim.job_id,
            request_id=claim.request_id,
            failed_at_utc=self.clock.now(),
            reason=failure.reason,
            message=failure.message,
        )
        _, publication = self.writer.publish_attempt(attempt)
        return (publication,)
