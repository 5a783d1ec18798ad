"""The audit log: its key, and how often it is sealed and held against the store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr, field_validator

from rmos_shared.settings.base import Settings


class AuditSettings(Settings):
    """The audit log, which seals what is published; `worker-audit` alone needs its key."""

    audit_key_file: Path | None = Field(
        None,
        description="File of the private key that signs the log, as `rmos audit keygen` writes it; none, and "
        "no RMOS_AUDIT_KEY: the log is sealed unsigned.",
    )
    audit_key: SecretStr | None = Field(
        None, description="The private key itself (PEM), where a file cannot be given; outranks the file."
    )

    @field_validator("audit_key_file", "audit_key", mode="before")
    @classmethod
    def _none_if_empty(cls, value: Any) -> Any:
        # As compose files give what nobody has set.
        return None if value == "" else value

    audit_seal_seconds: float = Field(
        60.0, gt=0, le=60, description="Longest time from a publication to the seal that holds it."
    )
    audit_heartbeat_seconds: float = Field(
        3_600.0,
        ge=1,
        le=86_400,
        description="Longest time between two seals, also while nothing is published: without it nobody "
        "could tell a quiet log from one whose end was cut off.",
    )
    audit_reconcile_seconds: float = Field(
        600.0,
        ge=1,
        le=86_400,
        description="Time between two rounds in which the log is held against the store, for what nobody "
        "told it of.",
    )
