"""Explaining runs, against hashing them."""

from __future__ import annotations

from ratio import Row, compare

from rmos_shared.canonical import canonical_sha256
from rmos_shared.models.run import RunArtifact
from rmos_worker.explainers.feasibility import FeasibilityExplainer
from rmos_worker.explainers.rules import load_rules


def rows(artifacts: list[RunArtifact], *, rounds: int) -> list[Row]:
    """Return the rows for ``artifacts``."""
    explainer = FeasibilityExplainer(load_rules())
    return [
        compare(
            "explain, full detail",
            lambda: [explainer.explain(run, "full") for run in artifacts],
            "canonical hash of the same run",
            lambda: [canonical_sha256(run.dump()) for run in artifacts],
            reach=0.5,
            rounds=rounds,
        )
    ]
