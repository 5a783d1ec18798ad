"""Runs: what a caller may ask for, what is stored, and every value that is refused (contract section 2)."""

from __future__ import annotations

import itertools
import json
import traceback
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rmos_shared.canonical import canonical_sha256, sha256_hex
from rmos_shared.errors import InvalidRequest
from rmos_shared.ids import new_uuid7, uuid7_time
from rmos_shared.runs.attachment_key import attachment_key
from rmos_shared.runs.model import (
    INLINE_GCODE_BYTES,
    ExplanationStatus,
    RiskLevel,
    RunArtifact,
    RunRequest,
    Status,
)

#: Planted in every bad value: no error text may hold it.
SECRET = "hunter2"
AT = datetime(2026, 8, 1, 6, tzinfo=UTC)
RUN_ID = new_uuid7(AT)[:12] + "7abc8def0123456789ab"
FEASIBILITY = {"risk_level": "GREEN", "rules_triggered": [], "note": "½ turn"}
ZEROS = "0" * 64

#: All that a whole request needs.
REQUEST: dict[str, Any] = {
    "run_id": RUN_ID,
    "mode": "router",
    "tool_id": "router:endmill_0p8mm",
    "status": "OK",
    "feasibility": FEASIBILITY,
    "decision": {"risk_level": "GREEN"},
}
ARTIFACT: dict[str, Any] = {
    "run_id": RUN_ID,
    "created_at_utc": "2026-08-01T06:00:00Z",
    "mode": "router",
    "tool_id": "router:endmill_0p8mm",
    "status": "OK",
    "request_summary": {"part": "bridge"},
    "feasibility": FEASIBILITY,
    "decision": {"risk_level": "GREEN", "score": 87.5},
    "hashes": {"feasibility_sha256": canonical_sha256(FEASIBILITY)},
    "outputs": {},
    "meta": {},
}


class Word(str):
    __slots__ = ()


def put(base: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return a copy of ``base`` with the field at a dotted path replaced."""
    head, dot, rest = path.partition(".")
    return {**base, head: put(base.get(head, {}), rest, value) if dot else value}


def without(base: dict[str, Any], path: str) -> dict[str, Any]:
    head, dot, rest = path.partition(".")
    if dot:
        return {**base, head: without(base[head], rest)}
    return {name: value for name, value in base.items() if name != head}


def refused(model: type[RunRequest | RunArtifact], data: Any) -> dict[str, str]:
    """Return the reasons by field, having made sure that no text of the error quotes a value."""
    with pytest.raises(InvalidRequest) as caught:
        model.read(data)
    error = caught.value
    for told in (str(error), repr(error), "".join(traceback.format_exception(error))):
        assert SECRET not in told
        told.encode()
    return {problem.field: problem.reason for problem in error.problems}


#: field, bad value, how the reason begins; what the model of a whole run has in common with a request.
BAD_FIELDS: list[tuple[str, Any, str]] = [
    *itertools.chain.from_iterable(
        [
            (name, f" {SECRET}\n", "must hold printable characters only"),
            (name, f"{SECRET}\0", "must hold printable characters only"),
            (name, f"{SECRET}\u202e", "must hold printable characters only"),
            (name, "", "must not be blank"),
            (name, " \u00a0", "must not be blank"),
            (name, SECRET * 40, "String should have at most 256 characters"),
            (name, f"{SECRET}\ud800", "Input should be a valid string"),
            (name, 5, "Input should be a valid string"),
            (name, [SECRET], "Input should be a valid string"),
            (name, SECRET.encode(), "Input should be a valid string"),
        ]
        for name in ("mode", "tool_id", "request_id", "event_type")
    ),
    ("run_id", f"../{SECRET}", "must be 1 to 128 letters"),
    ("run_id", f"{SECRET}/..", "must be 1 to 128 letters"),
    ("run_id", f"{SECRET}\\", "must be 1 to 128 letters"),
    ("run_id", f"{SECRET}\0", "must be 1 to 128 letters"),
    ("run_id", f"{SECRET}_advisory_x", "must be 1 to 128 letters"),
    ("run_id", "", "must be 1 to 128 letters"),
    ("run_id", f"{SECRET}\ud800", ""),
    ("run_id", 5, "Input should be a valid string"),
    ("created_at_utc", f"{SECRET}", "not an RFC 3339 time"),
    ("created_at_utc", "", "not an RFC 3339 time"),
    ("created_at_utc", "2026-08-01", "not an RFC 3339 time"),
    ("created_at_utc", "20260801T060000Z", "not an RFC 3339 time"),
    ("created_at_utc", "2026-W31-6T06:00:00Z", "not an RFC 3339 time"),
    ("created_at_utc", "2026-08-01T06:00Z", "not an RFC 3339 time"),
    ("created_at_utc", "2026-08-01T060000+00:00", "not an RFC 3339 time"),
    ("created_at_utc", "2026-08-01T06:00:00+0000", "not an RFC 3339 time"),
    ("created_at_utc", "2026-08-01T06:00:00+00:00:30", "not an RFC 3339 time"),
    ("created_at_utc", "2026-02-30T06:00:00Z", "not an RFC 3339 time"),
    ("created_at_utc", "2026-08-01T24:00:00Z", "not an RFC 3339 time"),
    ("created_at_utc", "2026-08-01T06:00:00Z\n", "not an RFC 3339 time"),
    ("created_at_utc", "\u0662026-08-01T06:00:00Z", "not an RFC 3339 time"),
    ("created_at_utc", "2026-08-01T06:00:00", "the time has no zone"),
    ("created_at_utc", datetime(2026, 8, 1, 6), "the time has no zone"),  # noqa: DTZ001 - the case itself
    ("created_at_utc", "0001-01-01T00:00:00+05:00", "the time is outside the years 1 to 9999"),
    ("created_at_utc", "9999-12-31T23:59:59-05:00", "the time is outside the years 1 to 9999"),
    ("created_at_utc", 1_785_564_000, "not a time"),
    ("created_at_utc", [SECRET], "not a time"),
    ("status", "ok", "must be one of OK, BLOCKED, ERROR"),
    ("status", SECRET, "must be one of OK, BLOCKED, ERROR"),
    ("status", "__class__", "must be one of OK, BLOCKED, ERROR"),
    ("status", {SECRET: SECRET}, "must be one of OK, BLOCKED, ERROR"),
    ("decision.risk_level", SECRET, "must be one of GREEN, YELLOW, RED, UNKNOWN, ERROR"),
    ("decision.risk_level", "", "must be one of GREEN, YELLOW, RED, UNKNOWN, ERROR"),
    ("decision.risk_level", "GREEN ", "must be one of GREEN, YELLOW, RED, UNKNOWN, ERROR"),
    ("decision.risk_level", 1, "must be one of GREEN, YELLOW, RED, UNKNOWN, ERROR"),
    ("decision.score", True, "must be a number"),
    ("decision.score", SECRET, "must be a number"),
    ("decision.score", "50", "must be a number"),
    ("decision.score", [50], "must be a number"),
    ("decision.score", -0.1, "must be from 0 to 100"),
    ("decision.score", 100.1, "must be from 0 to 100"),
    ("decision.score", 101, "must be from 0 to 100"),
    ("decision.score", float("nan"), "must be from 0 to 100"),
    ("decision.score", float("inf"), "must be from 0 to 100"),
    ("decision.score", 10**400, "must be from 0 to 100"),
    ("decision.block_reason", 5, "Input should be a valid string"),
    ("decision.block_reason", f"{SECRET}\ud800", "lone surrogate is not Unicode text"),
    ("decision.warnings", SECRET, "Input should be a valid list"),
    ("decision.warnings", (SECRET,), "Input should be a valid list"),
    ("decision.details", [SECRET], "Input should be a valid dictionary"),
    ("decision.details", {"a": {"b": float("nan")}}, "a.b: NaN and infinity are not JSON"),
    ("decision.verdict", SECRET, "Extra inputs are not permitted"),
    ("decision", SECRET, "Input should be a valid dictionary"),
    ("hashes.feasibility_sha256", SECRET, "String should match pattern"),
    ("hashes.toolpaths_sha256", "A" * 64, "String should match pattern"),
    ("hashes.gcode_sha256", "a" * 63, "String should match pattern"),
    ("hashes.opplan_sha256", "a" * 64 + "\n", "String should match pattern"),
    ("hashes.md5", SECRET, "Extra inputs are not permitted"),
    ("outputs.gcode_text", SECRET.encode(), "Input should be a valid string"),
    ("outputs.gcode_text", f"{SECRET}\ud800", "lone surrogate is not Unicode text"),
    ("outputs.opplan_json", [SECRET], "Input should be a valid dictionary"),
    ("outputs.opplan_json", {"a": [1, float("inf")]}, "a.1: NaN and infinity are not JSON"),
    *itertools.chain.from_iterable(
        [
            (name, f"/{SECRET}", "must be a relative path"),
            (name, f"a/../{SECRET}", "must be a relative path"),
            (name, "..", "must be a relative path"),
            (name, f"a\\{SECRET}", "must be a relative path"),
            (name, f"a\0{SECRET}", "must hold printable characters only"),
            (name, "", "must not be blank"),
        ]
        for name in ("outputs.gcode_path", "outputs.opplan_path", "outputs.preview_svg_path")
    ),
    ("outputs.stl", SECRET, "Extra inputs are not permitted"),
    ("outputs", [SECRET], "Input should be a valid dictionary"),
    *itertools.chain.from_iterable(
        [
            (name, SECRET, "Input should be a valid dictionary"),
            (name, [SECRET], "Input should be a valid dictionary"),
            (name, {"a": [{"b": float("nan")}]}, "a.0.b: NaN and infinity are not JSON"),
            (name, {"a": f"{SECRET}\ud800"}, "a: lone surrogate is not Unicode text"),
            (name, {"a": {"\ud800": SECRET}}, "a: lone surrogate is not Unicode text"),
            (name, {"a": {5: SECRET}}, "a: key of type int is not a string"),
            (name, {"a": (SECRET,)}, "a: type tuple is not JSON"),
            (name, {"a": SECRET.encode()}, "a: type bytes is not JSON"),
            (name, {"a": Word(SECRET)}, "a: type Word is not JSON"),
            (name, {"a": Status.OK}, "a: type Status is not JSON"),
            (name, {"a": 10**400}, "a: integer of more than 1023 bits"),
        ]
        for name in ("request_summary", "feasibility", "meta")
    ),
    ("advisory_inputs_", [], "Extra inputs are not permitted"),
    ("patch_meta", {"secret": SECRET}, "Extra inputs are not permitted"),
]


def _name(row: tuple[str, Any, str]) -> str:
    return f"{row[0]}-{row[2]}"


@pytest.mark.parametrize("row", BAD_FIELDS, ids=_name)
def test_a_request_with_a_wrong_value_is_refused_by_field(row: tuple[str, Any, str]) -> None:
    field, value, reason = row
    told = refused(
        RunRequest, put(without(REQUEST, "run_id") if field == "created_at_utc" else REQUEST, field, value)
    )
    assert set(told) == {field}
    assert told[field].startswith(reason)


@pytest.mark.parametrize("row", BAD_FIELDS, ids=_name)
def test_a_stored_run_with_a_wrong_value_is_refused_by_field(row: tuple[str, Any, str]) -> None:
    field, value, reason = row
    told = refused(RunArtifact, put(ARTIFACT, field, value))
    assert set(told) == {field}
    assert told[field].startswith(reason)


def test_every_wrong_field_is_named_at_once() -> None:
    data = put(
        put(put(REQUEST, "mode", ""), "decision.score", SECRET), "created_at_utc", "2026-08-01T06:00:00"
    )
    assert set(refused(RunRequest, data)) == {"mode", "decision.score", "created_at_utc"}


@pytest.mark.parametrize("bad", [{"mode": [SECRET]}, {"status": SECRET}, {SECRET: 1, "mode": {"x": SECRET}}])
def test_a_model_made_directly_quotes_no_value_either(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        RunArtifact(**{**ARTIFACT, **bad})
    assert SECRET not in str(caught.value).replace(
        f"\n{SECRET}\n", ""
    )  # the name of an unknown field is told


@pytest.mark.parametrize("data", [None, 5, SECRET, [SECRET], b"{}", [("mode", SECRET)]], ids=repr)
@pytest.mark.parametrize("model", [RunRequest, RunArtifact])
def test_what_is_no_object_is_refused(model: Any, data: Any) -> None:
    assert set(refused(model, data)) == {model.__name__}


def test_a_wrong_element_is_named_by_its_place() -> None:
    assert set(refused(RunRequest, put(REQUEST, "decision.warnings", ["ok", 5]))) == {"decision.warnings.1"}


@pytest.mark.parametrize(
    "field", ["meta", "feasibility", "request_summary", "decision.details", "outputs.opplan_json"]
)
@pytest.mark.parametrize("bracket", [list, dict])
def test_endless_nesting_is_refused_without_exhausting_the_stack(field: str, bracket: type) -> None:
    value: Any = SECRET
    for _ in range(100_000):
        value = [value] if bracket is list else {"k": value}
    told = refused(RunRequest, put(REQUEST, field, {"a": value}))
    assert list(told) == [field]
    assert told[field].endswith("nested deeper than 100 levels")


@pytest.mark.parametrize("model", [RunRequest, RunArtifact])
def test_unknown_fields_are_refused_not_dropped(model: Any) -> None:
    base = REQUEST if model is RunRequest else ARTIFACT
    for path in ("extra", "decision.extra", "hashes.extra", "outputs.extra"):
        assert refused(model, put(base, path, SECRET)) == {path: "Extra inputs are not permitted"}


# -- requests -------------------------------------------------------------------------------------


def test_the_defaults_of_a_request() -> None:
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    run = RunRequest.read({"mode": "saw"})
    assert before <= run.created_at_utc <= datetime.now(UTC)
    assert uuid7_time(run.run_id) == run.created_at_utc
    rest = run.dump()
    del rest["run_id"], rest["created_at_utc"]
    assert rest == {
        "request_id": None,
        "event_type": None,
        "mode": "saw",
        "tool_id": None,
        "status": None,
        "request_summary": {},
        "feasibility": None,
        "decision": {"risk_level": None, "score": None, "block_reason": None, "warnings": [], "details": {}},
        "hashes": dict.fromkeys(("feasibility_sha256", "toolpaths_sha256", "gcode_sha256", "opplan_sha256")),
        "outputs": dict.fromkeys(
            ("gcode_text", "opplan_json", "gcode_path", "opplan_path", "preview_svg_path")
        ),
        "meta": {},
    }


def test_two_requests_share_no_id_and_no_default() -> None:
    left, right = RunRequest.read({"mode": "saw"}), RunRequest.read({"mode": "saw"})
    assert left.run_id != right.run_id
    assert left.meta is not right.meta


@pytest.mark.parametrize(
    "name",
    [
        "run_id",
        "created_at_utc",
        "request_summary",
        "decision",
        "hashes",
        "outputs",
        "meta",
        "status",
        "feasibility",
    ],
)
def test_null_is_as_good_as_absent(name: str) -> None:
    base = without(REQUEST, name)
    steady = {"run_id": RUN_ID} if name != "run_id" else {}
    given_null, left_out = (RunRequest.read(steady | base | extra) for extra in ({name: None}, {}))
    volatile = {"run_id", "created_at_utc"} if name == "run_id" else set()
    assert given_null.model_dump(exclude=volatile) == left_out.model_dump(exclude=volatile)


def test_a_run_id_without_a_time_gives_its_own() -> None:
    assert RunRequest.read(REQUEST).created_at_utc == AT


def test_a_time_without_a_run_id_is_inside_the_id_that_is_minted() -> None:
    run = RunRequest.read(put(without(REQUEST, "run_id"), "created_at_utc", "2019-03-04T05:06:07.089Z"))
    assert uuid7_time(run.run_id) == run.created_at_utc == datetime(2019, 3, 4, 5, 6, 7, 89_000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("told", "stored"),
    [
        ("2026-08-01T06:00:00Z", "2026-08-01T06:00:00Z"),
        ("2026-08-01t06:00:00z", "2026-08-01T06:00:00Z"),
        ("2026-08-01 06:00:00+00:00", "2026-08-01T06:00:00Z"),
        ("2026-08-01T08:00:00+02:00", "2026-08-01T06:00:00Z"),
        ("2026-07-31T23:30:00-06:30", "2026-08-01T06:00:00Z"),
        ("2026-08-01T06:00:00.25Z", "2026-08-01T06:00:00.250000Z"),
        (AT, "2026-08-01T06:00:00Z"),
        (AT.astimezone(timezone(timedelta(hours=9))), "2026-08-01T06:00:00Z"),
    ],
    ids=str,
)
def test_times_are_stored_in_utc_ending_in_z(told: Any, stored: str) -> None:
    assert RunRequest.read(put(REQUEST, "created_at_utc", told)).dump()["created_at_utc"] == stored


def test_the_partition_must_be_readable_from_the_id() -> None:
    for near in ("2026-08-01T00:00:00Z", "2026-08-01T23:59:59.999999Z", "2026-08-02T00:59:59+01:00"):
        assert RunRequest.read(put(REQUEST, "created_at_utc", near)).run_id == RUN_ID
    for far in ("2026-07-31T23:59:59Z", "2026-08-02T00:00:00Z", "2026-08-01T00:59:59+01:00"):
        told = refused(RunRequest, put(REQUEST, "created_at_utc", far))
        assert list(told) == ["created_at_utc"]
        assert "differs from the one inside run_id" in told["created_at_utc"]


@pytest.mark.parametrize(
    "run_id", ["run_abc123def456", RUN_ID.upper(), "0198629cbc004abc8def0123456789ab", "f" * 32]
)
def test_a_new_run_needs_a_uuid7(run_id: str) -> None:
    assert refused(RunRequest, put(REQUEST, "run_id", run_id)) == {
        "run_id": "a new run's id must be a UUIDv7 of 32 lower-case hex digits"
    }


def test_a_time_before_1970_is_refused_by_its_own_name() -> None:
    told = refused(RunRequest, put(without(REQUEST, "run_id"), "created_at_utc", "1969-12-31T23:59:59Z"))
    assert list(told) == ["created_at_utc"]
    assert told["created_at_utc"].startswith("must not be before 1970")


@pytest.mark.parametrize("level", ["green", "Green", "GREEN", RiskLevel.GREEN])
@pytest.mark.parametrize("model", [RunRequest, RunArtifact])
def test_the_risk_level_is_upper_cased(model: Any, level: str) -> None:
    base = REQUEST if model is RunRequest else ARTIFACT
    assert model.read(put(base, "decision.risk_level", level)).dump()["decision"]["risk_level"] == "GREEN"


@pytest.mark.parametrize("level", list(RiskLevel))
@pytest.mark.parametrize("status", list(Status))
def test_every_risk_and_status_is_taken(level: RiskLevel, status: Status) -> None:
    data = put(put(REQUEST, "decision.risk_level", level.value), "status", status.value)
    run = RunRequest.read(data)
    assert (run.decision.risk_level, run.status) == (level, status)


@pytest.mark.parametrize("score", [0, 100, 0.0, 100.0, 8.2, None])
def test_the_ends_of_the_score_are_within(score: float | None) -> None:
    run = RunRequest.read(put(REQUEST, "decision.score", score))
    assert run.decision.score == score
    assert type(run.decision.score) is type(score)


def test_the_callers_own_feasibility_claim_is_stripped() -> None:
    claim = {"feasibility": {"risk_level": "GREEN"}, "part": {"feasibility": "kept: it is not the claim"}}
    run = RunRequest.read(put(REQUEST, "request_summary", claim))
    assert run.request_summary == {"part": {"feasibility": "kept: it is not the claim"}}
    assert "feasibility" in claim


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("feasibility_sha256", REQUEST),
        ("gcode_sha256", put(REQUEST, "outputs.gcode_text", f"G0 ({SECRET})")),
        ("opplan_sha256", put(REQUEST, "outputs.opplan_json", {"steps": [SECRET]})),
    ],
)
def test_a_claimed_hash_that_differs_is_refused(name: str, data: dict[str, Any]) -> None:
    (reason,) = refused(RunRequest, put(data, f"hashes.{name}", ZEROS)).values()
    assert reason.startswith(f"hashes.{name} is not the hash")


def test_claimed_hashes_that_agree_are_taken() -> None:
    data = put(put(REQUEST, "outputs.gcode_text", "G0 é"), "outputs.opplan_json", {"b": 1, "a": 2})
    claims = {
        "feasibility_sha256": canonical_sha256(FEASIBILITY),
        "gcode_sha256": sha256_hex("G0 é".encode()),
        "opplan_sha256": sha256_hex(b'{"a":2,"b":1}'),
        "toolpaths_sha256": ZEROS,
    }
    assert RunRequest.read(put(data, "hashes", claims)).hashes.model_dump() == claims


def test_a_hash_of_a_file_elsewhere_cannot_be_checked_here() -> None:
    data = put(put(REQUEST, "outputs.gcode_path", "out/a.nc"), "hashes.gcode_sha256", ZEROS)
    assert RunRequest.read(data).hashes.gcode_sha256 == ZEROS


ATTACHED = sha256_hex(b"G0")
PATHS = ("gcode_path", "opplan_path", "preview_svg_path")


@pytest.mark.parametrize("field", PATHS)
@pytest.mark.parametrize(
    "path",
    ["x", "ab/x.nc", f"ab/{ATTACHED}.nc", f"{ATTACHED[:2]}/{ATTACHED}.NC", f"{ATTACHED[:2]}/{ATTACHED[:-1]}"],
)
def test_what_lies_among_the_attachments_must_be_named_as_one(field: str, path: str) -> None:
    (reason,) = refused(RunRequest, put(REQUEST, f"outputs.{field}", f"_attachments/{path}")).values()
    assert reason == f"outputs.{field} lies in _attachments/ and is no key of an attachment"


@pytest.mark.parametrize("field", PATHS)
@pytest.mark.parametrize("path", ["_attachments", "x/_attachments/a", "./_attachments/a", "_attachmentsx/a"])
def test_any_other_path_is_the_callers_own(field: str, path: str) -> None:
    data = put(REQUEST, f"outputs.{field}", path)
    assert getattr(RunRequest.read(data).outputs, field) == path


@pytest.mark.parametrize("kind", ["gcode", "opplan"])
def test_the_hash_of_a_named_attachment_must_be_the_claimed_one(kind: str) -> None:
    data = put(REQUEST, f"outputs.{kind}_path", attachment_key(b"G0", ".nc"))
    RunRequest.read(put(data, f"hashes.{kind}_sha256", ATTACHED))
    (reason,) = refused(RunRequest, put(data, f"hashes.{kind}_sha256", ZEROS)).values()
    assert reason == f"hashes.{kind}_sha256 is not the hash of what outputs.{kind}_path names"


def test_an_inline_output_and_the_attachment_beside_it_must_be_the_same() -> None:
    data = put(REQUEST, "outputs.gcode_path", attachment_key(b"G0", ".nc"))
    RunRequest.read(put(data, "outputs.gcode_text", "G0"))
    (reason,) = refused(RunRequest, put(data, "outputs.gcode_text", "G1")).values()
    assert "is not the hash of what outputs.gcode_path names" in reason


@pytest.mark.parametrize("given", range(8))
def test_one_of_three_identifies_an_attempt(given: int) -> None:
    names = [name for bit, name in enumerate(("request_id", "mode", "tool_id")) if given & 1 << bit]
    data = {"meta": {"secret": SECRET}, **dict.fromkeys(names, "x")}
    if names:
        assert RunRequest.read(data).dump()["meta"] == {"secret": SECRET}
    else:
        (reason,) = refused(RunRequest, data).values()
        assert reason.startswith("nothing identifies the attempt")


REQUIRED = ("mode", "tool_id", "status", "feasibility", "decision.risk_level")


@pytest.mark.parametrize("absent", range(2 ** len(REQUIRED)))
def test_missing_names_each_required_field_in_contract_order(absent: int) -> None:
    data, expected = put(REQUEST, "request_id", "req-1"), []
    for bit, name in enumerate(REQUIRED):
        if absent & 1 << bit:
            data = without(data, name)
            expected.append(name)
    assert RunRequest.read(data).missing() == tuple(expected)


def test_an_empty_feasibility_is_a_missing_one() -> None:
    assert RunRequest.read(put(REQUEST, "feasibility", {})).missing() == ("feasibility",)


@pytest.mark.parametrize(
    ("meta", "missing"),
    [
        ({}, ("type", "message")),
        ({"exception": None}, ("type", "message")),
        ({"exception": SECRET}, ("type", "message")),
        ({"exception": {}}, ("type", "message")),
        ({"exception": {"type": "ValueError"}}, ("message",)),
        ({"exception": {"message": "no"}}, ("type",)),
        ({"exception": {"type": 5, "message": None}}, ("type", "message")),
        ({"exception": {"type": "ValueError", "message": ""}}, ()),
    ],
    ids=repr,
)
def test_an_error_run_says_what_was_raised(meta: dict[str, Any], missing: tuple[str, ...]) -> None:
    data = put(REQUEST, "meta", meta)
    assert RunRequest.read(put(data, "status", "ERROR")).missing() == tuple(
        f"meta.exception.{m}" for m in missing
    )
    assert RunRequest.read(data).missing() == ()


def test_every_sample_is_valid_and_lacks_nothing(sample_requests: list[dict[str, Any]]) -> None:
    assert len(sample_requests) == 600
    runs = [RunRequest.read(sample) for sample in sample_requests]
    assert [run.missing() for run in runs] == [()] * 600
    for run, sample in zip(runs, sample_requests, strict=True):
        assert run.feasibility == sample["feasibility"]
        assert "feasibility" not in run.request_summary


@pytest.mark.parametrize("name", sorted(RunRequest.model_fields))
def test_a_request_never_changes(name: str) -> None:
    run = RunRequest.read(REQUEST)
    with pytest.raises(ValidationError, match="frozen"):
        setattr(run, name, getattr(run, name))


def test_a_request_reads_back_from_its_bytes(sample_requests: list[dict[str, Any]]) -> None:
    for sample in sample_requests[::20]:
        written = RunRequest.read(sample).to_bytes()
        assert RunRequest.read(json.loads(written)).to_bytes() == written


# -- stored runs ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        *("run_id", "created_at_utc", "mode", "tool_id", "status", "request_summary", "feasibility"),
        *("decision", "hashes", "outputs", "meta", "decision.risk_level", "hashes.feasibility_sha256"),
    ],
)
def test_what_a_stored_run_must_hold(path: str) -> None:
    assert refused(RunArtifact, without(ARTIFACT, path)) == {path: "Field required"}


@pytest.mark.parametrize(
    "path",
    [
        "mode",
        "tool_id",
        "status",
        "feasibility",
        "decision.risk_level",
        "hashes.feasibility_sha256",
        "created_at_utc",
    ],
)
def test_null_is_no_value_of_what_a_stored_run_must_hold(path: str) -> None:
    assert list(refused(RunArtifact, put(ARTIFACT, path, None))) == [path]


@pytest.mark.parametrize("run_id", ["run_abc123def456", "A", "0-_", "a" * 128, RUN_ID])
def test_older_ids_are_read(run_id: str) -> None:
    assert RunArtifact.read(put(ARTIFACT, "run_id", run_id)).run_id == run_id


def test_an_event_that_is_null_is_still_read() -> None:
    assert RunArtifact.read({**ARTIFACT, "event_type": None}).event_type is None


def test_a_stored_run_is_json_of_the_contracts_fields() -> None:
    stored = json.loads(RunArtifact.read(ARTIFACT).to_bytes())
    assert stored == {
        **ARTIFACT,
        "schema_version": "1",
        "request_id": None,
        "event_type": "unknown",
        "decision": {
            "risk_level": "GREEN",
            "score": 87.5,
            "block_reason": None,
            "warnings": [],
            "details": {},
        },
        "hashes": {
            **ARTIFACT["hashes"],
            **dict.fromkeys(("toolpaths_sha256", "gcode_sha256", "opplan_sha256")),
        },
        "outputs": dict.fromkeys(
            ("gcode_text", "opplan_json", "gcode_path", "opplan_path", "preview_svg_path")
        ),
        "advisory_inputs": [],
        "explanation_status": "NONE",
        "explanation_summary": None,
    }


def test_the_partition_is_the_utc_date() -> None:
    run = RunArtifact.read(put(ARTIFACT, "created_at_utc", "2026-08-01T01:00:00+02:00"))
    assert run.date == "2026-07-31"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("schema_version", "2"),
        ("schema_version", 1),
        ("advisory_inputs", [{"advisory_id": SECRET}]),
        ("explanation_status", "READY"),
        ("explanation_status", ExplanationStatus.ERROR.value),
        ("explanation_summary", SECRET),
    ],
)
def test_what_readers_compose_is_never_stored(path: str, value: Any) -> None:
    assert list(refused(RunArtifact, put(ARTIFACT, path, value))) == [path]


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("feasibility", {"risk_level": SECRET}, "hashes.feasibility_sha256"),
        ("hashes.feasibility_sha256", ZEROS, "hashes.feasibility_sha256"),
        ("outputs.gcode_text", SECRET, "hashes.gcode_sha256"),
        ("outputs.opplan_json", {"a": SECRET}, "hashes.opplan_sha256"),
        ("request_summary", {"feasibility": SECRET}, "request_summary"),
    ],
)
def test_a_stored_run_holds_its_own_proof(path: str, value: Any, named: str) -> None:
    (reason,) = refused(RunArtifact, put(ARTIFACT, path, value)).values()
    assert reason.startswith(named)


@pytest.mark.parametrize("letter", ["G", "é", "½", "\U0001f3b8"], ids=ascii)
def test_the_limit_of_inline_gcode_is_in_bytes_of_utf_8(letter: str) -> None:
    whole = letter * (INLINE_GCODE_BYTES // len(letter.encode()))
    assert INLINE_GCODE_BYTES == 204_800 == len(whole.encode())
    for text, fits in ((whole, True), (whole + "G", False)):
        data = put(
            put(ARTIFACT, "outputs.gcode_text", text), "hashes.gcode_sha256", sha256_hex(text.encode())
        )
        if fits:
            assert RunArtifact.read(data).outputs.gcode_text == text
        else:
            (reason,) = refused(RunArtifact, data).values()
            assert reason.startswith("outputs.gcode_text is larger than 204800 bytes")


@pytest.mark.parametrize("name", sorted(RunArtifact.model_fields))
def test_a_stored_run_never_changes(name: str) -> None:
    run = RunArtifact.read(ARTIFACT)
    with pytest.raises(ValidationError, match="frozen"):
        setattr(run, name, getattr(run, name))


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
OBJECTS = st.dictionaries(
    TEXT,
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
        max_leaves=6,
    ),
    max_size=4,
)


@given(
    feasibility=OBJECTS,
    meta=OBJECTS,
    plan=st.none() | OBJECTS,
    gcode=st.none() | TEXT,
    score=st.none() | st.integers(0, 100) | st.floats(0, 100),
    at=st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC)),  # noqa: DTZ001
)
def test_a_stored_run_reads_back_to_the_same_bytes(  # noqa: PLR0917 - hypothesis passes them by name
    feasibility: Any, meta: Any, plan: Any, gcode: str | None, score: Any, at: datetime
) -> None:
    written = RunArtifact.read(
        ARTIFACT
        | {
            "created_at_utc": at,
            "feasibility": feasibility,
            "meta": meta,
            "decision": {"risk_level": "RED", "score": score},
            "outputs": {"gcode_text": gcode, "opplan_json": plan},
            "hashes": {
                "feasibility_sha256": canonical_sha256(feasibility),
                "gcode_sha256": None if gcode is None else sha256_hex(gcode.encode()),
                "opplan_sha256": None if plan is None else canonical_sha256(plan),
            },
        }
    ).to_bytes()
    read = RunArtifact.read(json.loads(written))
    assert read.to_bytes() == written
    assert read.created_at_utc == at
    assert read.feasibility == feasibility


# Zones of before 1973 had offsets with seconds in them, which RFC 3339 cannot say.
@given(st.datetimes(datetime(1973, 1, 1), timezones=st.timezones()))  # noqa: DTZ001 - zones are drawn
def test_every_time_is_written_in_utc_to_the_microsecond(moment: datetime) -> None:
    run = RunRequest.read({"mode": "router", "created_at_utc": moment.isoformat()})
    written = moment.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"
    assert run.dump()["created_at_utc"] == json.loads(run.to_json())["created_at_utc"] == written


def test_what_was_never_set_is_left_to_the_reader() -> None:
    run = RunRequest.read(REQUEST)
    assert json.loads(run.to_json()).keys() == {*REQUEST, "created_at_utc"}
    assert RunRequest.read_json(run.to_json()) == run
