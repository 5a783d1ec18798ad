"""What the reference advisory store needs."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr

from rmos_shared.settings.base import Settings


class AdvisoryStoreSettings(Settings):
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
