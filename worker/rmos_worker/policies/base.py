"""What every approval policy guarantees (contract section 5)."""

from __future__ import annotations

from typing import Protocol

from rmos_shared.advisories.model import Explanation, Verdict
from rmos_shared.runs.model import RunArtifact


class ApprovalPolicy(Protocol):
    """Decides whether an advisory may be used without a person; in doubt it may not."""

    def decide(self, run: RunArtifact, explanation: Explanation | None) -> Verdict:
        """Return the verdict on an advisory of ``run``, from the arguments alone.

        ``explanation`` is None for an advisory that we did not make ourselves. A verdict that does not
        approve means that a person must decide; no policy rejects.
        """
        ...
