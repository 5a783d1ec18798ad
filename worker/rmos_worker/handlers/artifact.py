"""From a request to the artifact that records it: a pure decision."""

from __future__ import annotations

from typing import Any

from rmos_shared.canonical import encode, sha256_hex
from rmos_shared.runs.attachment_key import attachment_key, attachment_sha256
from rmos_shared.runs.model import (
    INLINE_GCODE_BYTES,
    UNKNOWN_EVENT,
    Decision,
    Hashes,
    Outputs,
    RiskLevel,
    RunArtifact,
    RunRequest,
    Status,
    output_hashes,
)

#: Stands where a required word is missing; ``block_reason`` says that it was.
ABSENT = "unknown"
GCODE_SUFFIX = ".nc"


def artifact_of(request: RunRequest) -> tuple[RunArtifact, bytes | None]:
    """Return the artifact to store and, when it is too large to lie inside, the G-code to attach.

    A request that lacks a required field becomes a BLOCKED run of risk ERROR whose ``block_reason`` names
    each of them (contract section 1). Its feasibility hash is the true hash of what is stored, even
    when that is the empty object.
    """
    missing = request.missing()
    feasibility = request.feasibility or {}
    outputs, attachment = _fit(request.outputs)
    artifact = RunArtifact(
        run_id=request.run_id,
        created_at_utc=request.created_at_utc,
        request_id=request.request_id,
        event_type=request.event_type or UNKNOWN_EVENT,
        mode=request.mode or ABSENT,
        tool_id=request.tool_id or ABSENT,
        status=Status.BLOCKED if missing or request.status is None else request.status,
        request_summary=request.request_summary,
        feasibility=feasibility,
        decision=_decision(request, missing),
        hashes=_hashes(request, feasibility),
        outputs=outputs,
        meta=request.meta,
    )
    return artifact, attachment


def _decision(request: RunRequest, missing: tuple[str, ...]) -> Decision:
    given = request.decision
    reason, risk = given.block_reason, given.risk_level
    if missing or risk is None:
        lacks = "the request lacks " + ", ".join(missing)
        reason = lacks if reason is None else f"{lacks}; the caller's own reason: {reason}"
        risk = RiskLevel.ERROR
    return Decision(
        risk_level=risk,
        score=given.score,
        block_reason=reason,
        warnings=given.warnings,
        details=given.details,
    )


def _fit(outputs: Outputs) -> tuple[Outputs, bytes | None]:
    gcode = None if outputs.gcode_text is None else outputs.gcode_text.encode()
    if gcode is None or len(gcode) <= INLINE_GCODE_BYTES:
        return outputs, None
    path = attachment_key(gcode, GCODE_SUFFIX)
    return outputs.model_copy(update={"gcode_text": None, "gcode_path": path}), gcode


def _hashes(request: RunRequest, feasibility: dict[str, Any]) -> Hashes:
    # Computed where we hold the output, and read from its name where it is an attachment, which is proven
    # before this is published; else the caller's, who keeps the file that the path names.
    given, held, outputs = request.hashes, output_hashes(request.outputs), request.outputs
    return Hashes(
        feasibility_sha256=sha256_hex(encode(feasibility)),
        toolpaths_sha256=given.toolpaths_sha256,
        gcode_sha256=held["gcode_sha256"] or given.gcode_sha256 or _named(outputs.gcode_path),
        opplan_sha256=held["opplan_sha256"] or given.opplan_sha256 or _named(outputs.opplan_path),
    )


def _named(path: str | None) -> str | None:
    return None if path is None else attachment_sha256(path)
