"""What a real worker and a real gateway export for Prometheus."""

from __future__ import annotations

import logging
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from rmos_runs.client import RunsClient
from rmos_runs.local.ports import lasting_port
from rmos_shared.jobs.model import JobState
from rmos_shared.telemetry.events import JobsReadyAgain, RequestFinished
from rmos_shared.telemetry.log import emit
from rmos_shared.telemetry.metrics import OF_BOTH, OF_STATUS, OF_WORKERS
from rmos_shared.telemetry.prometheus import EventMetrics, exposition
from support.gateway import GatewayProcess, keys_in
from support.ops import expressions, metrics_in
from support.worker import StartWorker, Worker

SECRET = "spruce-top-of-a-customer"
Eventually = Callable[..., None]
#: Only with an index, or once jobs were done for a while.
NOT_ALWAYS = {"rmos_index_behind_seconds", "rmos_audit_checkpoint_age_seconds", "rmos_job_latency_seconds"}
MAY_READ = {"monitor", "operate", "audit"}


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def of(text: str, name: str, **labels: str) -> float:
    return samples(text)[name, frozenset(labels.items())]


class Counting:
    """A prefork worker, whose children count apart, and the jobs that it gets."""

    def __init__(self, worker: Worker, port: int, client: RunsClient, request: dict[str, Any]) -> None:
        self.worker = worker
        self._url = f"http://127.0.0.1:{port}/metrics"
        self._client = client
        self._request = {**request, "meta": {"customer": SECRET}, "request_id": SECRET}

    def told(self) -> str:
        return httpx.get(self._url, trust_env=False, timeout=10).text

    def settled(self) -> tuple[float, ...]:
        text = self.told()
        return tuple(
            of(text, "rmos_jobs_settled_total", task="runs.create", outcome=outcome)
            for outcome in ("done", "dead")
        )

    def ends(self, count: int, **changes: Any) -> JobState:
        """Do so many jobs; return how the last one ended."""
        made = [
            self._client.create_run({**self._request, "tool_id": f"t{number}", **changes})
            for number in range(count)
        ]
        self.last_run = made[-1].run_id
        return [self._client.wait(receipt.job_id, 30).state for receipt in made][-1]


def test_workers_and_gateway_export_all_that_alerts_and_dashboard_read(
    start_worker: StartWorker,
    start_gateway: Callable[..., GatewayProcess],
    runs_client: RunsClient,
    sample_requests: list[dict[str, Any]],
    request: pytest.FixtureRequest,
) -> None:
    eventually: Eventually = request.getfixturevalue("eventually")
    keys_file: Path = request.getfixturevalue("tmp_path") / "keys.jsonl"
    port, keys = lasting_port(), keys_in(keys_file)
    gateway = start_gateway(api_keys_file=keys_file)
    worker = start_worker("prefork", 2, worker_http_port=port)
    counting = Counting(worker, port, runs_client, sample_requests[0])
    _what_is_done_is_counted(counting, eventually)
    _what_killed_children_counted_stays(counting, eventually)
    figures = _the_gateway_tells_whoever_may_read(gateway, keys)
    text = counting.told()
    exported = {name for name, _ in samples(text + figures)}
    named = {name for expression in expressions() for name in metrics_in(expression)}
    assert named - exported <= NOT_ALWAYS
    table = (*OF_BOTH, *OF_WORKERS, *OF_STATUS)
    assert {metric.name for metric in table if metric.kind != "histogram"} - exported <= NOT_ALWAYS
    assert SECRET not in text + figures
    assert not re.search(r"[0-9a-f]{32}", text + figures), "no id is a label"
    # Quiet events are counted, and the log stays as quiet as it was.
    assert '"level": "debug"' not in worker.log.read_text() + gateway.log.read_text()


def _what_is_done_is_counted(counting: Counting, eventually: Eventually) -> None:
    # Before anything has happened, or the first increase would be none.
    assert counting.settled() == (0, 0)
    assert counting.ends(20) is JobState.DONE
    assert counting.ends(1, run_id=counting.last_run, mode="another") is JobState.DEAD
    eventually(lambda: counting.settled() == (20, 1), told=counting.told)
    text = counting.told()
    assert of(text, "rmos_job_failures_total", task="runs.create", outcome="dead", reason="conflict") == 1
    assert of(text, "rmos_events_total", event="job.dead") == 1
    notifications = of(text, "rmos_task_duration_seconds_count", task="runs.create")
    assert 1 < notifications <= 21
    assert of(text, "rmos_events_total", event="jobs.finished") == notifications


def _what_killed_children_counted_stays(counting: Counting, eventually: Eventually) -> None:
    before = set(counting.worker.children())
    for child in before:
        os.kill(child, signal.SIGKILL)
    eventually(lambda: len(set(counting.worker.children()) - before) == len(before))
    assert counting.settled() == (20, 1)
    assert counting.ends(1) is JobState.DONE
    eventually(lambda: counting.settled() == (21, 1), told=counting.told)


def _the_gateway_tells_whoever_may_read(gateway: GatewayProcess, keys: dict[str, str]) -> str:
    for role, key in keys.items():
        with gateway.client(key) as caller:
            assert (caller.get("/metrics").status_code == 200) is (role in MAY_READ), role
    with gateway.client() as stranger:
        assert stranger.get("/metrics").status_code == 401
        assert stranger.get("/livez").json() == {"status": "ok"}
    with gateway.client(keys["monitor"]) as monitor:
        for path in ("/api/rmos/runs", "/api/rmos/runs/status"):
            assert monitor.get(path).status_code == 403, "metrics, and nothing else"
        figures = monitor.get("/metrics").text
        accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
        assert monitor.get("/metrics", headers=accept).text.endswith("# EOF\n")
    assert of(figures, "rmos_jobs", state="dead") == of(figures, "rmos_dead_letters", reason="conflict") == 1
    assert of(figures, "rmos_jobs_done_total") == 21
    assert of(figures, "rmos_jobs_accepted_total") == 22
    assert of(figures, "rmos_invariant_holds") == of(figures, "rmos_part_up", part="ledger") == 1
    assert of(figures, "rmos_worker_processes", state="beating") >= 1
    assert of(figures, "rmos_storage_size_bytes") >= of(figures, "rmos_storage_free_bytes") > 0
    assert of(figures, "rmos_http_requests_total", method="GET", route="/metrics", status="200") >= 2
    return figures


def test_quiet_events_count_and_words_of_callers_become_no_series(caplog: pytest.LogCaptureFixture) -> None:
    registry = CollectorRegistry()
    events, logger = EventMetrics(registry), logging.getLogger("rmos")
    before = (logger.level, [*logger.handlers])
    caplog.set_level(logging.INFO)
    events.attach()
    try:
        emit(JobsReadyAgain(jobs=3), quiet=True)
        for method in ("GET", "BREW", "WHEN"):
            emit(
                RequestFinished(
                    method=method, route="/x", status=200, milliseconds=3.0, request_id="r", caller="nobody"
                )
            )
    finally:
        events.detach()
    text = exposition(registry.collect())[0].decode()
    assert of(text, "rmos_events_total", event="jobs.ready_again") == 1
    assert of(text, "rmos_http_requests_total", method="other", route="/x", status="200") == 2
    assert "BREW" not in text
    assert [record.levelname for record in caplog.records] == ["INFO"] * 3, "the log takes what it took"
    assert (logger.level, logger.handlers) == before
