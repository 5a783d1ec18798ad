"""What deliveries of webhooks need."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from rmos_shared.settings.base import Settings


class WebhookSettings(Settings):
    """What deliveries of webhooks need; the endpoints themselves stand in a file."""

    webhooks_file: Path | None = Field(
        None, description="TOML file with the webhook endpoints and what they may reach; none: no webhooks."
    )
    webhook_timeout_seconds: float = Field(
        10.0, gt=0, le=60, description="Longest time for one delivery of a webhook, its answer included."
    )
    webhook_answer_bytes: int = Field(
        65_536, ge=1_024, le=1_048_576, description="Of a receiver's answer no more than this is read."
    )
    webhook_endpoint_jobs: int = Field(
        4, ge=1, le=100, description="Deliveries to one endpoint that one worker process makes at a time."
    )
