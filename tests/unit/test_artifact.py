"""From request to artifact: what is stored of whole, incomplete and oversized requests."""

from __future__ import annotations

import itertools
import json
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from rmos_shared.canonical import canonical_json, canonical_sha256, sha256_hex
from rmos_shared.runs.attachment_key import attachment_key
from rmos_shared.runs.model import INLINE_GCODE_BYTES, RiskLevel, RunArtifact, RunRequest, Status
from rmos_worker.handlers.artifact import GCODE_SUFFIX, artifact_of

FEASIBILITY = {"risk_level": "YELLOW", "rules_triggered": ["F022"], "note": "½ turn"}
WHOLE: dict[str, Any] = {
    "run_id": "019fbbe86f007abc8def0123456789ab",
    "created_at_utc": "2026-08-01T06:00:00Z",
    "request_id": "req-1",
    "event_type": "toolpaths",
    "mode": "router",
    "tool_id": "router:endmill_0p8mm",
    "status": "OK",
    "request_summary": {"part": "bridge"},
    "feasibility": FEASIBILITY,
    "decision": {
        "risk_level": "YELLOW",
        "score": 61.5,
        "block_reason": None,
        "warnings": ["thin floor"],
        "details": {"rules_triggered": ["F022"]},
    },
    "meta": {"client": "dxf-uploader/2.3"},
}
REQUIRED = ("mode", "tool_id", "status", "feasibility", "decision.risk_level")
ZEROS = "0" * 64
Hex = Annotated[str, Field(pattern=r"\A[0-9a-f]{64}\z")]

#: Floats that Python writes in each of its ways; text of every length that UTF-8 has, and what JSON escapes.
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text('aé€\U0001f3b8"\\\n\x7f\u2028', max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abé€\U0001f3b8", max_size=3), inner),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text("abc", max_size=2) | st.just("feasibility"), JSON, max_size=3)
#: Each field there, null or left out; of the claimed hashes those that nobody can compute here.
REQUESTS = st.fixed_dictionaries(
    {"request_id": st.just("req-1")},
    optional={
        "created_at_utc": st.sampled_from(["2026-08-01T06:00:00.5Z", "1999-12-31T23:59:59+05:30"]),
        "event_type": st.none() | st.just("toolpaths"),
        "mode": st.none() | st.just("router"),
        "tool_id": st.none() | st.just("saw:½"),
        "status": st.none() | st.sampled_from(["OK", "BLOCKED", "ERROR"]),
        "request_summary": st.none() | OBJECTS,
        "feasibility": st.none() | OBJECTS,
        "decision": st.none()
        | st.fixed_dictionaries(
            {},
            optional={
                "risk_level": st.none() | st.sampled_from(["green", "RED", "UNKNOWN"]),
                "score": st.none() | st.integers(0, 100) | st.floats(0, 100),
                "block_reason": st.none() | st.just("too deep"),
                "warnings": st.lists(st.just("thin floor"), max_size=2),
                "details": OBJECTS,
            },
        ),
        "hashes": st.none()
        | st.fixed_dictionaries({}, optional={"toolpaths_sha256": st.none() | st.just(ZEROS)}),
        "outputs": st.none()
        | st.fixed_dictionaries(
            {},
            optional={
                "gcode_text": st.none() | st.sampled_from(["", "G0 X½", "½" * (INLINE_GCODE_BYTES // 2 + 1)]),
                "opplan_json": st.none() | OBJECTS,
                "gcode_path": st.just("out/a.nc"),
                "preview_svg_path": st.just("p.svg"),
            },
        ),
        "meta": st.none()
        | OBJECTS
        | st.just({"exception": {"type": "ValueError", "message": "no closed paths"}}),
    },
)


class Section2(BaseModel):
    """Contract section 2, as read by who knows that table, no null beside it, and none of our code."""

    model_config = ConfigDict(strict=True, extra="forbid")

    class Decision(BaseModel):
        model_config = ConfigDict(strict=True, extra="forbid")
        risk_level: Literal["GREEN", "YELLOW", "RED", "UNKNOWN", "ERROR"]
        score: Annotated[int | float, Field(ge=0, le=100)] | None
        block_reason: str | None
        warnings: list[str]
        details: dict[str, Any]

    class Hashes(BaseModel):
        model_config = ConfigDict(strict=True, extra="forbid")
        feasibility_sha256: Hex
        toolpaths_sha256: Hex | None
        gcode_sha256: Hex | None
        opplan_sha256: Hex | None

    class Outputs(BaseModel):
        model_config = ConfigDict(strict=True, extra="forbid")
        gcode_text: str | None
        opplan_json: dict[str, Any] | None
        gcode_path: str | None
        opplan_path: str | None
        preview_svg_path: str | None

    schema_version: Literal["1"]
    run_id: Annotated[str, Field(pattern=r"\A[0-9a-f]{12}7[0-9a-f]{19}\z")]
    created_at_utc: Annotated[str, Field(pattern=r"\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z\z")]
    request_id: str | None
    event_type: str
    mode: Annotated[str, Field(pattern=r"\S")]
    tool_id: Annotated[str, Field(pattern=r"\S")]
    status: Literal["OK", "BLOCKED", "ERROR"]
    request_summary: dict[str, Any]
    feasibility: dict[str, Any]
    decision: Decision
    hashes: Hashes
    outputs: Outputs
    advisory_inputs: Annotated[list[Any], Field(max_length=0)]
    explanation_status: Literal["NONE"]
    explanation_summary: None
    meta: dict[str, Any]


def stored(**changes: Any) -> tuple[RunArtifact, bytes | None]:
    return artifact_of(RunRequest.read(WHOLE | changes))


def lacking(names: tuple[str, ...]) -> dict[str, Any]:
    data = {name: value for name, value in WHOLE.items() if name not in names}
    if "decision.risk_level" in names:
        decision = data["decision"]
        data["decision"] = {name: decision[name] for name in decision if name != "risk_level"}
    return data


def test_a_whole_request_is_stored_as_it_is() -> None:
    artifact, attachment = stored()
    assert attachment is None
    told = artifact.dump()
    for name, value in WHOLE.items():
        assert told[name] == value
    assert told["hashes"] == {
        "feasibility_sha256": canonical_sha256(FEASIBILITY),
        "toolpaths_sha256": None,
        "gcode_sha256": None,
        "opplan_sha256": None,
    }


@given(REQUESTS)
def test_what_is_made_is_what_validation_would_have_made(request: dict[str, Any]) -> None:
    # Whatever passes as a request makes an artifact that passes all checks, its proof too, and reads back.
    artifact, attachment = artifact_of(RunRequest.read(request))
    validated = RunArtifact.read(artifact.model_dump())
    assert validated == artifact
    assert validated.model_dump() == artifact.model_dump()
    assert {name: type(value) for name, value in artifact} == {name: type(value) for name, value in validated}
    data = artifact.to_bytes()
    assert data == validated.to_bytes() == canonical_json(artifact.dump())
    assert RunArtifact.read(json.loads(data)) == artifact
    if attachment is not None:
        assert artifact.hashes.gcode_sha256 == sha256_hex(attachment)


@given(REQUESTS)
def test_what_is_stored_is_read_by_who_knows_only_the_contract(request: dict[str, Any]) -> None:
    artifact, _ = artifact_of(RunRequest.read(request))
    read = Section2.model_validate_json(artifact.to_bytes())
    # What has a null in the table may have one; no field is left out.
    assert read.model_fields_set == set(Section2.model_fields)
    assert read.event_type == (request.get("event_type") or "unknown")


def test_every_retry_writes_the_same_bytes() -> None:
    payload = RunRequest.read({"mode": "saw"}).to_bytes()
    first, again = (artifact_of(RunRequest.read(json.loads(payload)))[0] for _ in range(2))
    assert first.to_bytes() == again.to_bytes()


def test_every_sample_is_stored_with_its_own_decision(sample_requests: list[dict[str, Any]]) -> None:
    for sample in sample_requests:
        artifact, attachment = artifact_of(RunRequest.read(sample))
        assert attachment is None
        assert artifact.status == sample["status"]
        assert artifact.decision.risk_level == sample["decision"]["risk_level"]
        assert artifact.decision.block_reason == sample["decision"].get("block_reason")
        assert artifact.feasibility == sample["feasibility"]
        assert artifact.hashes.feasibility_sha256 == canonical_sha256(sample["feasibility"])


@pytest.mark.parametrize(
    "absent",
    list(itertools.chain.from_iterable(itertools.combinations(REQUIRED, n) for n in range(1, 6))),
    ids=" ".join,
)
def test_an_incomplete_request_is_blocked_and_names_what_it_lacks(absent: tuple[str, ...]) -> None:
    artifact, _ = artifact_of(RunRequest.read(lacking(absent)))
    assert artifact.status is Status.BLOCKED
    assert artifact.decision.risk_level is RiskLevel.ERROR
    assert artifact.decision.block_reason == "the request lacks " + ", ".join(absent)
    held = artifact.dump()
    for name in ("mode", "tool_id"):
        assert held[name] == ("unknown" if name in absent else WHOLE[name])
    # What it did bring stays.
    assert artifact.decision.score == 61.5
    assert artifact.decision.warnings == ["thin floor"]
    assert artifact.request_id == "req-1"
    assert artifact.meta == WHOLE["meta"]


@pytest.mark.parametrize("feasibility", [None, {}])
def test_without_feasibility_the_hash_is_that_of_what_is_stored(feasibility: dict[str, Any] | None) -> None:
    artifact, _ = stored(feasibility=feasibility)
    assert artifact.status is Status.BLOCKED
    assert artifact.decision.block_reason == "the request lacks feasibility"
    assert artifact.feasibility == {}
    assert artifact.hashes.feasibility_sha256 == sha256_hex(b"{}")


def test_a_claimed_hash_of_feasibility_that_is_not_there_is_never_stored_as_real() -> None:
    artifact, _ = stored(feasibility=None, hashes={"feasibility_sha256": ZEROS})
    assert artifact.hashes.feasibility_sha256 == sha256_hex(b"{}")
    assert ZEROS not in artifact.to_bytes().decode()


def test_the_callers_own_reason_is_kept_beside_ours() -> None:
    decision = {"risk_level": "RED", "block_reason": "pocket too deep"}
    whole, _ = stored(status="BLOCKED", decision=decision)
    assert whole.decision.block_reason == "pocket too deep"
    assert whole.decision.risk_level is RiskLevel.RED
    partial, _ = stored(tool_id=None, decision=decision)
    assert (
        partial.decision.block_reason == "the request lacks tool_id; the caller's own reason: pocket too deep"
    )
    assert partial.decision.risk_level is RiskLevel.ERROR


@pytest.mark.parametrize("status", list(Status))
def test_every_outcome_is_stored(status: Status) -> None:
    meta = {"exception": {"type": "ValueError", "message": "no closed paths"}}
    artifact, _ = stored(status=status.value, meta=meta)
    assert artifact.status is status
    assert artifact.meta == meta


def test_an_error_run_that_does_not_say_what_was_raised_is_blocked() -> None:
    artifact, _ = stored(status="ERROR")
    assert artifact.status is Status.BLOCKED
    assert artifact.decision.block_reason == "the request lacks meta.exception.type, meta.exception.message"


def test_hashes_are_over_exactly_the_stored_outputs() -> None:
    plan = {"steps": [{"z": -1.50, "é": None}]}
    artifact, _ = stored(outputs={"gcode_text": "G0 X1\r\n(é)\n", "opplan_json": plan})
    told = json.loads(artifact.to_bytes())
    assert told["hashes"]["gcode_sha256"] == sha256_hex(told["outputs"]["gcode_text"].encode())
    assert told["hashes"]["opplan_sha256"] == canonical_sha256(told["outputs"]["opplan_json"])
    assert told["outputs"]["gcode_text"] == "G0 X1\r\n(é)\n"
    assert told["outputs"]["opplan_json"] == plan


@pytest.mark.parametrize("text", ["", "G0"])
def test_even_empty_gcode_has_its_hash(text: str) -> None:
    assert stored(outputs={"gcode_text": text})[0].hashes.gcode_sha256 == sha256_hex(text.encode())


def test_an_empty_plan_has_its_hash() -> None:
    assert stored(outputs={"opplan_json": {}})[0].hashes.opplan_sha256 == sha256_hex(b"{}")


@pytest.mark.parametrize("kind", ["gcode", "opplan"])
def test_of_a_file_elsewhere_the_callers_hash_is_kept(kind: str) -> None:
    artifact, attachment = stored(outputs={f"{kind}_path": "out/a"}, hashes={f"{kind}_sha256": ZEROS})
    assert attachment is None
    assert getattr(artifact.hashes, f"{kind}_sha256") == ZEROS
    assert getattr(artifact.outputs, f"{kind}_path") == "out/a"


def test_the_hash_of_the_toolpaths_is_the_callers() -> None:
    assert stored(hashes={"toolpaths_sha256": ZEROS})[0].hashes.toolpaths_sha256 == ZEROS


@pytest.mark.parametrize("letter", ["G", "é", "€", "\U0001f3b8"], ids=ascii)
def test_the_limit_of_inline_gcode_is_204800_bytes_of_utf_8(letter: str) -> None:
    width = len(letter.encode())
    fits = letter * (204_800 // width) + "G" * (204_800 % width)
    assert len(fits.encode()) == 204_800 == INLINE_GCODE_BYTES
    artifact, attachment = stored(outputs={"gcode_text": fits, "gcode_path": "mine.nc"})
    assert attachment is None
    assert artifact.outputs.gcode_text == fits
    assert artifact.outputs.gcode_path == "mine.nc"

    large = fits + "G"
    digest = sha256_hex(large.encode())
    artifact, attachment = stored(
        outputs={"gcode_text": large, "preview_svg_path": "p.svg"}, hashes={"gcode_sha256": digest}
    )
    assert attachment == large.encode()
    assert artifact.outputs.gcode_text is None
    assert artifact.outputs.gcode_path == f"_attachments/{digest[:2]}/{digest}{GCODE_SUFFIX}"
    assert artifact.outputs.preview_svg_path == "p.svg"
    assert artifact.hashes.gcode_sha256 == digest
    assert RunArtifact.read(json.loads(artifact.to_bytes())) == artifact


@pytest.mark.parametrize("kind", ["gcode", "opplan"])
def test_the_hash_of_a_named_attachment_is_stored(kind: str) -> None:
    path = attachment_key(b"G0", ".nc")
    artifact, attachment = stored(outputs={f"{kind}_path": path})
    assert attachment is None
    assert getattr(artifact.outputs, f"{kind}_path") == path
    assert getattr(artifact.hashes, f"{kind}_sha256") == sha256_hex(b"G0")
    elsewhere, _ = stored(outputs={f"{kind}_path": "mine/x"})
    assert getattr(elsewhere.hashes, f"{kind}_sha256") is None


def test_an_incomplete_request_keeps_its_large_gcode() -> None:
    large = "G" * 204_801
    artifact, attachment = stored(mode=None, outputs={"gcode_text": large})
    assert artifact.status is Status.BLOCKED
    assert attachment == large.encode()


def test_the_callers_own_feasibility_claim_is_not_stored() -> None:
    artifact, _ = stored(request_summary={"feasibility": {"risk_level": "GREEN"}, "part": "nut"})
    assert artifact.request_summary == {"part": "nut"}
    assert artifact.feasibility == FEASIBILITY


def test_what_readers_compose_is_stored_empty() -> None:
    told = stored()[0].dump()
    assert (told["advisory_inputs"], told["explanation_status"], told["explanation_summary"]) == (
        [],
        "NONE",
        None,
    )
