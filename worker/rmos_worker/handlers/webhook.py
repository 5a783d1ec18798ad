"""``webhooks.deliver``: tell an endpoint how a job ended, by Standard Webhooks."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from rmos_shared.canonical import canonical_json
from rmos_shared.errors import EndpointDisabled
from rmos_shared.ids import webhook_message_id
from rmos_shared.jobs.model import Failure
from rmos_shared.jobs.webhooks import JobWebhooks
from rmos_shared.jobs.work import Claim, Finish
from rmos_shared.models.base import format_utc
from rmos_shared.store.publication import Publication
from rmos_shared.tasks.payloads import DeliverWebhook
from rmos_shared.telemetry.events import WebhookEndpointDisabled
from rmos_shared.telemetry.log import emit
from rmos_worker.handlers.base import each, read_payload
from rmos_worker.webhooks.client import EndpointGone, WebhookClient
from rmos_worker.webhooks.endpoints import Endpoint, WebhookConfig
from rmos_worker.webhooks.shares import EndpointShares

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class DeliverHandler:
    """Delivers at least once: a try whose answer was lost is made again, under the same ``webhook-id``."""

    def __init__(
        self, *, config: WebhookConfig, webhooks: JobWebhooks, client: WebhookClient, shares: EndpointShares
    ) -> None:
        """Take all that the work needs."""
        self._config = config
        self._webhooks = webhooks
        self._client = client
        self._shares = shares

    def handle(self, claims: Sequence[Claim]) -> list[Finish | Exception]:
        """Deliver each message."""
        return each(claims, self._deliver)

    def _deliver(self, claim: Claim) -> Finish:
        message = read_payload(claim, DeliverWebhook)
        endpoint = self._enabled(message.endpoint)
        message_id = webhook_message_id(claim.job_id)
        try:
            with self._shares.turn(endpoint.name):
                status = self._client.deliver(endpoint, message_id, body_of(message))
        except EndpointGone:
            if self._webhooks.disable(endpoint.name, reason="gone"):
                emit(WebhookEndpointDisabled(endpoint=endpoint.name))
            raise
        result = {"endpoint": endpoint.name, "event": message.event, "webhook_id": message_id}
        return Finish(claim.job_id, {**result, "http_status": status})

    def _enabled(self, name: str) -> Endpoint:
        endpoint = self._config.endpoints.get(name)
        if endpoint is None:
            raise EndpointDisabled(f"endpoint {name} is not in this worker's RMOS_WEBHOOKS_FILE")
        if not self._webhooks.is_enabled(name):
            raise EndpointDisabled(f"endpoint {name} is disabled; `rmos webhooks list` says why")
        return endpoint

    def on_dead(self, claim: Claim, failure: Failure) -> Sequence[Publication]:  # noqa: ARG002
        """Record nothing: the dead letter holds the message itself."""
        return ()


def body_of(message: DeliverWebhook) -> bytes:
    """Return what is sent: the same bytes for every try. Ids and outcomes, never a payload."""
    data: dict[str, Any] = {
        "job_id": message.job_id,
        "task": message.task,
        "state": message.state,
        "run_id": message.run_id,
        "request_id": message.request_id,
    }
    if message.result is not None:
        data["result"] = message.result
    if message.reason is not None:
        data["failure"] = {"reason": message.reason, "error_type": message.error_type}
    at = _EPOCH + timedelta(milliseconds=message.at_ms)
    return canonical_json({"type": message.event, "timestamp": format_utc(at), "data": data})
