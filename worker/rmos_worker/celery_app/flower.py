"""What ``celery -A rmos_worker.celery_app.flower flower`` finds: an app that watches and does no work.

Flower picks its broker page by the scheme of the broker's address, so it gets no transport of our own name;
instead kombu takes ours, which has no gate, for those schemes.
"""

from __future__ import annotations

import os
import sys

from celery import Celery
from kombu.transport import TRANSPORT_ALIASES

from rmos_shared.settings.broker import BrokerSettings
from rmos_shared.settings.logs import LogSettings
from rmos_shared.telemetry.log_output import configure_logs
from rmos_worker.celery_app.broker import celery_config
from rmos_worker.celery_app.flower_access import refusal

if "flower" in sys.argv[1:]:
    if (why_not := refusal(sys.argv[1:], os.environ)) is not None:
        raise SystemExit(f"error: {why_not}")
    logs = LogSettings.load()
    # Flower's web framework adds no handler of its own where there is one.
    configure_logs(logs.log_format, logs.log_level or "INFO")

TRANSPORT_ALIASES.update(
    (scheme, "rmos_worker.celery_app.broadcast:CheckedTransport")
    for scheme, transport in TRANSPORT_ALIASES.copy().items()
    if transport == "kombu.transport.redis:Transport"
)
app = Celery("rmos")
app.conf.update(celery_config(BrokerSettings.load()))
