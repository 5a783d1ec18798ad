"""The index of the runs: where it is, and how often it is held against the store."""

from __future__ import annotations

from pydantic import Field, SecretStr, field_validator

from rmos_shared.settings.base import Settings

#: What an address of an index begins with, by the database behind it.
SQLITE = "sqlite:///"
POSTGRESQL = ("postgresql://", "postgres://")


class IndexSettings(Settings):
    """The index of the runs, a cache that can be thrown away; without one the store itself answers."""

    index_url: SecretStr | None = Field(
        None,
        description="Database of the index: `sqlite:////path/index.db`, a file outside the store, or "
        "`postgresql://…`; none: lists are answered by the store itself, slower.",
    )
    index_reconcile_seconds: float = Field(
        10.0,
        ge=0.1,
        le=86_400,
        description="Time between two rounds in which the indexer looks for what no notice told it of; it "
        "never spends more than a fifth of its time on them.",
    )
    index_timeout_seconds: float = Field(
        5.0, gt=0, le=60, description="Longest wait for one answer of the index's database."
    )

    @field_validator("index_url")
    @classmethod
    def _is_an_address(cls, value: SecretStr | None) -> SecretStr | None:
        address = "" if value is None else value.get_secret_value()
        is_file = address.startswith(SQLITE) and len(address) > len(SQLITE)
        if value is not None and not is_file and not address.startswith(POSTGRESQL):
            # The address itself is left out: it may hold a password.
            msg = "must be sqlite:////path/index.db or postgresql://user@host/database"
            raise ValueError(msg)
        return value
