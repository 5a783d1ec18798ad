"""The arguments of each task; nothing else is in a job's payload."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from rmos_shared.advisories.model import AdvisoryKind, DetailLevel
from rmos_shared.models.base import Frozen, IsoDate, SafeId, SingleLine, Utf8Text
from rmos_shared.runs.model import RunRequest

#: What webhooks tell of.
WebhookEvent = Literal[
    "run.created",
    "run.explained",
    "advisory.attached",
    "batch.done",
    "job.dead",
    "job.discarded",
    "webhook.test",
]


class CreateRun(Frozen):
    """Payload of ``runs.create`` and ``runs.create_many``: store this run, then explain it if asked."""

    run: RunRequest
    explain: DetailLevel | None = None


class SuggestAndAttach(Frozen):
    """Payload of ``runs.suggest_and_attach``."""

    run_id: SafeId
    request_id: SingleLine | None = None
    detail: DetailLevel = "summary"


class AttachAdvisory(Frozen):
    """Payload of ``runs.attach_advisory``: link an advisory that the advisory store already holds."""

    run_id: SafeId
    advisory_id: SafeId
    kind: AdvisoryKind = "advisory"
    request_id: SingleLine | None = None


class ExplainMissing(Frozen):
    """Payload of ``runs.explain_missing``: have every run of these days explained that has no explanation."""

    #: UTC dates, ``YYYY-MM-DD``, both inclusive.
    date_from: IsoDate
    date_to: IsoDate
    detail: DetailLevel = "summary"
    request_id: SingleLine | None = None
    #: Where an earlier job of the same batch stopped: the last run that it looked at.
    after_run_id: SafeId | None = None


class DeliverWebhook(Frozen):
    """Payload of ``webhooks.deliver``: tell an endpoint how a job ended. Written by ``endpoints.lua``."""

    #: The endpoint's name; its address and secret are in the worker's settings alone.
    endpoint: SingleLine
    event: WebhookEvent
    #: When the job ended, in milliseconds since 1970.
    at_ms: Annotated[int, Field(ge=0, le=253_402_300_799_999)]
    job_id: SingleLine
    task: SingleLine
    state: Literal["done", "dead", "discarded"]
    run_id: Utf8Text | None = None
    request_id: Utf8Text | None = None
    #: What a job that is done came to: ids and outcomes.
    result: dict[str, Any] | None = None
    #: Why a job is dead.
    reason: Utf8Text | None = None
    error_type: Utf8Text | None = None
