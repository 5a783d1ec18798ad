"""What every explainer guarantees (contract section 5)."""

from __future__ import annotations

from typing import Protocol

from rmos_shared.advisories.engine import Engine
from rmos_shared.advisories.model import DetailLevel, Explanation
from rmos_shared.runs.model import RunArtifact


class Explainer(Protocol):
    """Explains a stored run from its feasibility, decision and status, and from nothing else."""

    @property
    def engine(self) -> Engine:
        """Return what every explanation of it names as its engine and version."""
        ...

    def explain(self, run: RunArtifact, detail: DetailLevel) -> Explanation:
        """Return why ``run`` was judged as it was.

        What the explanation says changes only together with its ``engine_version``: an advisory's id
        derives from that version, so other words under the same one would be a conflict.
        """
        ...
