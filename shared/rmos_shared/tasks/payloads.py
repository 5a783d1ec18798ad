"""The arguments of each task; nothing else is in a job's payload."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from rmos_shared.advisories.model import AdvisoryKind, DetailLevel
from rmos_shared.batches.choice import RunChoice
from rmos_shared.models.base import Frozen, SafeId, SingleLine, Utf8Text
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


class PlanBatch(Frozen):
    """Payload of ``batches.plan``: look through the next page of a batch's runs."""

    batch_id: SafeId
    choice: RunChoice
    #: Where the page before stopped: the key of the last run that it looked at.
    after: Utf8Text | None = None
    #: The most runs that the page may have explained.
    most_jobs: Annotated[int, Field(ge=1)]
    rate_per_second: float | None = None


class ReexplainRun(Frozen):
    """Payload of ``runs.reexplain``: explain a run unless the engine in use has done so already."""

    batch_id: SafeId
    run_id: SafeId
    detail: DetailLevel = "summary"


class ReportBatch(Frozen):
    """Payload of ``batches.report``: write down what a batch has come to."""

    batch_id: SafeId


class SealLog(Frozen):
    """Payload of ``audit.seal``: bring into the audit log what was published since the seal before."""

    #: Of the job; see ``ids.seal_job_id``.
    number: Annotated[int, Field(ge=0)]


class TimestampCheckpoint(Frozen):
    """Payload of ``audit.timestamp``: have the newest checkpoint stamped, once for this UTC day."""

    day: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]


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
