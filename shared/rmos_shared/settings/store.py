"""Where artifacts lie."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator

from rmos_shared.ids import UUID7
from rmos_shared.settings.base import Settings

#: 1 GiB.
MAX_ATTACHMENT_BYTES = 1_073_741_824


class StoreSettings(Settings):
    """Where artifacts lie."""

    runs_dir: Path = Field(Path(".rmos/runs"), description="Root of the artifact store (contract section 3).")
    store_id: str | None = Field(
        None,
        description="Identity that the artifact store must have, as `rmos store show` prints it; none: that "
        "of the store found at the start.",
    )

    max_attachment_bytes: int = Field(
        MAX_ATTACHMENT_BYTES,
        ge=1_024,
        le=1 << 40,
        description="Largest attachment that is taken, in bytes.",
    )

    @field_validator("store_id")
    @classmethod
    def _is_a_store_id(cls, value: str | None) -> str | None:
        if value is not None and UUID7.fullmatch(value) is None:
            raise ValueError(
                "must be a store's id: 32 lower-case hex digits, as `rmos store show` prints them"
            )
        return value
