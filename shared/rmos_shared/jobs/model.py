"""A job as it is accepted, the record that the ledger keeps of it, and raw letters."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field

from rmos_shared.models.base import Frozen, SingleLine, UtcTime, Utf8Text


class JobState(StrEnum):
    """Where a job is; all but the last three are pending."""

    ACCEPTED = "accepted"
    RUNNING = "running"
    WAITING = "waiting"
    DONE = "done"
    DEAD = "dead"
    DISCARDED = "discarded"

    @property
    def pending(self) -> bool:
        """Whether work is still to be done."""
        return self in {JobState.ACCEPTED, JobState.RUNNING, JobState.WAITING}


class DeadReason(StrEnum):
    """Why a job or message is among the dead letters."""

    INVALID_PAYLOAD = "invalid_payload"
    MALFORMED_MESSAGE = "malformed_message"
    CONFLICT = "conflict"
    RUN_NOT_FOUND = "run_not_found"
    ADVISORY_REFUSED = "advisory_refused"
    RETRIES_EXHAUSTED = "retries_exhausted"
    CRASH_LOOP = "crash_loop"
    CORRUPT_ARTIFACT = "corrupt_artifact"
    UNEXPECTED_ERROR = "unexpected_error"
    #: A webhook's receiver does not take the message, or may not be called.
    WEBHOOK_REFUSED = "webhook_refused"
    #: What the worker was given for it does not fit, such as a key that the audit log does not trust.
    MISCONFIGURED = "misconfigured"
    #: The webhook endpoint is disabled, or no longer configured.
    ENDPOINT_DISABLED = "endpoint_disabled"
    #: A time-stamp authority refused, or answered another query.
    TIMESTAMP_REFUSED = "timestamp_refused"


class WaitReason(StrEnum):
    """Why a job is put off."""

    #: The advisory store was called, and did not answer or asked for patience.
    ADVISORY_UNAVAILABLE = "advisory_unavailable"
    ADVISORY_MISCONFIGURED = "advisory_misconfigured"
    #: The advisory store was not called: the breaker holds all calls back.
    BREAKER_OPEN = "breaker_open"
    STORE_UNAVAILABLE = "store_unavailable"
    BROKER_UNAVAILABLE = "broker_unavailable"
    BROKER_DAMAGED = "broker_damaged"
    RUN_PENDING = "run_pending"
    ATTACHMENT_PENDING = "attachment_pending"
    #: A webhook's receiver did not answer, or asked for patience.
    WEBHOOK_UNAVAILABLE = "webhook_unavailable"
    #: It answered with a refusal, which a few tries later is final.
    WEBHOOK_REFUSED = "webhook_refused"
    #: A webhook's receiver was not called: it failed too often a moment ago, or has its share of the worker.
    ENDPOINT_RESTING = "endpoint_resting"
    #: Another worker seals the audit log.
    SEALER_BUSY = "sealer_busy"
    #: A time-stamp authority did not answer, or asked for patience.
    TIMESTAMP_UNAVAILABLE = "timestamp_unavailable"
    #: Something that may pass: no memory, no time.
    TRY_FAILED = "try_failed"


@dataclass(frozen=True, slots=True)
class Job:
    """A job to accept. Its id is minted before the first try, so accepting again is a repeat.

    Made by us of what a model has checked, so it is not checked again.
    """

    job_id: str
    task: str
    run_id: str
    request_id: str | None
    #: JSON of the task's payload model.
    payload: str
    #: Where in a caller's trace it belongs (W3C Trace Context), kept with the record.
    traceparent: str | None = None
    #: The batch that it belongs to, which counts how it ends.
    batch_id: str | None = None


@dataclass(frozen=True, slots=True)
class OnceJob:
    """A job that is accepted at most once under a key of its caller's."""

    job: Job
    #: Of the caller and its key: 64 hex digits, so that neither is in the name of a key in Redis.
    digest: str
    #: Of what was asked; another one under the same key is refused.
    body_sha256: str
    #: JSON that answers every later time.
    receipt: str


class Failure(Frozen):
    """What went wrong in one try, as far as it may be shown."""

    reason: SingleLine
    error_type: SingleLine
    message: Utf8Text
    traceback: Utf8Text = ""


class JobRecord(Frozen):
    """A job as the ledger shows it, without its payload."""

    job_id: SingleLine
    task: SingleLine
    queue: SingleLine
    state: Annotated[JobState, Field(strict=False)]
    run_id: Utf8Text
    request_id: Utf8Text | None
    traceparent: Utf8Text | None = None
    #: The batch of re-explanations that it belongs to.
    batch_id: Utf8Text | None = None
    payload_sha256: Utf8Text
    accepted_at_utc: UtcTime
    changed_at_utc: UtcTime
    due_at_utc: UtcTime | None = None
    #: Starts without a finish; more than the limit is a crash loop.
    crash_count: int
    #: Tries that failed and were put off.
    retry_count: int
    worker: Utf8Text | None = None
    #: What the job came to: ids and outcomes, set when done.
    result: dict[str, Any] | None = None
    #: The last failure, kept through replay until the job is done.
    failure: Failure | None = None
    first_failed_at_utc: UtcTime | None = None
    last_failed_at_utc: UtcTime | None = None
    code_version: Utf8Text | None = None
    #: One line per replay or discard: when, by whom, why.
    history: list[dict[str, Any]] = Field(default_factory=list)


class RawLetter(Frozen):
    """A message that is no job of ours, kept verbatim."""

    raw_id: SingleLine
    queue: SingleLine
    reason: SingleLine
    detail: Utf8Text
    kept_at_utc: UtcTime
    size_bytes: int
    state: Annotated[JobState, Field(strict=False)] = JobState.DEAD
    history: list[dict[str, Any]] = Field(default_factory=list)


class LedgerStats(Frozen):
    """The ledger's figures, read in one atomic step.

    ``raw`` letters were never accepted as jobs, so they stand apart.
    """

    accepted: int
    done: int
    dead: int
    discarded: int
    waiting: int
    running: int
    ready: int
    raw: int
    queues: dict[str, int]

    @property
    def pending(self) -> int:
        """Jobs still to be done."""
        return self.waiting + self.running + self.ready

    @property
    def invariant(self) -> bool:
        """Whether accepted = done + dead + discarded + pending."""
        return self.accepted == self.done + self.dead + self.discarded + self.pending
