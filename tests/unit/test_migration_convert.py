"""What becomes of one old record (decision 0026)."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmos_runs.operations.migration.advisories import NO_INPUTS, Problem, Tie, advisories
from rmos_runs.operations.migration.convert import Converted, convert
from rmos_runs.operations.migration.decoding import Unreadable, decode
from rmos_runs.operations.migration.sources import RawLink
from rmos_shared.canonical import canonical_sha256, sha256_hex
from rmos_shared.ids import new_uuid7
from rmos_shared.runs.attachment_key import attachment_key
from rmos_shared.runs.layout import artifact_key
from rmos_shared.runs.model import INLINE_GCODE_BYTES, RunArtifact
from rmos_shared.runs.record import parse
from rmos_shared.runs.vocabulary import meta_text
from support.old_records import (
    FINE,
    INCOMPLETE,
    UNREADABLE,
    draft_run,
    dumped,
    old_link,
    old_link_v1,
    old_run,
    run_id_of,
)


def converted(data: bytes, named: str | None = None) -> Converted:
    """Convert, and hold what every artifact must hold."""
    made = convert(decode(data), named=named, data=data)
    run = made.artifact
    key = artifact_key(run)
    assert parse(RunArtifact, key, run.to_bytes(), artifact_key) == run
    assert run.meta["legacy"]["source_sha256"] == sha256_hex(data)
    assert (run.status.value == "BLOCKED" and run.decision.risk_level.value == "ERROR") or not made.violations
    for violation in made.violations:
        assert violation.partition(":")[0] in str(run.decision.block_reason)
    original = run.meta["legacy"].get("original")
    named_files = {attachment_key(*file) for file in made.attachments}
    assert ({original} if original else set()) | ({run.outputs.gcode_path} & named_files) == named_files
    return made


def run_of(**changes: Any) -> RunArtifact:
    return converted(dumped(old_run(1, **changes)), run_id_of(1)).artifact


def legacy(run: RunArtifact) -> dict[str, Any]:
    return dict(run.meta["legacy"])


# What is complete


def test_a_complete_run_is_carried_over_as_it_is() -> None:
    old = old_run(2)
    made = converted(dumped(old), old["run_id"])
    run = made.artifact.dump()
    for name in ("run_id", "created_at_utc", "request_id", "event_type", "mode", "tool_id", "status"):
        assert run[name] == old[name], name
    assert (run["request_summary"], run["feasibility"]) == (old["request_summary"], old["feasibility"])
    assert run["decision"] == old["decision"]
    assert run["hashes"] == {
        name: value for name, value in old["hashes"].items() if name != "snapshot_sha256"
    }
    assert run["outputs"]["gcode_text"] == old["outputs"]["gcode_text"]
    assert run["meta"] == {
        "batch_label": "batch-2",
        "machine_id": "machine-2",
        "legacy": {"source_sha256": sha256_hex(dumped(old))},
    }
    assert (made.violations, made.attachments) == ((), ())


@pytest.mark.parametrize("name", FINE)
def test_what_only_looks_odd_is_no_violation(name: str) -> None:
    made = converted(FINE[name](3), run_id_of(3))
    assert made.violations == ()
    assert made.artifact.status.value == "OK"


@pytest.mark.parametrize("name", INCOMPLETE)
def test_what_is_incomplete_or_wrong_is_blocked_and_names_it(name: str) -> None:
    make, word = INCOMPLETE[name]
    made = converted(make(4), run_id_of(4))
    assert [violation for violation in made.violations if word in violation], made.violations
    assert legacy(made.artifact)["violations"] == list(made.violations)


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_cannot_be_read_says_why_and_no_value(name: str) -> None:
    make, word = UNREADABLE[name]
    with pytest.raises(Unreadable) as refused:
        converted(make(5), None)
    assert word in refused.value.reason
    assert not {"passwd", "yesterday", "größe"} & set(refused.value.reason.replace(".", " ").split())


def test_the_decision_of_then_is_kept_where_the_run_becomes_blocked() -> None:
    old = old_run(1)
    run = run_of(
        mode=None, status="ERROR", decision=old["decision"] | {"block_reason": "too hot", "stamp": "x"}
    )
    fields = legacy(run)["fields"]
    assert fields["decision"] == old["decision"] | {"block_reason": "too hot", "stamp": "x"}
    assert fields["status"] == "ERROR"
    assert fields["hashes"] == old["hashes"]
    assert run.decision.block_reason == (
        "the migrated record lacks mode, meta.exception.type, meta.exception.message; its own reason: too hot"
    )
    assert run.decision.score == 87.5


def test_a_recorded_hash_that_differs_is_never_presented() -> None:
    run = run_of(hashes={"feasibility_sha256": "0" * 64, "gcode_sha256": "1" * 64})
    assert run.hashes.feasibility_sha256 == canonical_sha256(run.feasibility)
    assert run.outputs.gcode_text is not None
    assert run.hashes.gcode_sha256 == sha256_hex(run.outputs.gcode_text.encode())
    assert legacy(run)["fields"]["hashes"] == {"feasibility_sha256": "0" * 64, "gcode_sha256": "1" * 64}


def test_an_error_run_with_its_exception_stays_an_error() -> None:
    run = run_of(status="ERROR", meta={"exception": {"type": "ValueError", "message": "no stock"}})
    assert run.status.value == "ERROR"


# Places


def test_the_vocabulary_moves_to_meta_where_readers_look_for_it() -> None:
    run = run_of(workflow_session_id="s-1", machine_id="m-1", notes="loud", meta={"machine_id": "m-0"})
    assert meta_text(run.meta, "session_id") == "s-1"
    assert (run.meta["machine_id"], run.meta["notes"]) == ("m-0", "loud")
    assert legacy(run)["fields"]["machine_id"] == "m-1", (
        "what meta says otherwise has the word; both are kept"
    )


def test_the_pointer_to_a_plan_becomes_the_parent() -> None:
    run = run_of()
    assert run.meta["lineage"] == {"parent_plan_run_id": run_id_of(0)}
    assert (run.meta["parent_run_id"], run.meta["parent_kind"]) == (run_id_of(0), "plan")
    assert run_of(parent_run_id="p").meta["parent_run_id"] == "p"


def test_a_zone_that_is_not_named_is_utc_and_is_said() -> None:
    run = run_of(created_at_utc="2025-12-19T23:59:59.5")
    assert run.created_at_utc == datetime(2025, 12, 19, 23, 59, 59, 500_000, UTC)
    assert "created_at_utc: named no zone, taken as UTC" in legacy(run)["notes"]
    assert legacy(run)["fields"]["created_at_utc"] == "2025-12-19T23:59:59.5"


def test_an_offset_is_converted_and_decides_the_partition() -> None:
    run = run_of(created_at_utc="2025-12-20T23:30:00-05:00")
    assert (run.date, legacy(run)["fields"]["created_at_utc"]) == ("2025-12-21", "2025-12-20T23:30:00-05:00")
    assert "notes" not in legacy(run)


def test_the_time_inside_a_uuid7_counts() -> None:
    run_id = new_uuid7(datetime(2026, 1, 5, tzinfo=UTC))
    run = run_of(run_id=run_id)
    assert (run.date, run.status.value) == ("2026-01-05", "BLOCKED")
    assert legacy(run)["fields"]["created_at_utc"] == old_run(1)["created_at_utc"]
    assert run_of(run_id=run_id, created_at_utc=None).date == "2026-01-05"


def test_large_gcode_becomes_an_attachment() -> None:
    text = "G1 X1\n" * (INLINE_GCODE_BYTES // 6 + 1)
    outputs = {"gcode_text": text, "gcode_path": "old/x.nc"}
    hashes = old_run(1)["hashes"] | {"gcode_sha256": sha256_hex(text.encode())}
    made = converted(dumped(old_run(1, outputs=outputs, hashes=hashes)))
    run = made.artifact
    assert made.attachments == ((text.encode(), ".nc"),)
    assert (run.outputs.gcode_text, run.outputs.gcode_path) == (None, attachment_key(text.encode(), ".nc"))
    assert (run.hashes.gcode_sha256, run.status.value) == (sha256_hex(text.encode()), "OK")
    assert legacy(run)["fields"]["outputs"] == {"gcode_path": "old/x.nc"}
    fits = text[:INLINE_GCODE_BYTES]
    assert converted(dumped(old_run(1, outputs={"gcode_text": fits}))).artifact.outputs.gcode_text == fits


def test_a_path_of_the_old_system_is_no_fault_of_the_run() -> None:
    paths = {"gcode_path": "/data/x.nc", "opplan_path": "../y.json", "preview_svg_path": "_attachments/z.svg"}
    run = run_of(outputs=paths)
    assert run.status.value == "OK"
    assert (run.outputs.gcode_path, run.outputs.preview_svg_path) == (None, None)
    assert legacy(run)["fields"]["outputs"] == paths


def test_the_oldest_flat_fields_find_their_place() -> None:
    old = old_run(1)
    feasibility = canonical_sha256(old["feasibility"])
    run = run_of(
        hashes=None,
        outputs=None,
        gcode_text="G0\n",
        gcode_hash=sha256_hex(b"G0\n"),
        toolpaths_hash="a" * 64,
        request_hash=feasibility,
        decision={"risk_bucket": "green"},
    )
    assert (run.status.value, run.decision.risk_level.value, run.outputs.gcode_text) == (
        "OK",
        "GREEN",
        "G0\n",
    )
    assert (run.hashes.toolpaths_sha256, run.hashes.gcode_sha256) == ("a" * 64, sha256_hex(b"G0\n"))
    blocked = run_of(hashes=None, request_hash="b" * 64)
    assert legacy(blocked)["violations"] == ["hashes.feasibility_sha256: is missing"]
    assert legacy(blocked)["fields"]["request_hash"] == "b" * 64


def test_the_callers_own_claim_is_removed_wherever_it_was() -> None:
    run = run_of(request_summary={"feasibility": {"risk_level": "GREEN", "mark": 1}, "keys": []})
    assert run.request_summary == {"keys": []}
    assert "mark" not in run.to_bytes().decode()


def test_bytes_that_json_cannot_carry_are_kept_as_they_are() -> None:
    data = FINE["NaN in a foreign field"](1)
    made = converted(data)
    assert made.attachments == ((data, ".json"),)
    assert "drift_score" not in legacy(made.artifact).get("fields", {})


def test_the_same_record_gives_the_same_bytes_wherever_it_lies() -> None:
    data = dumped(old_run(1))
    assert converted(data, run_id_of(1)).artifact.to_bytes() == converted(data, None).artifact.to_bytes()


TEXT = st.text(st.sampled_from('aZ0_-é"\\\n\0 ½\u2028😀'), max_size=10)
ANY = st.recursive(
    st.none()
    | st.booleans()
    | st.floats()
    | st.integers(-(10**320), 10**320)
    | TEXT
    | st.sampled_from(["\ud800", "GREEN", "OK", "2025-12-18T10:00:00", "0" * 64, "legacy", "feasibility"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
_PARTS = {
    "decision": ("risk_level", "score", "block_reason", "warnings", "details", "risk_bucket"),
    "hashes": ("feasibility_sha256", "gcode_sha256", "other"),
    "outputs": ("gcode_text", "opplan_json", "gcode_path", "opplan_path"),
    "meta": ("legacy", "lineage", "exception", "session_id"),
}


@st.composite
def spoilt_runs(draw: st.DrawFn) -> dict[str, Any]:
    """A run in which anything may stand anywhere, and anything may be missing."""
    run = old_run(draw(st.integers(0, 50)))
    for name in draw(st.lists(st.sampled_from([*run, "created", "gcode_hash", "advisories"]), max_size=6)):
        run[name] = draw(ANY)
    for name in draw(st.lists(st.sampled_from(sorted(_PARTS)), max_size=3)):
        part = run.get(name)
        changes = draw(st.dictionaries(st.sampled_from(_PARTS[name]), ANY, max_size=3))
        run[name] = {**part, **changes} if isinstance(part, dict) else changes
    for name in draw(st.lists(st.sampled_from(sorted(run)), max_size=3)):
        run.pop(name, None)
    return run


@settings(deadline=None)
@given(run=spoilt_runs())
def test_whatever_a_record_holds_it_is_kept_or_named_as_unreadable(run: dict[str, Any]) -> None:
    data = json.dumps(run).encode()
    try:
        made = converted(data, run_id_of(60))
    except Unreadable:
        return
    assert converted(data, run_id_of(60)).artifact.to_bytes() == made.artifact.to_bytes()
    for item in advisories(made.artifact, decode(data).fields, "here", ()):
        assert isinstance(item, Tie | Problem)


@given(data=st.binary(max_size=200))
def test_no_bytes_are_too_odd_to_be_decoded_or_refused(data: bytes) -> None:
    with suppress(Unreadable):
        assert isinstance(decode(data).fields, dict)


# Advisories


def ties(run: RunArtifact, old: dict[str, Any], *files: RawLink) -> list[Tie]:
    found = list(advisories(run, old, "run.json", files))
    assert all(isinstance(item, Tie) for item in found), found
    return [item for item in found if isinstance(item, Tie)]


def link_file(fields: object, named: str = "adv") -> RawLink:
    return RawLink(f"x_advisory_{named}.json", named, dumped(fields), None)


def test_an_embedded_explanation_that_policy_b_approved_is_approved() -> None:
    old = draft_run(1)
    run = converted(dumped(old)).artifact
    (tie,) = ties(run, old)
    link = tie.link
    assert (link.kind, link.summary) == ("explanation", "All rules passed for 1.")
    assert (link.approved, link.reviewed_by, link.policy_id) == (
        True,
        "system:auto_explanation_green",
        "policy_b",
    )
    assert link.reason.startswith("migrated: Policy B approved it there; not recorded there: inputs")
    assert link.advisory_sha256 == canonical_sha256(old["advisory_inputs"][0])
    assert (link.inputs_sha256, link.engine_version, tie.reviews) == (NO_INPUTS, "0.1", ())
    assert legacy(run)["fields"]["advisory_inputs"] == old["advisory_inputs"]


@pytest.mark.parametrize(
    "changes", [{"decision": {"risk_level": "YELLOW"}}, {"mode": None}, {"status": "BLOCKED"}]
)
def test_policy_b_cannot_have_approved_what_it_may_not(changes: dict[str, Any]) -> None:
    old = draft_run(1, **changes)
    (tie,) = ties(converted(dumped(old)).artifact, old)
    assert (tie.link.approved, tie.link.policy_id, tie.link.reviewed_by) == (False, "migration", None)
    assert "a person must decide" in tie.link.reason


@pytest.mark.parametrize(
    ("fields", "approved", "by"),
    [
        ({"approved_for_workflow": True, "reviewed_by": "ana"}, True, "ana"),
        ({"rejected": True, "reviewed_by": "ana"}, False, "ana"),
        ({"status": "REJECTED"}, False, "unknown"),
        ({"approved_for_workflow": True, "rejected": True, "reviewed_by": "ana"}, False, "ana"),
    ],
)
def test_what_a_person_decided_is_a_review(fields: dict[str, Any], approved: bool, by: str) -> None:  # noqa: FBT001
    run = run_of()
    (tie,) = ties(run, {"advisory_inputs": [old_link("a", **fields)]})
    (review,) = tie.reviews
    assert (review.approved, review.reviewed_by, review.advisory_id) == (approved, by, "a")
    assert review.note is not None
    assert review.note.startswith("migrated: ")
    assert (tie.link.approved, "a person decided there" in tie.link.reason) == (False, True)


@pytest.mark.parametrize(
    "fields",
    [
        {"approved_for_workflow": True},
        {"approved_for_workflow": True, "reviewed_by": "system:other"},
        {"approved_for_workflow": "yes", "reviewed_by": "ana"},
        {"status": "PROMOTED", "promoted": True},
        {"reviewed": True, "reviewed_by": "ana"},
    ],
)
def test_in_doubt_an_advisory_waits_for_a_person(fields: dict[str, Any]) -> None:
    (tie,) = ties(run_of(), {"advisory_inputs": [old_link("a", **fields)]})
    assert (tie.link.approved, tie.reviews) == (False, ())


def test_what_a_link_file_lacks_is_said_and_nothing_made_up() -> None:
    run = run_of()
    (tie,) = ties(run, {}, link_file({}, "bare"))
    link = tie.link
    assert (link.advisory_id, link.kind, link.engine_id) == ("bare", "unknown", "unknown")
    assert link.created_at_utc == run.created_at_utc
    assert "not recorded there: time (that of the run stands), engine, summary, inputs" in link.reason


def test_the_second_kind_of_link_file_keeps_its_hash_and_all_it_says() -> None:
    fields = old_link_v1(run_id_of(1), "v1")
    (tie,) = ties(run_of(), {}, link_file(fields, "v1"))
    assert (tie.link.kind, tie.link.advisory_sha256) == ("advisory", "d" * 64)
    assert tie.originals == (dumped(fields),)
    assert attachment_key(dumped(fields), ".json") in tie.link.reason


def test_both_kinds_of_one_advisory_are_one_link_and_what_is_embedded_has_the_word() -> None:
    run = run_of()
    first, second = old_link("a"), old_link_v1(run_id_of(1), "a", kind="explanation")
    embedded = {"advisory_inputs": [old_link("a", engine_version="3")]}
    (tie,) = ties(run, embedded, link_file(first, "a"), link_file(second, "a"))
    assert (tie.link.engine_version, tie.link.kind, tie.link.advisory_sha256) == (
        "3",
        "explanation",
        "d" * 64,
    )
    assert tie.originals == (dumped(first), dumped(second))


@pytest.mark.parametrize(
    "file",
    [
        RawLink("x", "a", None, "cannot be read: Permission denied"),
        RawLink("x", "a", b"{", None),
        link_file({"advisory_id": "../x"}),
        link_file({}, "b_advisory_c"),
        link_file(old_link_v1("another", "a")),
        link_file(old_link("a", rating=float("nan"))),
        link_file({}, "a" * 120),
    ],
)
def test_a_link_that_cannot_be_made_is_named(file: RawLink) -> None:
    run = run_of(run_id="r" * 128)
    (problem,) = advisories(run, {}, "run.json", [file])
    assert isinstance(problem, Problem)


def test_embedded_nonsense_is_named() -> None:
    old = {"advisory_inputs": [7, "plain", {"advisory_id": None}], "advisories": "x"}
    found = list(advisories(run_of(), old, "run.json", []))
    assert [item.place for item in found if isinstance(item, Problem)] == [
        "run.json: advisory_inputs.0",
        "run.json: advisory_inputs.2",
        "run.json: advisories",
    ]
    assert [item.link.advisory_id for item in found if isinstance(item, Tie)] == ["plain"]
