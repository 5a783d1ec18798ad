"""F13: what anybody may publish on Celery's own channels ends no worker, and blinds no Flower."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
import redis

from rmos_producer.client import RunsClient
from rmos_producer.home import Addresses, Home
from rmos_producer.processes import Pipeline
from rmos_worker.broadcast import MAX_BYTES, fault_of
from support.broadcasts import BARE, CONTROL, CONTROL_CHANNEL, EVENT_CHANNELS, EVENTS
from support.worker import StartWorker


@pytest.mark.parametrize("name", [*BARE, *CONTROL])
def test_a_control_message_is_read_or_named_for_what_is_wrong(name: str) -> None:
    fault = fault_of({**BARE, **CONTROL}[name], "control message")
    # These are well formed; Celery itself answers them.
    readable = {"unknown method", "arguments unknown", "arguments wrong", "matcher unknown", "unknown member"}
    assert (fault is None) is (name in readable)


@pytest.mark.parametrize("name", [*BARE, *EVENTS])
def test_an_event_is_read_or_named_for_what_is_wrong(name: str) -> None:
    fault = fault_of({**BARE, **EVENTS}[name], "event")
    assert (fault is None) is (name in {"type unknown", "frequency a text"})


def test_a_giant_is_not_looked_into() -> None:
    assert fault_of(b"[" * (MAX_BYTES + 1), "event") == f"is larger than {MAX_BYTES} bytes"


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_worker_lives_through_every_broadcast_of_wrong_shape(
    *,
    pool: str,
    start_worker: StartWorker,
    broker_url: str,
    redis_client: redis.Redis,
    runs_client: RunsClient,
    sample_requests: list[dict[str, Any]],
    eventually: Callable[..., None],
) -> None:
    worker = start_worker(pool)
    eventually(lambda: redis_client.publish(CONTROL_CHANNEL, b"[]") >= 1, told=lambda: "nobody listens")
    for name, message in {**BARE, **CONTROL}.items():
        assert redis_client.publish(CONTROL_CHANNEL, message) >= 1, name
        assert worker.alive, name
    for channel in EVENT_CHANNELS:
        for message in (*BARE.values(), *EVENTS.values()):
            redis_client.publish(channel, message)
    receipt = runs_client.create_run(sample_requests[0])
    assert runs_client.wait(receipt.job_id, 20).state == "done"
    pinged = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "rmos_worker.main", "inspect", "ping", "--timeout", "5"],
        env={**os.environ, "RMOS_BROKER_URL": broker_url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "pong" in pinged.stdout, pinged.stdout + pinged.stderr
    assert worker.alive
    told = worker.log.read_text()
    assert told.count("control message dropped") >= len(BARE)
    assert "garbage" not in told, "what was dropped is not quoted"
    assert "no_such_method" in told, "what Celery can read it answers itself"


def test_flower_shows_what_follows_events_of_wrong_shape(
    tmp_path: Path, sample_requests: list[dict[str, Any]], eventually: Callable[..., None]
) -> None:
    with Pipeline(Home(tmp_path), names=("worker-create", "flower")) as pipeline:
        addresses = pipeline.start()
        with (
            redis.Redis.from_url(addresses.broker_url) as publisher,
            RunsClient.connect(broker_url=addresses.broker_url) as client,
        ):
            request = sample_requests[0]
            first = client.create_run(request)
            eventually(lambda: first.job_id in tasks(addresses))
            for channel in EVENT_CHANNELS:
                for name, message in {**BARE, **EVENTS}.items():
                    assert publisher.publish(channel, message) >= 1, name
            second = client.create_run(request)
            # Flower that loses its events has to connect again first, and never hears of the second job.
            eventually(lambda: second.job_id in tasks(addresses))
            told = (tmp_path / "logs/flower.log").read_text()
    assert told.count("event dropped") >= len(BARE)
    assert "Failed to capture events" not in told


def tasks(addresses: Addresses) -> str:
    token = base64.b64encode((addresses.flower_auth or "").encode()).decode()
    request = Request(f"{addresses.flower_url}/api/tasks", headers={"Authorization": f"Basic {token}"})
    with urlopen(request, timeout=10) as answer:
        return str(answer.read().decode())
