"""The explainer that a worker uses: the one place that names an implementation."""

from __future__ import annotations

from rmos_worker.explainers.base import Explainer
from rmos_worker.explainers.feasibility import FeasibilityExplainer
from rmos_worker.explainers.rules import load_rules


def chosen_explainer() -> Explainer:
    """Return the built-in explainer with the rules that ship; there is no other one yet."""
    return FeasibilityExplainer(load_rules())
