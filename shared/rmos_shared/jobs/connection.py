"""Connections to the broker: how long they wait, and what they try again."""

from __future__ import annotations

from typing import Any

import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from rmos_shared.settings.broker import BrokerSettings

#: Only a cut or refused connection is tried again: that is known at once, and costs no time.
CUTS_TRIED_AGAIN = (ConstantBackoff(0.05), 1)


def connection_options(settings: BrokerSettings) -> dict[str, Any]:
    """Return the options of a connection to the broker, blocking or not."""
    # Connecting and one answer share the time-out, so that a caller has its own within it.
    seconds = settings.broker_timeout_seconds / 2
    return {"socket_timeout": seconds, "socket_connect_timeout": seconds, "health_check_interval": 25}


def connect_broker(settings: BrokerSettings) -> redis.Redis:
    """Return a client of the broker, which decodes no responses; it connects when first used."""
    return redis.Redis.from_url(
        settings.broker_url.get_secret_value(),
        retry=Retry(*CUTS_TRIED_AGAIN, supported_errors=(redis.ConnectionError,)),
        **connection_options(settings),
    )
