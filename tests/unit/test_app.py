"""The Celery app: what it hooks into the worker's life."""

from __future__ import annotations

import gc
from pathlib import Path

from celery import signals

from rmos_shared.settings.worker import WorkerSettings
from rmos_worker.celery_app.app import create_app


def test_what_is_there_before_a_fork_is_left_alone_by_the_collector(tmp_path: Path) -> None:
    create_app(WorkerSettings.load(broker_url="redis://127.0.0.1:1/0", runs_dir=tmp_path))
    before = gc.get_freeze_count()
    try:
        signals.worker_before_create_process.send(None)
        assert gc.get_freeze_count() > before
    finally:
        gc.unfreeze()
