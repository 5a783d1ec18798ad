"""A worker that quits two seconds after SIGQUIT, where others take a minute: ``celery -A quick_quit``."""

from __future__ import annotations

from rmos_worker.celery_app.main import app

app.conf.worker_soft_shutdown_timeout = 2.0
