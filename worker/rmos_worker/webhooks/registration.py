"""Tells the ledger which endpoints there are, when the worker that serves them starts."""

from __future__ import annotations

from rmos_shared.jobs.until_done import UntilDone
from rmos_shared.jobs.webhooks import JobWebhooks
from rmos_shared.telemetry.events import WebhooksNotConfigured
from rmos_shared.telemetry.log import emit
from rmos_worker.webhooks.endpoints import WebhookConfig

_PAUSE_SECONDS = 1.0


class Registration(UntilDone):
    """Registers the endpoints of ``config``."""

    def __init__(self, webhooks: JobWebhooks, config: WebhookConfig) -> None:
        """Prepare; ``start`` begins."""
        super().__init__(
            "webhooks",
            lambda: webhooks.configure(config.subscriptions()),
            lambda error: emit(WebhooksNotConfigured(error=error)),
            pause_seconds=_PAUSE_SECONDS,
        )
