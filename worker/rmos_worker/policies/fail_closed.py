"""What happens when a policy itself fails."""

from __future__ import annotations

from rmos_shared.advisories.model import Explanation, Verdict
from rmos_shared.runs.model import RunArtifact
from rmos_shared.telemetry.events import PolicyFailed
from rmos_shared.telemetry.log import emit
from rmos_worker.policies.base import ApprovalPolicy


class FailClosed:
    """Asks another policy, and leaves the advisory to a person when that one raises.

    Its own id stands in the verdict then, because the other policy gave none.
    """

    policy_id = "fail_closed"
    policy_version = "1"

    def __init__(self, policy: ApprovalPolicy) -> None:
        """Guard ``policy``."""
        self._policy = policy

    def decide(self, run: RunArtifact, explanation: Explanation | None) -> Verdict:
        """Return the other policy's verdict; never raises an ``Exception``."""
        try:
            return self._policy.decide(run, explanation)
        except Exception as error:  # noqa: BLE001 - whatever a policy raises, nothing gets approved by it
            policy, kind = type(self._policy).__name__, type(error).__name__
            emit(PolicyFailed(policy=policy, run_id=run.run_id), traceback=True)
            return Verdict(
                policy_id=self.policy_id,
                policy_version=self.policy_version,
                approved=False,
                reviewed_by=None,
                # The class only: the error's text may quote the run, and the verdict is published.
                reason=f"a person must decide: {policy} failed with {kind}",
            )
