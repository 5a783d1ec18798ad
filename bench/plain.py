"""The same create-run as a plain Celery task that carries its payload: no ledger, no gate, no leases."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from celery import Celery

from rmos_shared.models.run import RunRequest
from rmos_shared.run_log import RunLog
from rmos_shared.settings import BrokerSettings
from rmos_shared.store.local import LocalStore
from rmos_worker.artifact import artifact_of
from rmos_worker.broker import celery_config

app = Celery("plain")
app.conf.update(celery_config(BrokerSettings.load()))
# Without a ledger, kombu's copies are all that brings a killed worker's messages back.
app.conf.broker_transport_options = {**app.conf.broker_transport_options, "ack_emulation": True}
_runs = RunLog(LocalStore(Path(os.environ["RMOS_RUNS_DIR"])))


@app.task(name="runs.create", queue="runs.create")
def create(request: dict[str, Any]) -> None:
    """Store one run."""
    artifact, _ = artifact_of(RunRequest.read(request))
    _runs.put_runs([artifact])
