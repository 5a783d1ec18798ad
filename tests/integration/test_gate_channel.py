"""A broker that goes away under a channel: only errors that Celery can mend come out."""

from __future__ import annotations

import pytest
import redis
from kombu import Connection


def test_a_channel_that_lost_its_connection_says_so_in_an_error_that_celery_mends(broker_url: str) -> None:
    connection = Connection(broker_url, transport="rmos_worker.gate:GatedTransport")
    channel = connection.channel()
    channel._disconnect_pools()
    channel.connection.client = None  # what is left of a lost connection when Celery closes it again

    # To bring unacknowledged messages back, a closing channel asks for its pool once more.
    with pytest.raises(redis.ConnectionError) as caught:
        channel.pool  # noqa: B018 - a property that connects

    assert isinstance(caught.value, connection.connection_errors)
