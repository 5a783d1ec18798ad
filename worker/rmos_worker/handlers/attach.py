"""``runs.attach_advisory``: link an advisory that the advisory store already holds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rmos_shared.advisories.base import AdvisoryStore
from rmos_shared.advisories.model import AdvisoryAsset
from rmos_shared.canonical import canonical_sha256
from rmos_shared.clock import Clock
from rmos_shared.jobs.model import Failure
from rmos_shared.jobs.work import Claim, Finish
from rmos_shared.runs.writer import RunWriter
from rmos_shared.store.publication import Publication
from rmos_shared.tasks.payloads import AttachAdvisory
from rmos_worker.handlers.base import each, read_payload
from rmos_worker.handlers.existing_run import ExistingRuns
from rmos_worker.handlers.link import attach_link
from rmos_worker.policies.base import ApprovalPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachHandler:
    """Links advisories made elsewhere; whatever the policy, none of them is trusted as our own is."""

    writer: RunWriter
    existing: ExistingRuns
    advisories: AdvisoryStore
    policy: ApprovalPolicy
    clock: Clock

    def handle(self, claims: Sequence[Claim]) -> list[Finish | Exception]:
        """Link each advisory to its run."""
        return each(claims, self._attach)

    def _attach(self, claim: Claim) -> Finish:
        payload = read_payload(claim, AttachAdvisory)
        run = self.existing.get(payload.run_id)
        asset = self.advisories.fetch(payload.advisory_id)
        verdict = self.policy.decide(run, None)
        return attach_link(
            self.writer,
            claim,
            run,
            asset,
            verdict,
            kind=payload.kind,
            summary=_summary(asset),
            inputs_sha256=_inputs(asset),
            created_at=self.clock.now(),
        )

    def on_dead(self, claim: Claim, failure: Failure) -> Sequence[Publication]:  # noqa: ARG002
        """Record nothing: the run's own explanation is not touched by this."""
        return ()


def _summary(asset: AdvisoryAsset) -> str:
    value = asset.suggestion_data.get("summary")
    return value if isinstance(value, str) and value else f"{asset.asset_type} from {asset.provider}"


def _inputs(asset: AdvisoryAsset) -> str:
    # The hash of the maker's inputs, if it gives one; else that of the question it answered.
    value = asset.meta.get("inputs_sha256")
    if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value):
        return value
    return canonical_sha256({"prompt": asset.prompt})
