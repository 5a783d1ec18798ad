"""Tells the ledger which endpoints there are, when the worker that serves them starts."""

from __future__ import annotations

import threading

from rmos_shared.errors import BrokerDamaged, BrokerUnavailable
from rmos_shared.jobs.webhooks import JobWebhooks
from rmos_shared.telemetry.events import WebhooksNotConfigured
from rmos_shared.telemetry.log import emit
from rmos_worker.webhooks.endpoints import WebhookConfig

_PAUSE_SECONDS = 1.0


class Registration:
    """Tells it once, and again until that has worked: a broker that is away keeps no worker from starting."""

    def __init__(self, webhooks: JobWebhooks, config: WebhookConfig) -> None:
        """Prepare; ``start`` begins."""
        self._webhooks = webhooks
        self._config = config
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)

    def start(self) -> None:
        """Begin, in a thread of its own."""
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """End."""
        self._stopping.set()
        self._thread.join(timeout)

    def _run(self) -> None:
        last = ""
        while not self._stopping.is_set():
            try:
                self._webhooks.configure(self._config.subscriptions())
            except (BrokerUnavailable, BrokerDamaged) as error:
                if str(error) != last:
                    last = str(error)
                    emit(WebhooksNotConfigured(error=last))
                self._stopping.wait(_PAUSE_SECONDS)
            else:
                return
