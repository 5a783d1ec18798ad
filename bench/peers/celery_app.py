"""A Celery app with our settings, for tasks without ledger and gate."""

from __future__ import annotations

from celery import Celery

from rmos_shared.settings.broker import BrokerSettings
from rmos_worker.celery_app.broker import celery_config

QUEUE = "runs.create"


def celery_app(name: str) -> Celery:
    """Return an app on ``RMOS_BROKER_URL``.

    A message of such a task is all there is of its job, so it keeps kombu's acknowledgement, as Celery
    ships it, whatever our own settings say.
    """
    app = Celery(name)
    app.conf.update(celery_config(BrokerSettings.load()))
    options = {**app.conf.broker_transport_options, "ack_emulation": True}
    app.conf.update(broker_transport_options=options)
    return app
