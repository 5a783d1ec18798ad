"""How to reach the broker."""

from __future__ import annotations

from pydantic import Field, SecretStr, field_validator
from redis.connection import parse_url

from rmos_shared.settings.base import Settings


class BrokerSettings(Settings):
    """How to reach Redis, where the ledger and the queues are."""

    broker_url: SecretStr = Field(
        SecretStr("redis://127.0.0.1:6379/0"),
        description="Redis or Valkey, in a database of its own, with append-only file and noeviction.",
    )

    @field_validator("broker_url")
    @classmethod
    def _is_an_address(cls, value: SecretStr) -> SecretStr:
        try:
            parse_url(value.get_secret_value())  # type: ignore[no-untyped-call]  # redis-py's own
        except (ValueError, AttributeError):
            # The address itself is left out: it may hold a password.
            raise ValueError(
                "must be an address such as redis://host:6379/0, rediss://… or unix://…"
            ) from None
        return value

    broker_timeout_seconds: float = Field(
        5.0, gt=0, le=60, description="Longest wait for one answer of the ledger, connecting included."
    )
    accept_waits_for_aof: bool = Field(
        False,
        description="Answer a caller only once the server says that its append-only file holds the job; "
        "meant for appendfsync everysec. With always it is so anyway.",
    )
