"""What the reference advisory store needs."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr

from rmos_shared.settings.base import Settings


class AdvisoryStoreSettings(Settings):
    """What the reference advisory store needs."""

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
