"""The files for whoever watches: alert rules, dashboard, scrape configuration; and promtool."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

OPS = Path(__file__).parents[2] / "ops"
ALERTS = OPS / "prometheus/alerts.yml"
ALERT_TESTS = OPS / "prometheus/alerts.test.yml"
SCRAPE = OPS / "prometheus/prometheus.yml"
DASHBOARD = OPS / "grafana/rmos.json"
_METRIC = re.compile(r"\b(?:rmos|process)_[a-z0-9_]+")


def promtool() -> str:
    """Return the program; without it the test is skipped, in CI it fails."""
    found = shutil.which("promtool")
    if found is None and os.environ.get("CI"):
        pytest.fail("promtool is not installed, and CI must run this test")
    if found is None:
        pytest.skip("promtool is not installed")
    return found


def alerts() -> list[dict[str, Any]]:
    """Return the alert rules."""
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def expressions() -> list[str]:
    """Return every query of the alerts and of the dashboard."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    shown = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    return [*(rule["expr"] for rule in alerts()), *shown]


def metrics_in(expression: str) -> set[str]:
    """Return the names of the metrics that a query reads."""
    return set(_METRIC.findall(re.sub(r'"[^"]*"', '""', expression)))
