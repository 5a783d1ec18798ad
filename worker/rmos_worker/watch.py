"""What ``celery -A rmos_worker.watch flower`` finds: an app that watches and does no work.

Flower picks its broker page by the scheme of the transport, so it gets Celery's own, without the gate.
"""

from __future__ import annotations

import os
import sys

from celery import Celery
from kombu.transport import TRANSPORT_ALIASES

from rmos_shared.settings import BrokerSettings
from rmos_worker.broker import celery_config
from rmos_worker.flower_access import refusal

# By its alias, not as broker_transport: Flower looks at the scheme of the address. It listens to events,
# which anybody may publish; one that cannot be read must not cost it those that follow.
TRANSPORT_ALIASES["redis"] = TRANSPORT_ALIASES["rediss"] = "rmos_worker.broadcast:WatchingTransport"

if (why_not := refusal(sys.argv[1:], os.environ)) is not None and "flower" in sys.argv[1:]:
    raise SystemExit(f"error: {why_not}")

app = Celery("rmos")
app.conf.update(celery_config(BrokerSettings.load()))
