"""What a worker needs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr

from rmos_shared.settings.audit import AuditSettings
from rmos_shared.settings.broker import BrokerSettings
from rmos_shared.settings.nightly import NightlySettings
from rmos_shared.settings.store import StoreSettings
from rmos_shared.settings.timestamps import TimestampSettings
from rmos_shared.settings.webhooks import WebhookSettings


class WorkerSettings(
    BrokerSettings, StoreSettings, WebhookSettings, NightlySettings, AuditSettings, TimestampSettings
):
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
    attachment_wait_seconds: float = Field(
        900.0,
        ge=0,
        le=86_400,
        description="How long a job waits for an attachment that its run names and that is not stored yet; "
        "then it is dead.",
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
        5.0, gt=0, le=3_600, description="How long a taken job may stay unclaimed before it is in line again."
    )
    reconcile_batch_jobs: int = Field(
        500,
        ge=1,
        le=10_000,
        description="Jobs of a kind that one round of the reconciler puts in line again.",
    )
    worker_http_port: int = Field(
        0,
        ge=0,
        le=65_535,
        description="Port on which a worker serves `/livez` and `/metrics`; 0: none. Each worker of a "
        "machine needs one of its own; `rmos up` gives them theirs.",
    )
    worker_http_host: str = Field(
        "127.0.0.1",
        description="Address for that port; a private one, for nobody has to say there who they are.",
    )
    worker_stalled_seconds: float = Field(
        60.0,
        gt=0,
        le=3_600,
        description="How long a worker with a free slot may take none of the jobs in line, or its loop may "
        "stand still, before `/livez` fails. Celery may need 30 s to come back to a broker.",
    )
    done_ttl_seconds: int = Field(
        604_800,
        ge=7_200,
        description="How long the record of a done job is kept; late notifications must still find it.",
    )
    policy: Literal["green_auto", "manual", "unsafe_approve_all"] = Field(
        "green_auto", description="Approval policy; green_auto is Policy B of the contract."
    )
