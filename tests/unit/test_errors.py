"""The error tree: what a caller may rely on without reading the code."""

from __future__ import annotations

import inspect
import pickle
import re
from collections.abc import Iterator

import pytest

from rmos_shared import errors
from rmos_shared.errors import (
    AdvisoryUnavailable,
    BreakerOpen,
    CallerError,
    CorruptArtifact,
    DamageFound,
    DurabilityUnknown,
    FieldProblem,
    InvalidRequest,
    NotFound,
    RmosError,
    SettingsInvalid,
    StoreUnavailable,
    TryLater,
)

TREE = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, RmosError)]
#: Scripts rely on these.
EXIT_CODES = {
    "RmosError": 1,
    "SettingsInvalid": 2,
    "CallerError": 3,
    "InvalidRequest": 3,
    "SourceInvalid": 3,
    "NotFound": 4,
    "RunNotFound": 4,
    "JobNotFound": 4,
    "ActNotFound": 4,
    "AdvisoryNotFound": 4,
    "AttachmentNotFound": 4,
    "BatchNotFound": 4,
    "AttachmentTooLarge": 3,
    "EndpointNotFound": 4,
    "Conflict": 5,
    "ArtifactConflict": 5,
    "JobConflict": 5,
    "AdvisoryRefused": 5,
    "WebhookRefused": 5,
    "WebhookForbidden": 5,
    "EndpointDisabled": 5,
    "TransitionRefused": 5,
    "NumberDiffers": 5,
    "TryLater": 6,
    "BrokerUnavailable": 6,
    "AdvisoryMisconfigured": 6,
    "AdvisoryUnavailable": 6,
    "BreakerOpen": 6,
    "StoreUnavailable": 6,
    "DurabilityUnknown": 6,
    "WebhookUnavailable": 6,
    "EndpointResting": 6,
    "TooManyClients": 6,
    "RunPending": 6,
    "AttachmentPending": 6,
    "SealerBusy": 6,
    "TimestampUnavailable": 6,
    "TimestampRefused": 5,
    "UploadTimeout": 6,
    "IndexUnavailable": 6,
    "WaitTimeout": 6,
    "DamageFound": 7,
    "CorruptArtifact": 7,
    "BrokerDamaged": 7,
    "IndexDamaged": 7,
    "InvariantBroken": 8,
}
LEAVES_OF = {kind: [other for other in TREE if issubclass(other, kind)] for kind in TREE}


def _drawn() -> Iterator[tuple[str, str]]:
    """Yield (parent, child) from the tree drawn at the top of the module."""
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"    (?P<lines>[│ ├└─]*)(?P<name>[A-Z]\w+)", line):
            depth = len(found["lines"]) // 4
            path[depth:] = [found["name"]]
            if depth:
                yield path[depth - 1], found["name"]


def test_the_tree_drawn_at_the_top_is_the_tree() -> None:
    real = {(kind.__bases__[0].__name__, kind.__name__) for kind in TREE if kind is not RmosError}
    assert set(_drawn()) == real


def test_each_code_belongs_to_one_class() -> None:
    codes = [kind.__dict__["code"] for kind in TREE]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[A-Z]+(_[A-Z]+)*", code) for code in codes)


@pytest.mark.parametrize("kind", TREE)
def test_each_class_says_what_it_means(kind: type[RmosError]) -> None:
    assert kind.__dict__["__doc__"].strip().endswith(".")
    assert isinstance(kind.exit_code, int)
    assert 1 <= kind.exit_code <= 125
    assert 400 <= kind.http_status <= 599


def test_exit_codes_never_change() -> None:
    assert {kind.__name__: kind.exit_code for kind in TREE} == EXIT_CODES


@pytest.mark.parametrize(
    ("kind", "statuses"),
    [(CallerError, {400, 404, 409, 413, 502}), (TryLater, {408, 503, 504}), (DamageFound, {500})],
)
def test_http_statuses_follow_the_branch(kind: type[RmosError], statuses: set[int]) -> None:
    assert {child.http_status for child in LEAVES_OF[kind]} <= statuses


def test_invalid_input_is_400_and_never_500() -> None:
    assert InvalidRequest.http_status == 400


def test_a_caller_does_one_of_three_things_next() -> None:
    for kind in TREE:
        if kind is not RmosError:
            assert sum(issubclass(kind, branch) for branch in (CallerError, TryLater, DamageFound)) == 1


def test_corrupt_is_not_missing() -> None:
    assert not issubclass(CorruptArtifact, NotFound)
    assert not issubclass(CorruptArtifact, CallerError)
    assert not issubclass(CorruptArtifact, TryLater)


def test_what_was_not_tried_and_what_may_not_last_are_passing_trouble() -> None:
    assert issubclass(BreakerOpen, AdvisoryUnavailable)
    assert issubclass(DurabilityUnknown, StoreUnavailable)


def test_a_corrupt_file_is_named_with_what_is_wrong() -> None:
    error = CorruptArtifact("2026-08-01/a.json", "the file is empty")
    assert (error.key, error.reason) == ("2026-08-01/a.json", "the file is empty")
    assert "2026-08-01/a.json" in str(error)
    assert "the file is empty" in str(error)


def test_an_invalid_request_names_each_field() -> None:
    error = InvalidRequest((FieldProblem("mode", "blank"), FieldProblem("decision.score", "no number")))
    assert str(error) == "invalid request: mode: blank; decision.score: no number"
    assert [problem.field for problem in error.problems] == ["mode", "decision.score"]


@pytest.mark.parametrize(
    "name",
    [
        *("RunNotFound", "JobNotFound", "ActNotFound", "AdvisoryNotFound", "AttachmentNotFound"),
        *("ArtifactConflict", "JobConflict", "RunPending", "AttachmentPending"),
    ],
)
def test_errors_about_one_thing_name_it(name: str) -> None:
    assert "thing-1" in str(getattr(errors, name)("thing-1"))


def test_how_long_the_store_asked_to_wait_is_kept() -> None:
    assert AdvisoryUnavailable("x").retry_after_seconds is None
    assert BreakerOpen("x", retry_after_seconds=2.5).retry_after_seconds == 2.5


def test_a_wrong_setting_is_a_usage_error() -> None:
    assert SettingsInvalid.exit_code == 2


@pytest.mark.parametrize("kind", [kind for kind in TREE if "__init__" not in kind.__dict__])
def test_plain_errors_cross_processes(kind: type[RmosError]) -> None:
    back = pickle.loads(pickle.dumps(kind("said so")))  # noqa: S301 - our own bytes
    assert type(back) is kind
    assert str(back) == "said so"
