"""What ``celery -A rmos_worker.watch flower`` finds: an app that watches and does no work.

Flower picks its broker page by the scheme of the transport, so it gets Celery's own, without the gate.
"""

from __future__ import annotations

from celery import Celery

from rmos_shared.settings import BrokerSettings
from rmos_worker.broker import celery_config

app = Celery("rmos")
app.conf.update(celery_config(BrokerSettings.load()))
