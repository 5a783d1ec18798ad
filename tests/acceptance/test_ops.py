"""What ``ops/`` holds: rules that promtool takes and that fire when they should, each with a runbook."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import yaml

from rmos_shared.telemetry.metrics import OF_BOTH, OF_STATUS, OF_WORKERS, Metric
from support.ops import ALERT_TESTS, ALERTS, OPS, SCRAPE, alerts, expressions, metrics_in, promtool

ROOT = Path(__file__).parents[2]
METRICS: tuple[Metric, ...] = (*OF_BOTH, *OF_WORKERS, *OF_STATUS)


def checked(*words: str | Path) -> None:
    done = subprocess.run(
        [promtool(), *map(str, words)],
        cwd=OPS / "prometheus",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_takes_the_rules_and_the_example(tmp_path: Path) -> None:
    checked("check", "rules", ALERTS)
    # The key is the reader's own; promtool looks for its file.
    text = SCRAPE.read_text().replace("rmos-monitor.key", str(tmp_path / "key"))
    (tmp_path / "key").write_text("rmos_key")
    (tmp_path / "alerts.yml").write_text(ALERTS.read_text())
    (tmp_path / "prometheus.yml").write_text(text)
    checked("check", "config", tmp_path / "prometheus.yml")


def test_each_alert_fires_when_it_should_and_not_before() -> None:
    checked("test", "rules", ALERT_TESTS)
    tests = yaml.safe_load(ALERT_TESTS.read_text())["tests"]
    fired = {one["alertname"] for test in tests for one in test["alert_rule_test"] if one.get("exp_alerts")}
    silent = {one["alertname"] for one in tests[0]["alert_rule_test"] if not one.get("exp_alerts")}
    assert fired == silent == {rule["alert"] for rule in alerts()}


def test_each_alert_has_a_runbook_of_its_own() -> None:
    chapter = (ROOT / "docs/operations.md").read_text().partition("\n## Alerts\n")[2].partition("\n## ")[0]
    runbooks = re.split(r"^### ", chapter, flags=re.MULTILINE)[1:]
    names = [runbook.partition("\n")[0] for runbook in runbooks]
    assert names == [rule["alert"] for rule in alerts()], "in the order of the rules"
    for rule in alerts():
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in {"page", "ticket"}
    for runbook in runbooks:
        assert [word for word in ("**Meaning.**", "**Look.**", "**Do.**") if word not in runbook] == []


def test_names_follow_the_conventions_of_prometheus() -> None:
    names = [metric.name for metric in METRICS]
    assert len(names) == len(set(names))
    for metric in METRICS:
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
        assert metric.kind != "histogram" or metric.name.endswith("_seconds"), metric.name
        assert not {"id", "job_id", "run_id", "request_id", "worker", "le"} & {*metric.labels}, metric.name
        assert metric.help.endswith("."), metric.name


def test_every_query_reads_metrics_that_there_are() -> None:
    names = {metric.name for metric in METRICS}
    for metric in METRICS:
        if metric.kind == "histogram":
            names |= {f"{metric.name}_{suffix}" for suffix in ("bucket", "sum", "count")}
    for expression in expressions():
        read = {name for name in metrics_in(expression) if not name.startswith("process_")}
        assert read <= names, expression
