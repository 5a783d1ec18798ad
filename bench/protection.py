"""What the ledger and the gate cost: single create-run jobs through them, against plain Celery tasks."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import redis
from celery import Celery
from ratio import Row, compare_seconds

from rmos_producer import RunsClient
from rmos_shared.settings import BrokerSettings
from rmos_worker.broker import celery_config

_WARM = 100
_DEADLINE_SECONDS = 120.0


def rows(broker_url: str, scratch: Path, requests: list[dict[str, Any]], *, rounds: int) -> list[Row]:
    """Return the rows: seconds a run, from the first ``_WARM`` stored on, by a worker of two processes."""
    serial = count()
    plain = Celery(set_as_current=False)
    plain.conf.update(celery_config(BrokerSettings.load(broker_url=broker_url)))

    def ours() -> float:
        with RunsClient.connect(broker_url=broker_url) as client:
            for request in requests:
                client.create_run(request)
        return work("rmos_worker.main")

    def bare() -> float:
        for request in requests:
            plain.send_task("runs.create", args=[request], queue="runs.create")
        return work("plain")

    def work(app: str) -> float:
        runs_dir = scratch / f"protection{next(serial)}"
        seconds = _drain(app, broker_url, runs_dir, len(requests))
        with redis.Redis.from_url(broker_url) as client:
            client.flushall()
        return seconds

    row = compare_seconds(
        "create-run, single jobs, durable",
        ours,
        "the same body as a plain Celery task",
        bare,
        reach=0.8,
        rounds=rounds,
    )
    plain.close()
    return [row]


def _drain(app: str, broker_url: str, runs_dir: Path, total: int) -> float:
    environment = {**os.environ, "RMOS_BROKER_URL": broker_url, "RMOS_RUNS_DIR": str(runs_dir)}
    environment["PYTHONPATH"] = str(Path(__file__).parent)
    runs_dir.mkdir()
    worker = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "celery",
            "-A",
            app,
            "worker",
            "-P",
            "prefork",
            "-c",
            "2",
            "-Q",
            "runs.create",
        ],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _until(lambda: _stored(runs_dir) >= _WARM)
        began, warm = time.perf_counter(), _stored(runs_dir)
        _until(lambda: _stored(runs_dir) >= total)
        return (time.perf_counter() - began) / (total - warm)
    finally:
        worker.terminate()
        worker.wait(60)


def _stored(runs_dir: Path) -> int:
    return sum(1 for _ in runs_dir.glob("2*/*.json"))


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError("the worker did not get through")
        time.sleep(0.02)
