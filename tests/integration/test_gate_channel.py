"""A broker that goes away under a channel: only errors that Celery can repair come out."""

from __future__ import annotations

from typing import Any

import pytest
import redis
from kombu import Connection, Message, Queue

from rmos_runs.client import RunsClient
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.tasks.table import CREATE


def test_a_channel_that_lost_its_connection_says_so_in_an_error_that_celery_repairs(broker_url: str) -> None:
    connection = Connection(broker_url, transport="rmos_worker.celery_app.gate:GatedTransport")
    channel: Any = connection.channel()
    channel._disconnect_pools()
    channel.connection.client = None  # what is left of a lost connection when Celery closes it again

    # To bring unacknowledged messages back, a closing channel asks for its pool once more.
    with pytest.raises(redis.ConnectionError) as caught:
        channel.pool  # noqa: B018 - a property that connects

    assert isinstance(caught.value, connection.connection_errors)


def test_a_channel_that_closes_notifies_again_for_what_it_took_and_did_not_answer(
    broker_url: str, ledger: JobLedger, runs_client: RunsClient
) -> None:
    receipt = runs_client.create_run({"mode": "saw", "tool_id": "saw:test"})
    taken: list[Message] = []
    options = {"ack_emulation": False}
    with Connection(
        broker_url, transport="rmos_worker.celery_app.gate:GatedTransport", transport_options=options
    ) as connection:
        queue = Queue(CREATE.queue, routing_key=CREATE.queue)
        with connection.Consumer(queue, on_message=taken.append, accept=["json"]):
            connection.drain_events(timeout=10)
        assert len(taken) == 1
        assert ledger.queues.take(CREATE.queue) is None

    back = ledger.queues.take(CREATE.queue)
    assert back
    assert receipt.job_id.encode() in (back.notification or b"")
    assert ledger.stats().invariant
