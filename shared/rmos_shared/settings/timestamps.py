"""Who stamps the time of checkpoints."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from rmos_shared.settings.base import Settings


class TimestampSettings(Settings):
    """What the daily RFC 3161 time stamp of the audit log needs."""

    tsa_url: str | None = Field(
        None,
        description="Address of an RFC 3161 time-stamp authority, asked once a day for the newest checkpoint "
        "of the audit log; none: no time stamps.",
    )
    tsa_cert_file: Path | None = Field(
        None,
        description="PEM file with the certificates that the authority's tokens must lead to; none: a token "
        "is taken if it answers the query, and proven by whoever verifies it.",
    )
    tsa_timeout_seconds: float = Field(
        20.0, gt=0, le=300, description="Longest time for one time stamp, its answer included."
    )

    @field_validator("tsa_url")
    @classmethod
    def _is_http(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("must be an http or https address")
        return value
