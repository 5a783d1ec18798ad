"""Accepting many jobs from one producer, against Celery's own way of sending the same payloads."""

from __future__ import annotations

from typing import Any

from celery import Celery
from ratio import Row, compare

from rmos_producer import RunsClient
from rmos_shared.settings import BrokerSettings
from rmos_worker.broker import celery_config


def rows(broker_url: str, requests: list[dict[str, Any]], *, rounds: int) -> list[Row]:
    """Return the rows for ``requests``."""
    app = Celery(set_as_current=False)
    app.conf.update(celery_config(BrokerSettings.load(broker_url=broker_url)))

    with RunsClient.connect(broker_url=broker_url) as client:
        row = compare(
            "accept, one producer, streamed",
            lambda: list(client.create_runs(requests)),
            "apply_async loop with the same payloads",
            lambda: [
                app.send_task("runs.create", args=[request], queue="runs.create") for request in requests
            ],
            reach=10,
            rounds=rounds,
        )
    app.close()
    return [row]
