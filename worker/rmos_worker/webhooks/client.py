"""One delivery: a signed POST, bounded in time and size, to an address that is allowed."""

from __future__ import annotations

from contextlib import closing, suppress
from datetime import datetime
from http import HTTPStatus

import httpx
from standardwebhooks import Webhook

from rmos_shared.clock import Clock, SystemClock
from rmos_shared.errors import EndpointDisabled, RmosError, WebhookRefused, WebhookUnavailable
from rmos_worker.advisories.client import retry_after_seconds
from rmos_worker.advisories.deadline import DeadlineTransport, Resolve
from rmos_worker.webhooks.endpoints import Endpoint

#: Answers besides 5xx that ask for another try.
_PATIENCE = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})


class EndpointGone(EndpointDisabled):
    """The receiver said that it is gone for good (410); the endpoint is to be disabled."""


class WebhookClient:
    """Sends messages by Standard Webhooks, from any number of threads; make one per process, after the fork.

    Redirects are not followed, proxies and cookies not used. A 2xx is a delivery, whatever its body: that is
    read up to ``answer_bytes`` and thrown away. Errors name the endpoint and the status, never the secret.
    """

    def __init__(
        self, *, timeout_seconds: float, answer_bytes: int, resolve: Resolve, clock: Clock | None = None
    ) -> None:
        """Prepare, without connecting; ``resolve`` decides which addresses may be connected to."""
        self._timeout_seconds = timeout_seconds
        self._answer_bytes = answer_bytes
        self._clock = clock or SystemClock()
        self._transport = DeadlineTransport(self._clock, resolve=resolve)

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def deliver(self, endpoint: Endpoint, message_id: str, body: bytes) -> int:
        """Send a message and return the status of its answer.

        Raises:
            WebhookUnavailable: no answer in time, 5xx, or an answer that asks for patience.
            WebhookForbidden: the host has an address that may not be called.
            EndpointGone: 410.
            WebhookRefused: any other answer, redirects among them.
        """
        until = self._clock.monotonic() + self._timeout_seconds
        request = httpx.Request(
            "POST",
            endpoint.url,
            headers=_headers(endpoint, message_id, body, self._clock.now()),
            content=body,
            extensions={"timeout": httpx.Timeout(self._timeout_seconds).as_dict(), "deadline": until},
        )
        try:
            with closing(self._transport.handle_request(request)) as response:
                # What its body does cannot take back what its status said.
                with suppress(httpx.HTTPError, OSError):
                    self._drain(response, until)
                return _judged(endpoint, response, self._clock.now())
        except RmosError:
            raise
        except (httpx.HTTPError, httpx.StreamError, OSError, ValueError) as error:
            raise WebhookUnavailable(
                f"endpoint {endpoint.name} gave no answer ({type(error).__name__})"
            ) from error

    def _drain(self, response: httpx.Response, until: float) -> None:
        """Read a small answer to its end, so that its connection can serve again."""
        size = 0
        for chunk in response.iter_raw():
            size += len(chunk)
            if size > self._answer_bytes or self._clock.monotonic() >= until:
                return


def _headers(endpoint: Endpoint, message_id: str, body: bytes, at: datetime) -> dict[str, str]:
    signatures = [Webhook(secret).sign(message_id, at, body.decode()) for secret in endpoint.secrets]
    return {
        "Content-Type": "application/json",
        "Accept-Encoding": "identity",
        "User-Agent": "rmos-runs",
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(signatures),
    }


def _judged(endpoint: Endpoint, response: httpx.Response, now: datetime) -> int:
    status = response.status_code
    told = f"endpoint {endpoint.name} answered with status {status}"
    if response.is_success:
        return status
    if status == HTTPStatus.GONE:
        raise EndpointGone(f"{told}: it is gone for good")
    if response.is_server_error or status in _PATIENCE:
        wait = retry_after_seconds(response.headers.get("Retry-After"), now)
        raise WebhookUnavailable(told, retry_after_seconds=wait)
    if response.is_redirect:
        raise WebhookRefused(f"{told}: redirects are not followed; correct its url in RMOS_WEBHOOKS_FILE")
    raise WebhookRefused(told)
