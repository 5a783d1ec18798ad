"""The retry decision as a table: what is put off, for how long, and what is buried."""

from __future__ import annotations

import importlib
import inspect
import math
import pkgutil
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from hypothesis import given
from hypothesis import strategies as st

import rmos_shared
import rmos_worker
from rmos_shared import errors
from rmos_shared.auditlog.entry import EntryInvalid
from rmos_shared.auditlog.keys import KeyFileExists
from rmos_shared.auditlog.note import NoteInvalid
from rmos_shared.auditlog.proof import ProofInvalid
from rmos_shared.errors import (
    AdvisoryUnavailable,
    BreakerOpen,
    EndpointResting,
    FieldProblem,
    RmosError,
    StoreUnavailable,
    WebhookRefused,
    WebhookUnavailable,
)
from rmos_shared.jobs.model import DeadReason, WaitReason
from rmos_shared.store.base import KeyInvalid
from rmos_worker.engine.retry import Bury, GiveBack, RetryLimits, Wait, decide, describe
from rmos_worker.webhooks.client import EndpointGone

LIMITS = RetryLimits(max_tries=8, base_seconds=2.0, cap_seconds=900.0, total_seconds=21_600.0)
SECRET = "hunter2"
PROBLEM = (FieldProblem("mode", "must not be blank"),)

End = Wait | Bury | GiveBack
FREE, PAID = "put off at no cost", "put off at the cost of a try"

#: Every class of the error tree. One that is missing fails a test below.
TABLE: dict[type[RmosError], tuple[RmosError, DeadReason | tuple[str, WaitReason]]] = {
    errors.RmosError: (errors.RmosError("x"), DeadReason.UNEXPECTED_ERROR),
    errors.CallerError: (errors.CallerError("x"), DeadReason.UNEXPECTED_ERROR),
    errors.InvalidRequest: (errors.InvalidRequest(PROBLEM), DeadReason.INVALID_PAYLOAD),
    errors.NotFound: (errors.NotFound("x"), DeadReason.UNEXPECTED_ERROR),
    errors.RunNotFound: (errors.RunNotFound("r"), DeadReason.RUN_NOT_FOUND),
    errors.JobNotFound: (errors.JobNotFound("j"), DeadReason.UNEXPECTED_ERROR),
    errors.AdvisoryNotFound: (errors.AdvisoryNotFound("a"), DeadReason.ADVISORY_REFUSED),
    errors.AttachmentNotFound: (errors.AttachmentNotFound("k"), DeadReason.UNEXPECTED_ERROR),
    errors.AttachmentTooLarge: (errors.AttachmentTooLarge(1), DeadReason.UNEXPECTED_ERROR),
    errors.Conflict: (errors.Conflict("x"), DeadReason.CONFLICT),
    errors.ArtifactConflict: (errors.ArtifactConflict("k"), DeadReason.CONFLICT),
    errors.JobConflict: (errors.JobConflict("j"), DeadReason.CONFLICT),
    errors.AdvisoryRefused: (errors.AdvisoryRefused("x"), DeadReason.ADVISORY_REFUSED),
    errors.ActNotFound: (errors.ActNotFound("a"), DeadReason.UNEXPECTED_ERROR),
    errors.BatchNotFound: (errors.BatchNotFound("b"), DeadReason.UNEXPECTED_ERROR),
    errors.NumberDiffers: (errors.NumberDiffers("x"), DeadReason.UNEXPECTED_ERROR),
    errors.EndpointNotFound: (errors.EndpointNotFound("e"), DeadReason.UNEXPECTED_ERROR),
    errors.WebhookRefused: (errors.WebhookRefused("x"), (PAID, WaitReason.WEBHOOK_REFUSED)),
    errors.WebhookForbidden: (errors.WebhookForbidden("x"), DeadReason.WEBHOOK_REFUSED),
    errors.EndpointDisabled: (errors.EndpointDisabled("x"), DeadReason.ENDPOINT_DISABLED),
    EndpointGone: (EndpointGone("x"), DeadReason.ENDPOINT_DISABLED),
    errors.WebhookUnavailable: (errors.WebhookUnavailable("x"), (PAID, WaitReason.WEBHOOK_UNAVAILABLE)),
    errors.EndpointResting: (errors.EndpointResting("x"), (FREE, WaitReason.ENDPOINT_RESTING)),
    errors.TimestampUnavailable: (
        errors.TimestampUnavailable("x"),
        (PAID, WaitReason.TIMESTAMP_UNAVAILABLE),
    ),
    errors.TimestampRefused: (errors.TimestampRefused("x"), DeadReason.TIMESTAMP_REFUSED),
    errors.TooManyClients: (errors.TooManyClients("x"), DeadReason.UNEXPECTED_ERROR),
    errors.TransitionRefused: (errors.TransitionRefused("x"), DeadReason.UNEXPECTED_ERROR),
    errors.SettingsInvalid: (errors.SettingsInvalid("x"), DeadReason.MISCONFIGURED),
    errors.SealerBusy: (errors.SealerBusy("x"), (FREE, WaitReason.SEALER_BUSY)),
    KeyFileExists: (KeyFileExists(Path("k")), DeadReason.CONFLICT),
    # Errors of the log reach a job only as damage of a file.
    NoteInvalid: (NoteInvalid("x"), DeadReason.UNEXPECTED_ERROR),
    EntryInvalid: (EntryInvalid("x"), DeadReason.UNEXPECTED_ERROR),
    ProofInvalid: (ProofInvalid("x"), DeadReason.UNEXPECTED_ERROR),
    errors.SourceInvalid: (errors.SourceInvalid("x"), DeadReason.UNEXPECTED_ERROR),
    KeyInvalid: (KeyInvalid("x"), DeadReason.UNEXPECTED_ERROR),
    errors.TryLater: (errors.TryLater("x"), DeadReason.UNEXPECTED_ERROR),
    errors.BrokerDamaged: (errors.BrokerDamaged("x"), (FREE, WaitReason.BROKER_DAMAGED)),
    errors.BrokerUnavailable: (errors.BrokerUnavailable("x"), (FREE, WaitReason.BROKER_UNAVAILABLE)),
    errors.AdvisoryUnavailable: (errors.AdvisoryUnavailable("x"), (PAID, WaitReason.ADVISORY_UNAVAILABLE)),
    errors.AdvisoryMisconfigured: (
        errors.AdvisoryMisconfigured("x"),
        (FREE, WaitReason.ADVISORY_MISCONFIGURED),
    ),
    errors.BreakerOpen: (errors.BreakerOpen("x"), (FREE, WaitReason.BREAKER_OPEN)),
    errors.StoreUnavailable: (errors.StoreUnavailable("x"), (FREE, WaitReason.STORE_UNAVAILABLE)),
    errors.DurabilityUnknown: (errors.DurabilityUnknown("x"), (FREE, WaitReason.STORE_UNAVAILABLE)),
    errors.RunPending: (errors.RunPending("r"), (FREE, WaitReason.RUN_PENDING)),
    errors.AttachmentPending: (errors.AttachmentPending("f"), (FREE, WaitReason.ATTACHMENT_PENDING)),
    errors.UploadTimeout: (errors.UploadTimeout("x"), DeadReason.UNEXPECTED_ERROR),
    # No job asks the index for anything.
    errors.IndexUnavailable: (errors.IndexUnavailable("x"), DeadReason.UNEXPECTED_ERROR),
    errors.IndexDamaged: (errors.IndexDamaged("x"), DeadReason.UNEXPECTED_ERROR),
    errors.WaitTimeout: (errors.WaitTimeout("x"), DeadReason.UNEXPECTED_ERROR),
    errors.DamageFound: (errors.DamageFound("x"), DeadReason.UNEXPECTED_ERROR),
    errors.CorruptArtifact: (errors.CorruptArtifact("k", "cut off"), DeadReason.CORRUPT_ARTIFACT),
    errors.InvariantBroken: (errors.InvariantBroken("x"), DeadReason.UNEXPECTED_ERROR),
}


class Impostor(Exception):
    """No error of ours, whatever it says of itself."""

    code = "INVALID_REQUEST"
    retry_after_seconds = 1.0


def middle(low: float, high: float) -> float:
    return (low + high) / 2


def lowest(low: float, high: float) -> float:
    assert low <= high
    return low


def highest(low: float, high: float) -> float:
    assert low <= high
    return high


def decided(
    error: BaseException,
    *,
    retry_count: int = 0,
    waiting_seconds: float = 0.0,
    limits: RetryLimits = LIMITS,
    jitter: Callable[[float, float], float] = middle,
) -> End:
    return decide(
        error, retry_count=retry_count, waiting_seconds=waiting_seconds, limits=limits, jitter=jitter
    )


def delay(error: BaseException, **given: Any) -> float:
    end = decided(error, **given)
    assert isinstance(end, Wait)
    return end.delay_seconds


def tree(root: type[RmosError]) -> Iterator[type[RmosError]]:
    yield root
    for child in root.__subclasses__():
        yield from tree(child)


def test_every_error_of_ours_has_its_row() -> None:
    for package in (rmos_shared, rmos_worker):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith((".main", ".__main__", ".watch")):  # those are programs
                importlib.import_module(module.name)
    ours = {kind for kind in tree(RmosError) if kind.__module__.startswith(("rmos_shared", "rmos_worker"))}
    listed = {kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, RmosError)}
    assert listed <= ours
    assert set(TABLE) == ours
    assert all(type(error) is kind for kind, (error, _) in TABLE.items())


@pytest.mark.parametrize("kind", TABLE, ids=lambda kind: kind.__name__)
def test_the_end_of_each_error_of_ours(kind: type[RmosError]) -> None:
    error, expected = TABLE[kind]
    end = decided(error)
    if isinstance(expected, DeadReason):
        assert isinstance(end, Bury)
        assert end.failure.reason == expected.value
    else:
        cost, reason = expected
        assert isinstance(end, Wait)
        assert end.spends_retry is (cost is PAID)
        assert end.delay_seconds > 0
        assert end.failure.reason == reason.value
        assert end.held is isinstance(error, AdvisoryUnavailable)
    assert end.failure.error_type == kind.__name__
    assert end.failure.message == str(error)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(SECRET), Wait),
        (TimeoutError(SECRET), Wait),
        (SoftTimeLimitExceeded(SECRET), Wait),
        (SystemExit(SECRET), GiveBack),
        (KeyboardInterrupt(SECRET), GiveBack),
        (GeneratorExit(SECRET), Bury),
        (ValueError(SECRET), Bury),
        (KeyError(SECRET), Bury),
        (OSError(28, SECRET), Bury),
        (ConnectionError(SECRET), Bury),
        (RecursionError(SECRET), Bury),
        (AssertionError(SECRET), Bury),
        (Impostor(SECRET), Bury),
        (BaseExceptionGroup(SECRET, [StoreUnavailable(SECRET), SystemExit(SECRET)]), Bury),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else value.__name__,
)
def test_the_end_of_foreign_errors(error: BaseException, expected: type[End]) -> None:
    end = decided(error)
    assert type(end) is expected
    if isinstance(end, Wait):
        assert end.spends_retry
    reason = {
        Wait: WaitReason.TRY_FAILED,
        Bury: DeadReason.UNEXPECTED_ERROR,
        GiveBack: DeadReason.CRASH_LOOP,
    }[expected]
    assert end.failure.reason == reason.value
    assert end.failure.error_type == type(error).__name__


@pytest.mark.parametrize(
    "error", [SystemExit(1), KeyboardInterrupt()], ids=lambda value: type(value).__name__
)
def test_a_process_that_ends_gives_its_job_back_however_old_the_job_is(error: BaseException) -> None:
    assert isinstance(decided(error, retry_count=1_000, waiting_seconds=1e9), GiveBack)


@pytest.mark.parametrize("error", [SystemExit(SECRET), KeyboardInterrupt(SECRET)], ids=repr)
def test_a_process_that_is_asked_to_end_gives_its_job_back(error: BaseException) -> None:
    end = decided(error)
    assert isinstance(end, GiveBack)
    assert end.failure.reason == DeadReason.CRASH_LOOP.value


# -- how often, how long --------------------------------------------------------------------------


@pytest.mark.parametrize("retry_count", range(10))
def test_a_job_is_tried_as_often_as_the_limit_says(retry_count: int) -> None:
    # ``retry_count`` tries were spent before, so this one is number retry_count + 1.
    end = decided(AdvisoryUnavailable("x"), retry_count=retry_count)
    assert isinstance(end, Wait if retry_count + 1 < LIMITS.max_tries else Bury)
    # Only of a job that is dead is it said that its tries are exhausted.
    dead = isinstance(end, Bury)
    told = DeadReason.RETRIES_EXHAUSTED if dead else WaitReason.ADVISORY_UNAVAILABLE
    assert end.failure.reason == told.value


def test_a_limit_of_one_means_no_second_try() -> None:
    assert isinstance(decided(AdvisoryUnavailable("x"), limits=RetryLimits(1, 2.0, 900.0, 21_600.0)), Bury)


@pytest.mark.parametrize(
    "kind", [kind for kind, (_, end) in TABLE.items() if end[0] is FREE], ids=lambda k: k.__name__
)
def test_what_is_no_fault_of_the_job_costs_no_try_only_time(kind: type[RmosError]) -> None:
    error = TABLE[kind][0]
    assert isinstance(decided(error, retry_count=1_000), Wait)
    assert isinstance(decided(error, retry_count=1_000, waiting_seconds=21_599.999), Wait)
    end = decided(error, waiting_seconds=21_600.0)
    assert isinstance(end, Bury)
    assert end.failure.reason == DeadReason.RETRIES_EXHAUSTED.value


@pytest.mark.parametrize("retry_count", range(4))
def test_a_receiver_that_refuses_is_asked_three_times(retry_count: int) -> None:
    end = decided(WebhookRefused("x"), retry_count=retry_count)
    assert isinstance(end, Wait if retry_count < 2 else Bury)
    assert end.failure.reason == "webhook_refused"
    assert isinstance(decided(WebhookRefused("x"), limits=RetryLimits(1, 2.0, 900.0, 21_600.0)), Bury), (
        "no oftener than any job"
    )


def test_what_waits_for_an_endpoint_that_rests_comes_back_ever_less_often() -> None:
    error = EndpointResting("x", retry_after_seconds=5)
    assert delay(error, jitter=lowest, waiting_seconds=600) == 5
    assert delay(error, jitter=highest) == 7
    assert delay(error, jitter=highest, waiting_seconds=600) == 605
    assert delay(error, jitter=highest, waiting_seconds=10_000) == 900


def test_the_total_time_ends_paid_tries_too() -> None:
    assert isinstance(decided(AdvisoryUnavailable("x"), waiting_seconds=21_599.999), Wait)
    assert isinstance(decided(AdvisoryUnavailable("x"), waiting_seconds=21_600.0), Bury)


def test_the_total_time_outranks_what_the_store_asked_for() -> None:
    assert isinstance(
        decided(AdvisoryUnavailable("x", retry_after_seconds=1), waiting_seconds=21_600.0), Bury
    )


@pytest.mark.parametrize(
    ("retry_count", "ceiling"),
    [(0, 2), (1, 4), (2, 8), (3, 16), (8, 512), (9, 900), (10, 900), (31, 900), (10_000, 900)],
)
def test_the_delay_doubles_up_to_the_cap(retry_count: int, ceiling: float) -> None:
    error = StoreUnavailable("x")
    assert delay(error, retry_count=retry_count, jitter=highest) == ceiling
    assert delay(error, retry_count=retry_count, jitter=lowest) == ceiling / 2


def test_a_cap_below_the_base_holds() -> None:
    limits = RetryLimits(max_tries=8, base_seconds=10.0, cap_seconds=3.0, total_seconds=60.0)
    assert delay(StoreUnavailable("x"), limits=limits, jitter=highest) == 3.0


@pytest.mark.parametrize(
    ("asked", "low", "high"),
    [
        (0, 0, 2),
        (0.5, 0.5, 2.5),
        (30, 30, 32),
        (898, 898, 900),
        (899, 899, 900),
        (900, 900, 900),
        (86_400, 900, 900),
    ],
)
@pytest.mark.parametrize("kind", [AdvisoryUnavailable, BreakerOpen, WebhookUnavailable])
def test_retry_after_outranks_our_delay_within_our_cap(
    kind: type[AdvisoryUnavailable], asked: float, low: float, high: float
) -> None:
    error = kind("x", retry_after_seconds=asked)
    assert delay(error, retry_count=5, jitter=lowest) == low
    assert delay(error, retry_count=5, jitter=highest) == high


@pytest.mark.parametrize("asked", [-1.0, -math.inf, math.inf])
def test_no_retry_after_leads_out_of_bounds(asked: float) -> None:
    for jitter in (lowest, highest):
        assert 0 <= delay(AdvisoryUnavailable("x", retry_after_seconds=asked), jitter=jitter) <= 900


@given(
    retry_count=st.integers(0, 100),
    base=st.floats(0.01, 600),
    cap=st.floats(0.01, 86_400),
    asked=st.none() | st.floats(0, 1e9),
    seed=st.integers(),
)
def test_the_delay_is_never_beyond_the_cap(
    retry_count: int, base: float, cap: float, asked: float | None, seed: int
) -> None:
    limits = RetryLimits(max_tries=1_000, base_seconds=base, cap_seconds=cap, total_seconds=1e9)
    error = AdvisoryUnavailable("x", retry_after_seconds=asked)
    jitter = random.Random(seed).uniform  # noqa: S311 - jitter is no secret
    drawn = delay(error, retry_count=retry_count, limits=limits, jitter=jitter)
    assert 0 <= drawn <= cap


def test_jobs_put_off_together_do_not_come_back_together() -> None:
    draw = random.Random(1)  # noqa: S311 - jitter is no secret
    drawn = {delay(StoreUnavailable("x"), retry_count=3, jitter=draw.uniform) for _ in range(100)}
    assert len(drawn) == 100
    assert max(drawn) - min(drawn) > 4


# -- while nobody reaches the advisory store ------------------------------------------------------


@pytest.mark.parametrize("kind", [AdvisoryUnavailable, errors.AdvisoryMisconfigured, BreakerOpen])
def test_an_outage_costs_no_job_a_try(kind: type[AdvisoryUnavailable]) -> None:
    end = decided(kind("x", outage=True), retry_count=1_000)
    assert isinstance(end, Wait)
    assert (end.spends_retry, end.outage, end.held) == (False, True, True)
    assert isinstance(decided(kind("x", outage=True), waiting_seconds=21_600.0), Bury)


@pytest.mark.parametrize(
    ("waiting", "asked", "low", "high"),
    [
        (0.0, 5.0, 5, 10),  # at first over the breaker's own time
        (60.0, 5.0, 5, 65),  # then over as long again as the outage has lasted
        (600.0, 5.0, 5, 605),
        (10_000.0, 5.0, 5, 900),  # and within the cap
        (0.0, None, 1, 2),
        (60.0, None, 1, 61),
        (0.0, 1e9, 900, 900),  # whatever the store asks for
    ],
)
def test_jobs_of_an_outage_are_spread_over_a_time_that_grows_with_it(
    waiting: float, asked: float | None, low: float, high: float
) -> None:
    error = AdvisoryUnavailable("x", retry_after_seconds=asked, outage=True)
    assert delay(error, waiting_seconds=waiting, jitter=lowest) == low
    assert delay(error, waiting_seconds=waiting, jitter=highest) == high


# -- what is told ---------------------------------------------------------------------------------


def raised(error: BaseException) -> BaseException:
    def handle(payload: str) -> None:
        raise error from ValueError(payload)

    try:
        handle(SECRET)
    except BaseException as caught:  # noqa: BLE001 - any of them, as in the executor
        return caught
    raise AssertionError


@pytest.mark.parametrize(
    "error",
    [
        ValueError(SECRET),
        KeyError(SECRET),
        SystemExit(SECRET),
        UnicodeDecodeError("utf-8", SECRET.encode(), 0, 1, SECRET),
    ],
    ids=lambda value: type(value).__name__,
)
def test_nothing_of_the_payload_is_told_of_a_foreign_error(error: BaseException) -> None:
    told = describe(raised(error), DeadReason.UNEXPECTED_ERROR)
    assert SECRET not in told.to_bytes().decode()
    assert told.message == f"{type(error).__name__} in the task; see the traceback"
    assert "in handle" in told.traceback
    assert 'File "' in told.traceback


def test_the_cause_of_an_error_of_ours_is_not_quoted() -> None:
    told = describe(raised(StoreUnavailable("cannot write a.json: disk full")), DeadReason.RETRIES_EXHAUSTED)
    assert SECRET not in told.to_bytes().decode()
    assert told.message == "cannot write a.json: disk full"


def test_notes_on_an_error_are_not_quoted() -> None:
    error = raised(ValueError("x"))
    error.add_note(SECRET)
    assert SECRET not in describe(error, DeadReason.UNEXPECTED_ERROR).to_bytes().decode()


def test_the_traceback_is_cut_to_its_end() -> None:
    def deeper(levels: int) -> None:
        if levels:
            deeper(levels - 1)
        else:
            the_last_frame()

    def the_last_frame() -> None:
        raise Impostor

    with pytest.raises(Impostor) as caught:
        deeper(300)
    told = describe(caught.value, DeadReason.UNEXPECTED_ERROR).traceback
    assert told.count('File "') <= 15
    assert "in the_last_frame" in told


def test_an_error_that_was_never_raised_has_no_traceback() -> None:
    assert describe(ValueError("x"), DeadReason.UNEXPECTED_ERROR).traceback == ""


def test_an_odd_name_in_the_text_does_not_keep_the_job_from_being_buried() -> None:
    end = decided(errors.RunNotFound("a\ud800"))
    assert isinstance(end, Bury)
    assert "run a\\ud800 is not in the store" in end.failure.message
    end.failure.to_bytes()
