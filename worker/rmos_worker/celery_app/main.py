"""What ``celery -A rmos_worker.celery_app.main`` finds: the app, made from the environment."""

from __future__ import annotations

from rmos_shared.settings.worker import WorkerSettings
from rmos_worker.celery_app.app import create_app

app = create_app(WorkerSettings.load())
