"""Explaining runs by the registry of rules, against hashing them."""

from __future__ import annotations

from pathlib import Path

from lib.ratio import Mark, compare
from lib.result import Section
from lib.scene import requests_of
from lib.size import Size
from rmos_shared.canonical import canonical_sha256
from rmos_shared.runs.model import RunRequest
from rmos_worker.explainers.feasibility import FeasibilityExplainer
from rmos_worker.explainers.rules import load_rules
from rmos_worker.handlers.artifact import artifact_of

_RUNS = 600


def section(scratch: Path, size: Size) -> Section:  # noqa: ARG001 - as every section
    """Compare on the sample."""
    rules = load_rules()
    explainer = FeasibilityExplainer(rules)
    artifacts = [artifact_of(RunRequest.read(request))[0] for request in requests_of(_RUNS)]
    mark = Mark(
        "explain",
        f"explain one run, {len(rules)} rules",
        "canonical hash of the same run",
        2,
        "ms",
        at_most=True,
    )
    row = compare(
        mark,
        lambda: [explainer.explain(run, "full") for run in artifacts],
        lambda: [canonical_sha256(run.dump()) for run in artifacts],
        amount=len(artifacts),
        rounds=size.rounds,
    )
    return Section([row])
