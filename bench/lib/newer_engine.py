"""Our worker, with an engine of the version ``ENGINE_VERSION``."""

from __future__ import annotations

import os

from rmos_shared.advisories.engine import Engine
from rmos_shared.settings.worker import WorkerSettings
from rmos_worker.celery_app.app import create_app
from rmos_worker.engine import wiring
from rmos_worker.explainers.base import Explainer
from rmos_worker.explainers.feasibility import FeasibilityExplainer
from rmos_worker.explainers.rules import load_rules

__all__ = ["app"]


def _newer() -> Explainer:
    return FeasibilityExplainer(load_rules(), Engine("feasibility_explainer", os.environ["ENGINE_VERSION"]))


wiring.chosen_explainer = _newer  # type: ignore[attr-defined]  # its own import is what is replaced
app = create_app(WorkerSettings.load())
