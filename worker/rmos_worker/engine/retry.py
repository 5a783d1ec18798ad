"""What becomes of a job whose try failed: put off, or buried. A pure decision, tested as a table."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass

from rmos_shared.errors import (
    AdvisoryMisconfigured,
    AdvisoryNotFound,
    AdvisoryRefused,
    AdvisoryUnavailable,
    AttachmentPending,
    BreakerOpen,
    BrokerDamaged,
    BrokerUnavailable,
    Conflict,
    CorruptArtifact,
    EndpointDisabled,
    EndpointResting,
    InvalidRequest,
    RmosError,
    RunNotFound,
    RunPending,
    SealerBusy,
    SettingsInvalid,
    StoreUnavailable,
    TimestampRefused,
    TimestampUnavailable,
    WebhookForbidden,
    WebhookRefused,
    WebhookUnavailable,
)
from rmos_shared.jobs.model import DeadReason, Failure, WaitReason

_TRACEBACK_LINES = 15


@dataclass(frozen=True, slots=True)
class Wait:
    """Put the job off."""

    delay_seconds: float
    #: False when the job is not to blame: the breaker is open, the disk is full.
    spends_retry: bool
    failure: Failure
    #: True when it waits for the advisory store, and may be brought forward once that is back.
    held: bool = False
    #: True when it is one of the many that an outage puts off; the breaker reports the outage itself.
    outage: bool = False


@dataclass(frozen=True, slots=True)
class Bury:
    """Put the job among the dead letters."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class GiveBack:
    """Let the job start again elsewhere, at once: this process is asked to end."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class RetryLimits:
    """How long a job is kept alive; the settings of the same names."""

    max_tries: int
    base_seconds: float
    cap_seconds: float
    total_seconds: float


#: Errors that no retry can mend; the job dies at once.
_HOPELESS: tuple[tuple[type[RmosError], DeadReason], ...] = (
    (InvalidRequest, DeadReason.INVALID_PAYLOAD),
    (Conflict, DeadReason.CONFLICT),
    (RunNotFound, DeadReason.RUN_NOT_FOUND),
    (AdvisoryNotFound, DeadReason.ADVISORY_REFUSED),
    (AdvisoryRefused, DeadReason.ADVISORY_REFUSED),
    (CorruptArtifact, DeadReason.CORRUPT_ARTIFACT),
    (WebhookForbidden, DeadReason.WEBHOOK_REFUSED),
    (EndpointDisabled, DeadReason.ENDPOINT_DISABLED),
    (SettingsInvalid, DeadReason.MISCONFIGURED),
    (TimestampRefused, DeadReason.TIMESTAMP_REFUSED),
)
#: Errors that may pass, with their reason and whether they cost a try: one that is no fault of the job costs
#: it time only. The first row that fits rules.
_PASSING: tuple[tuple[type[BaseException], WaitReason, bool], ...] = (
    (BreakerOpen, WaitReason.BREAKER_OPEN, False),
    (AdvisoryMisconfigured, WaitReason.ADVISORY_MISCONFIGURED, False),
    (AdvisoryUnavailable, WaitReason.ADVISORY_UNAVAILABLE, True),
    (EndpointResting, WaitReason.ENDPOINT_RESTING, False),
    (WebhookUnavailable, WaitReason.WEBHOOK_UNAVAILABLE, True),
    (WebhookRefused, WaitReason.WEBHOOK_REFUSED, True),
    (TimestampUnavailable, WaitReason.TIMESTAMP_UNAVAILABLE, True),
    (StoreUnavailable, WaitReason.STORE_UNAVAILABLE, False),
    (BrokerUnavailable, WaitReason.BROKER_UNAVAILABLE, False),
    (BrokerDamaged, WaitReason.BROKER_DAMAGED, False),
    (RunPending, WaitReason.RUN_PENDING, False),
    (AttachmentPending, WaitReason.ATTACHMENT_PENDING, False),
    (SealerBusy, WaitReason.SEALER_BUSY, False),
    (MemoryError, WaitReason.TRY_FAILED, True),
    (TimeoutError, WaitReason.TRY_FAILED, True),
)
#: How a signal, a hard time limit or a deploy reaches a task; sys.exit in a task cannot be told from them.
_ENDING = (SystemExit, KeyboardInterrupt)
_SOFT_TIME_LIMIT = "SoftTimeLimitExceeded"
#: A receiver that refuses may be in the middle of a deploy; one that still does is not asked for hours.
_TRIES_OF_REFUSED = 3


def decide(
    error: BaseException,
    *,
    retry_count: int,
    waiting_seconds: float,
    limits: RetryLimits,
    jitter: Callable[[float, float], float],
) -> Wait | Bury | GiveBack:
    """Say what becomes of a job that failed with ``error``.

    ``retry_count`` is how often it was put off at its own cost before, ``waiting_seconds`` how long ago that
    began; ``jitter(low, high)`` draws a number between two, such as ``random.uniform``.
    """
    if isinstance(error, _ENDING):
        return GiveBack(describe(error, DeadReason.CRASH_LOOP))
    for kind, hopeless in _HOPELESS:
        if isinstance(error, kind):
            return Bury(describe(error, hopeless))
    passing = _passing(error)
    if passing is None:
        return Bury(describe(error, DeadReason.UNEXPECTED_ERROR))
    reason, costs_try = passing
    held = isinstance(error, AdvisoryUnavailable)
    # While nobody reaches the store, the job that probes it is no more to blame than the jobs that wait.
    outage = isinstance(error, AdvisoryUnavailable) and error.outage
    spends_retry = costs_try and not outage
    refused = isinstance(error, WebhookRefused)
    most_tries = min(limits.max_tries, _TRIES_OF_REFUSED) if refused else limits.max_tries
    if waiting_seconds >= limits.total_seconds or (spends_retry and retry_count + 1 >= most_tries):
        return Bury(describe(error, DeadReason.WEBHOOK_REFUSED if refused else DeadReason.RETRIES_EXHAUSTED))
    asked = (
        error.retry_after_seconds
        if isinstance(error, (AdvisoryUnavailable, WebhookUnavailable, TimestampUnavailable))
        else None
    )
    if asked is None:
        ceiling = min(limits.cap_seconds, limits.base_seconds * 2 ** min(retry_count, 32))
        low, high = ceiling / 2, ceiling
    else:
        # The store knows best, within our cap; the jitter keeps the jobs from coming back all at once.
        low = min(max(asked, 0), limits.cap_seconds)
        high = low + limits.base_seconds
    if outage:
        # Spread over as long again as the outage has lasted. None of them needs to come and see: the
        # reconciler sends one, and brings all forward when the store is back.
        high = max(high, 2 * low, low + waiting_seconds)
    elif isinstance(error, EndpointResting):
        # However many wait for one endpoint, they take ever less of the worker's time from the others.
        high = max(high, low + waiting_seconds)
    delay = min(jitter(low, high), limits.cap_seconds)
    return Wait(delay, spends_retry=spends_retry, failure=describe(error, reason), held=held, outage=outage)


def _passing(error: BaseException) -> tuple[WaitReason, bool] | None:
    for kind, reason, costs_try in _PASSING:
        if isinstance(error, kind):
            return reason, costs_try
    return (WaitReason.TRY_FAILED, True) if type(error).__name__ == _SOFT_TIME_LIMIT else None


def describe(error: BaseException, reason: DeadReason | WaitReason) -> Failure:
    """Return the part of an error that may be shown.

    The texts of our own errors hold no payloads by rule; of a foreign error only the class is given.
    """
    ours = isinstance(error, RmosError)
    return Failure(
        reason=reason.value,
        error_type=type(error).__name__,
        # A name in it may come from outside; a lone surrogate must not keep the job from being buried.
        message=str(error).encode("utf-8", "backslashreplace").decode()
        if ours
        else f"{type(error).__name__} in the task; see the traceback",
        traceback=_frames(error),
    )


def _frames(error: BaseException) -> str:
    # Frames only, without the exceptions' own texts, which may quote values.
    lines = traceback.format_tb(error.__traceback__)
    return "".join(lines[-_TRACEBACK_LINES:])
