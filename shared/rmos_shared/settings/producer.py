"""What an upstream service needs."""

from __future__ import annotations

from pydantic import Field

from rmos_shared.settings.broker import BrokerSettings


class ProducerSettings(BrokerSettings):
    """What an upstream service needs."""

    max_payload_bytes: int = Field(
        8_388_608,
        ge=1_024,
        le=268_435_456,
        description="Largest job payload accepted, in bytes of JSON.",
    )
    accept_batch_jobs: int = Field(
        100, ge=1, le=1_000, description="Jobs written to the ledger in one step when many are streamed."
    )
