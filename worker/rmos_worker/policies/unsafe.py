"""The bypass, for demos and load tests. Not for a machine that cuts."""

from __future__ import annotations

from rmos_shared.advisories.model import Explanation, Verdict
from rmos_shared.runs.model import RunArtifact
from rmos_shared.telemetry.events import UnsafePolicyInForce
from rmos_shared.telemetry.log import emit


class UnsafeApproveAll:
    """Approves everything, blocked runs and others' advisories included; each verdict says so for ever."""

    policy_id = "unsafe_approve_all"
    policy_version = "1"

    def __init__(self) -> None:
        """Report it, so that a worker started with the bypass shows it."""
        emit(UnsafePolicyInForce())

    def decide(self, run: RunArtifact, explanation: Explanation | None) -> Verdict:  # noqa: ARG002 - it looks at neither
        """Approve as ``system:unsafe_approve_all``."""
        return Verdict(
            policy_id=self.policy_id,
            policy_version=self.policy_version,
            approved=True,
            reviewed_by="system:unsafe_approve_all",
            reason="approved unread by the unsafe bypass",
        )
