"""Policy B, the default: a run that is GREEN beyond doubt needs no person (contract section 5)."""

from __future__ import annotations

from collections.abc import Iterator

from rmos_shared.advisories.model import Explanation, Verdict
from rmos_shared.runs.model import RiskLevel, RunArtifact, Status


class GreenAutoPolicy:
    """Approves our own explanation of a GREEN run that went through; a person decides on all else.

    A record that contradicts its own GREEN waits for a person, and the reason names each contradiction.
    A triggered YELLOW rule is none: the server weighed it when it judged GREEN.
    """

    policy_id = "policy_b"
    policy_version = "1"

    def decide(self, run: RunArtifact, explanation: Explanation | None) -> Verdict:
        """Approve as ``system:auto_explanation_green``, or say all that speaks against it."""
        objections = "; ".join(_objections(run, explanation))
        return Verdict(
            policy_id=self.policy_id,
            policy_version=self.policy_version,
            approved=not objections,
            reviewed_by=None if objections else "system:auto_explanation_green",
            reason=f"a person must decide: {objections}" if objections else "risk GREEN, nothing unknown",
        )


def _objections(run: RunArtifact, explanation: Explanation | None) -> Iterator[str]:
    risk = run.decision.risk_level
    if risk is not RiskLevel.GREEN:
        yield f"risk {risk}"
    if run.status is not Status.OK:
        yield f"status {run.status}"
    if run.decision.block_reason is not None:
        yield "the decision gives a block reason"
    # An engine need not repeat the risk in its own output, but where it does, it must agree.
    if str(run.feasibility.get("risk_level", risk)).upper() != risk:
        yield "feasibility gives another risk level"
    if run.feasibility.get("blocking", False) is not False:
        yield "feasibility says blocking"
    if explanation is None:
        yield "the advisory is not our own explanation"
    else:
        yield from _objections_to(explanation, run)


def _objections_to(explanation: Explanation, run: RunArtifact) -> Iterator[str]:
    if explanation.run_id != run.run_id:
        yield "the explanation is of another run"
    if explanation.risk_level != run.decision.risk_level:
        yield "the explanation gives another risk level"
    if not explanation.deterministic:
        yield "the explanation is not deterministic"
    if explanation.unknown_rules or any(not rule.known for rule in explanation.triggered_rules):
        yield "a triggered rule is unknown"
    if any(rule.level == "RED" for rule in explanation.triggered_rules):
        yield "a blocking rule was triggered"
