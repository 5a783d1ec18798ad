"""Webhook endpoints as the ledger knows them: which events each wants, and which are disabled."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast, get_args

from rmos_shared.errors import EndpointDisabled, EndpointNotFound
from rmos_shared.ids import new_uuid7
from rmos_shared.jobs.model import Job
from rmos_shared.jobs.redis_errors import broker_errors
from rmos_shared.jobs.script import LedgerScript
from rmos_shared.models.base import Frozen, UtcTime, Utf8Text
from rmos_shared.tasks.payloads import DeliverWebhook, WebhookEvent
from rmos_shared.tasks.table import DELIVER

#: Every event that an endpoint may want.
WEBHOOK_EVENTS: tuple[str, ...] = tuple(name for name in get_args(WebhookEvent) if name != "webhook.test")
#: The reason of an endpoint that its settings disable; another program may not enable that.
CONFIGURED = "configured"


@dataclass(frozen=True, slots=True)
class Subscription:
    """What the settings say of one endpoint: the part of it that the ledger must know."""

    endpoint: str
    events: tuple[str, ...]
    enabled: bool = True


class EndpointState(Frozen):
    """A webhook endpoint as the ledger has it."""

    endpoint: Utf8Text
    events: list[str]
    enabled: bool
    disabled_at_utc: UtcTime | None = None
    #: Why it is disabled.
    reason: Utf8Text | None = None


class JobWebhooks:
    """Who hears of the ends of jobs; atomic and repeatable as ``JobLedger``, and raises as it does."""

    def __init__(self, script: LedgerScript) -> None:
        """Use the ledger's script."""
        self._script = script

    def configure(self, subscriptions: Iterable[Subscription]) -> None:
        """Make these all the endpoints there are. One that was disabled by a receiver's answer stays so."""
        args: list[str | int] = []
        for one in subscriptions:
            args += [one.endpoint, " ".join(one.events), int(one.enabled)]
        self._script.run("configure_endpoints", len(args) // 3, *args)

    def disable(self, endpoint: str, *, reason: str) -> bool:
        """Have no more deliveries accepted for an endpoint; return whether it was enabled."""
        return bool(self._script.run("disable_endpoint", endpoint, reason))

    def enable(self, endpoint: str) -> None:
        """Have deliveries accepted again.

        Raises:
            EndpointNotFound: no endpoint of this name is configured.
            EndpointDisabled: its settings disable it.
        """
        answer = cast("bytes", self._script.run("enable_endpoint", endpoint)).decode()
        if answer == "unknown":
            raise _unknown(endpoint)
        if answer == CONFIGURED:
            raise EndpointDisabled(
                f"webhook endpoint {endpoint} is disabled in RMOS_WEBHOOKS_FILE; enable it there"
            )

    def is_enabled(self, endpoint: str) -> bool:
        """Say whether deliveries to it are to be made."""
        with broker_errors():
            return bool(self._script.client.hexists(f"{self._script.prefix}webhooks", endpoint))

    def endpoints(self) -> list[EndpointState]:
        """Return every endpoint, by name."""
        with broker_errors():
            on = self._script.client.hgetall(f"{self._script.prefix}webhooks")
            off = self._script.client.hgetall(f"{self._script.prefix}webhooks_off")
        states = [_enabled(*item) for item in cast("dict[bytes, bytes]", on).items()]
        states += [_disabled(*item) for item in cast("dict[bytes, bytes]", off).items()]
        return sorted(states, key=lambda state: state.endpoint)

    def test_job(self, endpoint: str) -> Job:
        """Return a job that sends a message of the type ``webhook.test``; accept it to have it sent.

        Raises:
            EndpointNotFound: no endpoint of this name is configured.
            EndpointDisabled: it is disabled.
        """
        state = next((state for state in self.endpoints() if state.endpoint == endpoint), None)
        if state is None:
            raise _unknown(endpoint)
        if not state.enabled:
            raise EndpointDisabled(f"webhook endpoint {endpoint} is disabled ({state.reason})")
        job_id = new_uuid7()
        payload = DeliverWebhook(
            endpoint=endpoint,
            event="webhook.test",
            at_ms=int(job_id[:12], 16),
            job_id=job_id,
            task=DELIVER.name,
            state="done",
        )
        return Job(job_id, DELIVER.name, "", None, payload.to_json())


def _unknown(endpoint: str) -> EndpointNotFound:
    return EndpointNotFound(
        f"webhook endpoint {endpoint} is not configured; `rmos webhooks list` shows what is"
    )


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _enabled(name: bytes, events: bytes) -> EndpointState:
    return EndpointState(endpoint=_text(name), events=_text(events).split(), enabled=True)


def _disabled(name: bytes, told: bytes) -> EndpointState:
    try:
        fields = json.loads(told)
        return EndpointState(
            endpoint=_text(name),
            events=str(fields["events"]).split(),
            enabled=False,
            disabled_at_utc=datetime.fromtimestamp(int(fields["at"]) / 1000, tz=UTC),
            reason=str(fields["reason"]),
        )
    except (ValueError, KeyError, TypeError, OverflowError, OSError):
        return EndpointState(endpoint=_text(name), events=[], enabled=False, reason="unreadable")
