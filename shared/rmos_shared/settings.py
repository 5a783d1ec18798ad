"""Every setting, with its unit in its name: one class per role, prefix ``RMOS_``.

Wrong values stop the start with the name of the variable (``SettingsInvalid``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from redis.connection import parse_url

from rmos_shared.errors import SettingsInvalid
from rmos_shared.store.identity import is_store_id


class _Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="RMOS_", frozen=True, extra="forbid", hide_input_in_errors=True
    )

    @classmethod
    def load(cls, **values: Any) -> Self:
        """Read the environment; ``values`` given here outrank it.

        Raises:
            SettingsInvalid: naming each variable that is missing or wrong.
        """
        try:
            return cls(**values)
        except ValidationError as error:
            problems = (
                f"RMOS_{'_'.join(str(part) for part in item['loc']).upper()}: "
                f"{item['msg'].removeprefix('Value error, ')}"
                for item in error.errors(include_url=False, include_input=False, include_context=False)
            )
            raise SettingsInvalid("; ".join(problems)) from None


class BrokerSettings(_Settings):
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
            msg = "must be an address such as redis://host:6379/0, rediss://… or unix://…"
            raise ValueError(msg) from None
        return value

    broker_timeout_seconds: float = Field(
        5.0, gt=0, le=60, description="Longest wait for one answer of the ledger, connecting included."
    )
    accept_waits_for_aof: bool = Field(
        False,
        description="Answer a caller only once the server says that its append-only file holds the job; "
        "meant for appendfsync everysec. With always it is so anyway.",
    )


class StoreSettings(_Settings):
    """Where artifacts lie."""

    runs_dir: Path = Field(Path(".rmos/runs"), description="Root of the artifact store (contract section 3).")
    store_id: str | None = Field(
        None,
        description="Identity that the artifact store must have, as `rmos store show` prints it; none: that "
        "of the store found at the start.",
    )

    @field_validator("store_id")
    @classmethod
    def _is_a_store_id(cls, value: str | None) -> str | None:
        if value is not None and not is_store_id(value):
            msg = "must be a store's id: 32 lower-case hex digits, as `rmos store show` prints them"
            raise ValueError(msg)
        return value


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


class WorkerSettings(BrokerSettings, StoreSettings):
    """What a worker needs."""

    advisory_url: str = Field("http://127.0.0.1:8700", description="Base address of the advisory store.")
    advisory_token: SecretStr | None = Field(None, description="Bearer token for the advisory store.")
    advisory_timeout_seconds: float = Field(
        5.0, gt=0, le=300, description="Longest wait for one advisory answer."
    )
    advisory_total_seconds: float = Field(
        15.0, gt=0, le=600, description="Longest time for one advisory call, its quick retries included."
    )
    advisory_tries: int = Field(3, ge=1, le=10, description="Quick tries of one advisory call inside a task.")
    breaker_failures: int = Field(
        5,
        ge=1,
        le=1_000,
        description="Failed advisory calls in a row, over all workers, that open the breaker.",
    )
    breaker_open_seconds: float = Field(
        5.0,
        gt=0,
        le=600,
        description="How long the open breaker holds calls back before one may probe; up to eight times as "
        "long while an outage lasts.",
    )
    max_tries: int = Field(8, ge=1, le=100, description="Tries of a job before it is dead.")
    retry_base_seconds: float = Field(
        2.0, gt=0, le=600, description="First delay of a job put off; doubles each time."
    )
    retry_cap_seconds: float = Field(900.0, gt=0, le=86_400, description="Longest delay of a job put off.")
    retry_total_seconds: float = Field(
        21_600.0,
        gt=0,
        le=2_592_000,
        description="Longest time a job may be put off altogether, tries spent or not; then it is dead.",
    )
    max_crashes: int = Field(
        3, ge=1, le=100, description="Starts without a finish after which a job is dead as a crash loop."
    )
    heartbeat_seconds: float = Field(
        2.0, gt=0, le=60, description="Time between two heartbeats of a worker process."
    )
    lease_seconds: float = Field(
        10.0,
        gt=0,
        le=600,
        description="Silence after which a worker process counts as dead and its jobs run elsewhere.",
    )
    reconcile_seconds: float = Field(
        1.0, gt=0, le=60, description="Time between two rounds of the reconciler."
    )
    notification_grace_seconds: float = Field(
        5.0, gt=0, le=3_600, description="Age below which an unanswered notification is never taken for lost."
    )
    reconcile_batch_jobs: int = Field(
        500, ge=1, le=10_000, description="Jobs that one round of the reconciler may notify."
    )
    done_ttl_seconds: int = Field(
        604_800,
        ge=7_200,
        description="How long the record of a done job is kept; late notifications must still find it.",
    )
    policy: Literal["green_auto", "manual", "unsafe_approve_all"] = Field(
        "green_auto", description="Approval policy; green_auto is Policy B of the contract."
    )


class AdvisoryStoreSettings(_Settings):
    """What the reference advisory store needs; the ``inject_`` switches are for tests and demos."""

    advisory_dir: Path = Field(
        Path(".rmos/advisories"), description="Where the reference store keeps its assets."
    )
    advisory_token: SecretStr | None = Field(
        None, description="Bearer token that callers must send; none: open."
    )
    advisory_host: str = Field("127.0.0.1", description="Address that the reference store listens on.")
    advisory_port: int = Field(8700, ge=0, le=65_535, description="Port that the reference store listens on.")
    max_asset_bytes: int = Field(
        1_048_576, ge=1_024, description="Largest asset accepted, in bytes; a client reads no larger answer."
    )
    inject_latency_ms: int = Field(0, ge=0, le=600_000, description="Added before each answer.")
    inject_error_rate: float = Field(0.0, ge=0, le=1, description="Share of calls answered with 503.")
    inject_429_rate: float = Field(0.0, ge=0, le=1, description="Share of calls answered with 429.")
    inject_retry_after_seconds: int = Field(1, ge=0, le=3_600, description="Retry-After sent with each 429.")
    inject_drop_rate: float = Field(0.0, ge=0, le=1, description="Share of calls whose connection is cut.")
    inject_switchable: bool = Field(
        False, description="Let PUT /_faults change the inject_ switches while the store runs."
    )


def variables() -> frozenset[str]:
    """Return the name of every environment variable that some role reads."""
    roles: tuple[type[_Settings], ...] = (ProducerSettings, WorkerSettings, AdvisoryStoreSettings)
    return frozenset(f"RMOS_{name.upper()}" for role in roles for name in role.model_fields)
