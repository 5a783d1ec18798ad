"""From an old record to the artifact that keeps it: a pure decision, by the rules of decision 0026.

One set of rules for all sources: a field is known by its name, whichever system wrote it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, TypeAdapter, ValidationError

from rmos_runs.operations.migration.decoding import Decoded, Unreadable
from rmos_runs.operations.migration.findings import Findings, exact
from rmos_runs.operations.migration.times import moment_of
from rmos_shared.canonical import encode, sha256_hex
from rmos_shared.errors import InvalidRequest
from rmos_shared.ids import is_safe_id, uuid7_time
from rmos_shared.models.base import JsonObject, Sha256, SingleLine, Utf8Text, format_utc
from rmos_shared.runs.attachment_key import attachment_key
from rmos_shared.runs.model import (
    INLINE_GCODE_BYTES,
    UNKNOWN_EVENT,
    Outputs,
    RiskField,
    RiskLevel,
    RunArtifact,
    SafePath,
    Score,
    Status,
    StatusField,
    output_hashes,
)

#: Stands where a required word is missing; ``block_reason`` says that it was.
ABSENT = "unknown"
#: Contract section 7: what old records have at their top level, and readers look for in ``meta``.
VOCABULARY = (
    *("session_id", "workflow_session_id", "batch_label", "parent_run_id", "parent_kind", "lineage"),
    *("tool_kind", "machine_id", "material_id", "workflow_mode", "toolchain_id", "toolchain_version"),
    *("post_processor_id", "engine_version", "config_fingerprint", "geometry_ref", "geometry_hash"),
    *("gate_policy_id", "gate_decision", "drift_detected", "drift_summary", "notes"),
)
_GCODE_SUFFIX = ".nc"
_ORIGINAL_SUFFIX = ".json"
#: Where older records have at the top level what belongs into a part.
_FLAT = {
    **{name: ("outputs", name) for name in Outputs.model_fields},
    **{f"{what}_hash": ("hashes", f"{what}_sha256") for what in ("toolpaths", "gcode", "opplan")},
}
#: These say nothing beyond what every artifact says.
_SAYS_NOTHING = {"schema_version": "1", "explanation_status": "NONE", "advisory_inputs": [], "advisories": []}


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _not_ours(value: str) -> str:
    if value.startswith("_"):
        msg = "names a file of our own store"
        raise ValueError(msg)
    return value


_Adapters = Mapping[str, TypeAdapter[Any]]
_LINE: TypeAdapter[str] = TypeAdapter(SingleLine)
_STATUS: TypeAdapter[Status] = TypeAdapter(StatusField)
_RISK: TypeAdapter[RiskLevel] = TypeAdapter(RiskField)
_OBJECT: TypeAdapter[dict[str, Any]] = TypeAdapter(JsonObject)
_TEXT: TypeAdapter[str] = TypeAdapter(Utf8Text)
_HASH: TypeAdapter[str] = TypeAdapter(Annotated[Sha256, BeforeValidator(_lower)])
_PATH: TypeAdapter[str] = TypeAdapter(Annotated[SafePath, AfterValidator(_not_ours)])
_DECISION: _Adapters = {
    "risk_level": _RISK,
    "score": TypeAdapter(Score),
    "block_reason": _TEXT,
    "warnings": TypeAdapter(list[Utf8Text]),
    "details": _OBJECT,
}
_HASHES: _Adapters = dict.fromkeys(
    ("feasibility_sha256", "toolpaths_sha256", "gcode_sha256", "opplan_sha256"), _HASH
)
#: A path of the old system that ours may not hold is no fault of the run.
_PATHS = frozenset({"gcode_path", "opplan_path", "preview_svg_path"})
_OUTPUTS: _Adapters = {"gcode_text": _TEXT, "opplan_json": _OBJECT, **dict.fromkeys(_PATHS, _PATH)}


@dataclass(frozen=True, slots=True)
class Converted:
    """What becomes of one old record, besides its advisories."""

    artifact: RunArtifact
    #: Content and suffix of what is to lie in the store before the artifact that names it.
    attachments: tuple[tuple[bytes, str], ...]
    #: Why it is BLOCKED; empty when it is complete.
    violations: tuple[str, ...]


def convert(decoded: Decoded, *, named: str | None, data: bytes) -> Converted:
    """Return the artifact of an old record.

    The same record gives the same bytes, wherever it lies. ``named`` is the id that its place gives, ``data``
    are its original bytes.

    Raises:
        Unreadable: it has no usable id, or no time.
    """
    found = Findings()
    for key in decoded.repeated:
        found.wrong(key, "stands twice in one object; the last one counts")
        found.inexact = True
    fields = _unflattened(decoded.fields)
    original = {name: fields.get(name) for name in ("status", "decision", "hashes")}
    values = _identity(fields, named, found) | _words(fields, found)
    feasibility = _feasibility(fields, found)
    decision = _decision(fields, found)
    outputs, gcode = _outputs(fields, found)
    values["hashes"] = _hashes(fields, feasibility, outputs, found)
    if gcode is not None:
        outputs |= {"gcode_text": None, "gcode_path": attachment_key(gcode, _GCODE_SUFFIX)}
    meta = _meta(fields, values["status"], found)
    for name, value in fields.items():
        if value is not None and value != _SAYS_NOTHING.get(name):
            found.keep(name, value)
    if found.violations:
        _block(values, decision, original, found)
    attachments = [] if gcode is None else [(gcode, _GCODE_SUFFIX)]
    if found.inexact:
        attachments.append((data, _ORIGINAL_SUFFIX))
    meta["legacy"] = _legacy(found, data)
    values |= {"feasibility": feasibility, "decision": decision, "outputs": outputs, "meta": meta}
    try:
        artifact = RunArtifact.read(values)
    except InvalidRequest as error:
        raise Unreadable(f"makes no valid artifact: {error.problems[0]}") from None
    return Converted(artifact, tuple(attachments), tuple(map(str, found.violations)))


def _unflattened(old: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields with the oldest records' outputs and hashes where they belong."""
    fields = dict(old)
    for name, (part, inner) in _FLAT.items():
        value, holder = fields.get(name), fields.get(part) or {}
        if value is not None and isinstance(holder, dict) and holder.get(inner) is None:
            fields[part] = {**holder, inner: fields.pop(name)}
    return fields


# -- who and when -----------------------------------------------------------------------------------------


def _identity(fields: dict[str, Any], named: str | None, found: Findings) -> dict[str, Any]:
    run_id = fields.pop("run_id", None)
    if run_id is None:
        run_id = named
        found.note("run_id: taken from the record's name in the source")
    if run_id is None:
        raise Unreadable("its run id is missing")
    if not isinstance(run_id, str) or not is_safe_id(run_id):
        raise Unreadable("its run id is none that may become part of a path")
    return {"run_id": run_id, "created_at_utc": _created(fields, run_id, found)}


def _created(fields: dict[str, Any], run_id: str, found: Findings) -> datetime:
    value = fields.pop("created_at_utc", None)
    moment, zoned = moment_of(value)
    inside = uuid7_time(run_id)
    if moment is None:
        if inside is None:
            raise Unreadable("created_at_utc is missing or no time, and its run id tells none")
        if value is None:
            found.lacks("created_at_utc")
        else:
            found.wrong("created_at_utc", "is no time; that inside run_id counts")
            found.keep("created_at_utc", value)
        return inside
    text = format_utc(moment)
    if value not in {text, text.removesuffix("Z") + "+00:00"}:
        found.keep("created_at_utc", value)
    if not zoned:
        found.note("created_at_utc: named no zone, taken as UTC")
    if inside is not None and inside.date() != moment.date():
        found.wrong("created_at_utc", "its UTC date differs from the one inside run_id, which counts")
        found.keep("created_at_utc", value)
        return inside
    return moment


# -- one field --------------------------------------------------------------------------------------------


def _checked(adapter: TypeAdapter[Any], value: object) -> tuple[Any, str | None]:
    """Return the value as the contract has it, or why it has none like that."""
    try:
        return adapter.validate_python(value, strict=True), None
    except ValidationError as error:
        problem = InvalidRequest.of(error, what="").problems[0]
        return None, f"{problem.field}: {problem.reason}" if problem.field else problem.reason


def _field(fields: dict[str, Any], name: str, adapter: TypeAdapter[Any], found: Findings) -> Any:
    value = fields.pop(name, None)
    if value is None:
        return None
    checked, reason = _checked(adapter, value)
    if reason is not None:
        found.wrong(name, reason)
        found.keep(name, value)
    return checked


def _words(fields: dict[str, Any], found: Findings) -> dict[str, Any]:
    event = fields.get("event_type")
    if isinstance(event, str) and not event.strip():
        del fields["event_type"]
    values = {
        "request_id": _field(fields, "request_id", _LINE, found),
        "event_type": _field(fields, "event_type", _LINE, found) or UNKNOWN_EVENT,
    }
    for name, adapter, absent in (
        ("mode", _LINE, ABSENT),
        ("tool_id", _LINE, ABSENT),
        ("status", _STATUS, Status.BLOCKED),
    ):
        if fields.get(name) is None:
            found.lacks(name)
        values[name] = _field(fields, name, adapter, found) or absent
    summary = _field(fields, "request_summary", _OBJECT, found) or {}
    if "feasibility" in summary:
        # Contract section 2: the client's own judgement is never kept where it may be taken for the server's.
        found.note("request_summary.feasibility: the caller's own claim, removed")
    values["request_summary"] = {key: item for key, item in summary.items() if key != "feasibility"}
    return values


# -- one part ---------------------------------------------------------------------------------------------


def _part(fields: dict[str, Any], name: str, adapters: _Adapters, found: Findings) -> dict[str, Any]:
    """Return what the contract has a place for in a part, and keep the rest of it."""
    value = fields.pop(name, None)
    if value is None:
        return {}
    if not isinstance(value, dict):
        found.wrong(name, "must be an object")
        found.keep(name, value)
        return {}
    made: dict[str, Any] = {}
    for key, adapter in adapters.items():
        item = value.get(key)
        if item is None:
            continue
        made[key], reason = _checked(adapter, item)
        if reason is not None:
            del made[key]
            if key in _PATHS:
                found.note(f"{name}.{key}: {reason}")
            else:
                found.wrong(f"{name}.{key}", reason)
    rest = {key: item for key, item in value.items() if item is not None and key not in made}
    if rest:
        found.keep(name, rest)
    return made


def _feasibility(fields: dict[str, Any], found: Findings) -> dict[str, Any]:
    if fields.get("feasibility") in (None, {}):
        found.lacks("feasibility")
    return _field(fields, "feasibility", _OBJECT, found) or {}


def _decision(fields: dict[str, Any], found: Findings) -> dict[str, Any]:
    original = fields.get("decision")
    made = _part(fields, "decision", _DECISION, found)
    if isinstance(original, dict) and original.get("risk_level") is None:
        # The oldest records call it so.
        risk, _ = _checked(_RISK, original.get("risk_bucket"))
        if risk is None:
            found.lacks("decision.risk_level")
        else:
            made["risk_level"] = risk
    elif original is None:
        found.lacks("decision.risk_level")
    return made


def _outputs(fields: dict[str, Any], found: Findings) -> tuple[dict[str, Any], bytes | None]:
    """Return the outputs, and the G-code that is too large to lie inside."""
    made = _part(fields, "outputs", _OUTPUTS, found)
    gcode = made["gcode_text"].encode() if "gcode_text" in made else b""
    if len(gcode) <= INLINE_GCODE_BYTES:
        return made, None
    if "gcode_path" in made:
        found.note("outputs.gcode_path: names the attachment now")
        found.keep("outputs", found.kept.get("outputs", {}) | {"gcode_path": made["gcode_path"]})
    return made, gcode


def _hashes(
    fields: dict[str, Any], feasibility: dict[str, Any], outputs: Mapping[str, Any], found: Findings
) -> dict[str, Any]:
    """Return the hashes of what is stored; a recorded one that differs is a violation, never presented."""
    recorded = _part(fields, "hashes", _HASHES, found)
    computed = {"feasibility_sha256": sha256_hex(encode(feasibility)), **output_hashes(Outputs.read(outputs))}
    # The oldest records have a hash of their request, which in some of them was that of the feasibility.
    if "feasibility_sha256" not in recorded and fields.get("request_hash") != computed["feasibility_sha256"]:
        found.lacks("hashes.feasibility_sha256")
    for name, value in computed.items():
        if value is not None:
            if recorded.get(name, value) != value:
                found.wrong(f"hashes.{name}", "is not the hash of what the record holds")
            recorded[name] = value
    return recorded


# -- meta -------------------------------------------------------------------------------------------------


def _meta(fields: dict[str, Any], status: Status, found: Findings) -> dict[str, Any]:
    value = fields.pop("meta", None)
    if not isinstance(value, dict):
        if value is not None:
            found.wrong("meta", "must be an object")
            found.keep("meta", value)
        value = {}
    meta: dict[str, Any] = {}
    for key, item in value.items():
        if key == "legacy":
            found.keep("meta", {"legacy": item})
        else:
            _add(meta, key, item, found)
    for name in VOCABULARY:
        item = fields.get(name)
        if item is not None and meta.get(name) in (None, item):
            _add(meta, name, fields.pop(name), found)
    _add_parent(meta)
    if status is Status.ERROR:
        exception = meta.get("exception")
        for part in ("type", "message"):
            if not isinstance(exception, dict) or not isinstance(exception.get(part), str):
                found.lacks(f"meta.exception.{part}")
    return meta


def _add(meta: dict[str, Any], key: str, item: object, found: Findings) -> None:
    if exact({key: item}):
        meta[key] = item
    else:
        found.inexact = True
        found.wrong(f"meta.{key}", "only in the original, for JSON cannot carry it exactly")


def _add_parent(meta: dict[str, Any]) -> None:
    """Say in the words of contract section 7 what a plan's pointer says."""
    lineage = meta.get("lineage")
    for place in (meta, lineage if isinstance(lineage, dict) else {}):
        parent = place.get("parent_plan_run_id")
        if isinstance(parent, str) and is_safe_id(parent) and "parent_run_id" not in meta:
            meta |= {"parent_run_id": parent, "parent_kind": meta.get("parent_kind", "plan")}


def _legacy(found: Findings, data: bytes) -> dict[str, Any]:
    legacy: dict[str, Any] = {"source_sha256": sha256_hex(data)}
    if found.inexact:
        legacy["original"] = attachment_key(data, _ORIGINAL_SUFFIX)
    if found.violations:
        legacy["violations"] = [str(problem) for problem in found.violations]
    if found.notes:
        legacy["notes"] = found.notes
    if found.kept:
        legacy["fields"] = found.kept
    return legacy


def _block(
    values: dict[str, Any], decision: dict[str, Any], original: Mapping[str, object], found: Findings
) -> None:
    """Make the run BLOCKED, and keep what was decided then (contract section 1)."""
    values["status"] = Status.BLOCKED
    for name, value in original.items():
        if value is not None:
            found.keep(name, value)
    decision |= {
        "risk_level": RiskLevel.ERROR,
        "block_reason": found.block_reason(decision.get("block_reason")),
    }
