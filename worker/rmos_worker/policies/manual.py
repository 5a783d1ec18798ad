"""The policy for shops where every advisory passes a person."""

from __future__ import annotations

from rmos_shared.advisories.model import Explanation, Verdict
from rmos_shared.runs.model import RunArtifact


class ManualPolicy:
    """Approves nothing."""

    policy_id = "manual"
    policy_version = "1"

    def decide(self, run: RunArtifact, explanation: Explanation | None) -> Verdict:  # noqa: ARG002 - it looks at neither
        """Leave the advisory to a person."""
        return Verdict(
            policy_id=self.policy_id,
            policy_version=self.policy_version,
            approved=False,
            reviewed_by=None,
            reason="a person must decide: the manual policy approves nothing",
        )
