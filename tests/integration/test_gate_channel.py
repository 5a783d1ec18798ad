"""A broker that goes away under a channel: only errors that Celery can mend come out."""

from __future__ import annotations

import pytest
import redis
from kombu import Connection

from rmos_shared.canonical import sha256_hex
from rmos_shared.errors import BrokerUnavailable
from rmos_shared.ledger.job_ledger import JobLedger
from rmos_worker import gate


def test_a_channel_that_lost_its_connection_says_so_in_an_error_that_celery_mends(broker_url: str) -> None:
    connection = Connection(broker_url, transport="rmos_worker.gate:GatedTransport")
    channel = connection.channel()
    channel._disconnect_pools()
    channel.connection.client = None  # what is left of a lost connection when Celery closes it again

    # To bring unacknowledged messages back, a closing channel asks for its pool once more.
    with pytest.raises(redis.ConnectionError) as caught:
        channel.pool  # noqa: B018 - a property that connects

    assert isinstance(caught.value, connection.connection_errors)


def test_a_refused_message_that_cannot_be_kept_is_given_up_in_the_end_and_only_its_hash_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(gate, "_KEEP_SECONDS", 0.5)
    away = gate.Gate(JobLedger(redis.Redis(port=1)))

    with pytest.raises(BrokerUnavailable):
        away.admits(b"a secret that is no doorbell", "runs.create")

    (record,) = (record for record in caplog.records if record.levelname == "CRITICAL")
    assert record.__dict__["sha256"] == sha256_hex(b"a secret that is no doorbell")
    assert "a secret" not in caplog.text
