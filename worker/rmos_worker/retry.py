"""What becomes of a job whose try failed: put off, or buried. A pure decision, tested as a table."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from rmos_shared.errors import (
    AdvisoryNotFound,
    AdvisoryRefused,
    AdvisoryUnavailable,
    BreakerOpen,
    BrokerUnavailable,
    Conflict,
    CorruptArtifact,
    InvalidRequest,
    RmosError,
    RunNotFound,
    RunPending,
    StoreUnavailable,
)
from rmos_shared.models.job import DeadReason, Failure

_TRACEBACK_LINES = 15


@dataclass(frozen=True, slots=True)
class Wait:
    """Put the job off."""

    verb: ClassVar[str] = "job put off"
    delay_seconds: float
    #: False when the job is not to blame: the breaker is open, the disk is full.
    spends_try: bool
    failure: Failure


@dataclass(frozen=True, slots=True)
class Bury:
    """Put the job among the dead letters."""

    verb: ClassVar[str] = "job buried"
    failure: Failure


@dataclass(frozen=True, slots=True)
class GiveBack:
    """Let the job start again elsewhere, at once: this process is asked to end."""

    verb: ClassVar[str] = "job given back"
    failure: Failure


@dataclass(frozen=True, slots=True)
class RetryLimits:
    """How long a job is kept alive; the settings of the same names."""

    tries: int
    base_seconds: float
    cap_seconds: float
    total_seconds: float


#: What cannot succeed dies at once.
_HOPELESS: tuple[tuple[type[RmosError], DeadReason], ...] = (
    (InvalidRequest, DeadReason.INVALID_PAYLOAD),
    (Conflict, DeadReason.CONFLICT),
    (RunNotFound, DeadReason.RUN_NOT_FOUND),
    (AdvisoryNotFound, DeadReason.ADVISORY_REFUSED),
    (AdvisoryRefused, DeadReason.ADVISORY_REFUSED),
    (CorruptArtifact, DeadReason.CORRUPT_ARTIFACT),
)
#: What is no fault of the job costs it no try, only time.
_BLAMELESS = (BreakerOpen, StoreUnavailable, BrokerUnavailable, RunPending)
#: What may pass and may be the job's own doing: it pays with a try. MemoryError and a soft time limit too.
_PASSING = (AdvisoryUnavailable, MemoryError, TimeoutError)
#: How a signal, a hard time limit or a deploy reaches a task; sys.exit in a task cannot be told from them.
_ENDING = (SystemExit, KeyboardInterrupt)
_SOFT_TIME_LIMIT = "SoftTimeLimitExceeded"


def decide(
    error: BaseException,
    *,
    tries: int,
    waiting_seconds: float,
    limits: RetryLimits,
    jitter: Callable[[float, float], float],
) -> Wait | Bury | GiveBack:
    """Say what becomes of a job that failed with ``error``.

    ``tries`` is how often it was put off at its own cost before, ``waiting_seconds`` how long ago that
    began; ``jitter(low, high)`` draws a number between two, such as ``random.uniform``.
    """
    if isinstance(error, _ENDING):
        return GiveBack(describe(error, DeadReason.CRASH_LOOP))
    for kind, reason in _HOPELESS:
        if isinstance(error, kind):
            return Bury(describe(error, reason))
    blameless = isinstance(error, _BLAMELESS)
    if not blameless and not (isinstance(error, _PASSING) or type(error).__name__ == _SOFT_TIME_LIMIT):
        return Bury(describe(error, DeadReason.UNEXPECTED_ERROR))
    failure = describe(error, DeadReason.RETRIES_EXHAUSTED)
    if waiting_seconds >= limits.total_seconds or (not blameless and tries + 1 >= limits.tries):
        return Bury(failure)
    ceiling = min(limits.cap_seconds, limits.base_seconds * 2 ** min(tries, 32))
    delay = jitter(ceiling / 2, ceiling)
    asked = getattr(error, "retry_after_seconds", None)
    if asked is not None:
        # The store knows best, within our cap; the jitter keeps the jobs from coming back all at once.
        delay = min(max(asked, 0) + jitter(0, limits.base_seconds), limits.cap_seconds)
    return Wait(delay, spends_try=not blameless, failure=failure)


def describe(error: BaseException, reason: DeadReason) -> Failure:
    """Return what may be told of an error.

    The texts of our own errors hold no payloads by rule; of a foreign error only its class is told.
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
