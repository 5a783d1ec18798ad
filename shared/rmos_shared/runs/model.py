"""A run: what a caller asks to record, and the artifact that is stored (contract section 2)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from rmos_shared.advisories.model import ComposedAdvisory
from rmos_shared.canonical import encode, sha256_hex
from rmos_shared.ids import new_uuid7, uuid7_time
from rmos_shared.models.base import Frozen, JsonObject, SafeId, Sha256, SingleLine, UtcTime, Utf8Text, joined
from rmos_shared.runs.attachment_key import ATTACHMENTS, attachment_sha256
from rmos_shared.runs.vocabulary import WORDS, with_words_in_meta

#: Contract section 2: more G-code than this, in bytes of UTF-8, goes to an attachment.
INLINE_GCODE_BYTES = 204_800
#: Stored where the caller names no event: production's reader knows no null there, and would hide the run.
UNKNOWN_EVENT = "unknown"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Status(StrEnum):
    """What became of the attempt."""

    OK = "OK"
    BLOCKED = "BLOCKED"
    ERROR = "ERROR"


class RiskLevel(StrEnum):
    """What the server judged."""

    GREEN = "GREEN"
    YELLOW = "YELLOW"
    RED = "RED"
    UNKNOWN = "UNKNOWN"
    ERROR = "ERROR"


class ExplanationStatus(StrEnum):
    """How far the explanation of a run is, as composed for readers (contract section 5)."""

    NONE = "NONE"
    PENDING = "PENDING"
    READY = "READY"
    ERROR = "ERROR"


def _enum_of(kind: type[StrEnum]) -> BeforeValidator:
    members = {str(member): member for member in kind}

    def parse(value: object) -> object:
        # Strict models take no plain strings for enums; these come from JSON, so they must.
        if isinstance(value, str) and value in members:
            return members[value]
        msg = "must be one of " + ", ".join(kind)
        raise ValueError(msg)

    return BeforeValidator(parse)


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


def _score(value: object) -> object:
    if type(value) not in {int, float}:
        msg = "must be a number"
        raise ValueError(msg)
    if not 0 <= value <= 100:  # type: ignore[operator]  # noqa: PLR2004 - contract section 2; NaN fails too
        msg = "must be from 0 to 100"
        raise ValueError(msg)
    return value


def _safe_path(value: str) -> str:
    if value.startswith("/") or "\\" in value or "\0" in value or ".." in value.split("/"):
        msg = "must be a relative path without '..', '\\' or NUL"
        raise ValueError(msg)
    return value


StatusField = Annotated[Status, _enum_of(Status)]
# The right-most BeforeValidator runs first: upper-case, then match.
RiskField = Annotated[RiskLevel, _enum_of(RiskLevel), BeforeValidator(_upper)]
StatusOfExplanation = Annotated[ExplanationStatus, _enum_of(ExplanationStatus)]
Score = Annotated[int | float, BeforeValidator(_score)]
SafePath = Annotated[SingleLine, AfterValidator(_safe_path)]


class Decision(Frozen):
    """The server's decision as stored: the risk level is never missing."""

    risk_level: RiskField
    score: Score | None = None
    block_reason: Utf8Text | None = None
    warnings: list[Utf8Text] = Field(default_factory=list)
    details: JsonObject = Field(default_factory=dict)


class ClaimedDecision(Decision):
    """The decision as a caller sends it; a missing risk level makes the run BLOCKED, not lost."""

    risk_level: RiskField | None = None  # type: ignore[assignment]  # wider than its base, on purpose


class Hashes(Frozen):
    """What proves the record: the feasibility hash is never missing."""

    feasibility_sha256: Sha256
    toolpaths_sha256: Sha256 | None = None
    gcode_sha256: Sha256 | None = None
    opplan_sha256: Sha256 | None = None


class ClaimedHashes(Hashes):
    """Hashes as a caller may send them; those that the store can compute must agree with it."""

    feasibility_sha256: Sha256 | None = None  # type: ignore[assignment]  # wider than its base, on purpose


class Outputs(Frozen):
    """What the attempt produced."""

    gcode_text: Utf8Text | None = None
    opplan_json: JsonObject | None = None
    gcode_path: SafePath | None = None
    opplan_path: SafePath | None = None
    preview_svg_path: SafePath | None = None


class RunRequest(Frozen):
    """A request to record a run, as an upstream service sends it.

    Wrong values are refused. Missing invariants are not: ``missing`` names them, and the run is stored
    as BLOCKED (contract section 1). Ids and time are fixed here, before the first try, so that every
    retry writes the same bytes; a run id without a time gives its own. What the vocabulary of ``meta`` names
    (contract section 7) may stand at the top level, and is put under ``meta``.
    """

    run_id: SafeId = Field(default_factory=new_uuid7)
    created_at_utc: UtcTime = None  # type: ignore[assignment]  # filled by _settle_time
    request_id: SingleLine | None = None
    event_type: SingleLine | None = None
    mode: SingleLine | None = None
    tool_id: SingleLine | None = None
    status: StatusField | None = None
    request_summary: JsonObject = Field(default_factory=dict)
    feasibility: JsonObject | None = None
    decision: ClaimedDecision = Field(default_factory=ClaimedDecision)
    # Shared by all requests that leave them out, for they can hold nothing that changes.
    hashes: ClaimedHashes = ClaimedHashes()
    outputs: Outputs = Outputs()
    meta: JsonObject = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _settle_time(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        data = {key: value for key, value in data.items() if value is not None or key not in _NULL_IS_ABSENT}
        if not WORDS.isdisjoint(data):
            data = _settle_words(data)
        run_id, created = data.get("run_id"), data.get("created_at_utc")
        if created is None:
            run_id = new_uuid7() if run_id is None else run_id
            moment = uuid7_time(run_id) if isinstance(run_id, str) else None
            # An id without a readable time is reported by its own validator; any time will do here.
            data["run_id"], data["created_at_utc"] = run_id, moment or _EPOCH
        elif run_id is None:
            data["run_id"] = _mint(created)
        return data

    @field_validator("run_id")
    @classmethod
    def _run_id_is_uuid7(cls, value: str) -> str:
        if uuid7_time(value) is None:
            msg = "a new run's id must be a UUIDv7 of 32 lower-case hex digits"
            raise ValueError(msg)
        return value

    @field_validator("created_at_utc")
    @classmethod
    def _partition_is_readable(cls, value: datetime, info: ValidationInfo) -> datetime:
        if value < _EPOCH:
            msg = "must not be before 1970: a run id cannot tell such a time"
            raise ValueError(msg)
        moment = uuid7_time(info.data.get("run_id", ""))
        if moment is not None and moment.date() != value.date():
            msg = "its UTC date differs from the one inside run_id; leave one of the two out"
            raise ValueError(msg)
        return value

    @field_validator("request_summary")
    @classmethod
    def _strip_claim(cls, value: dict[str, Any]) -> dict[str, Any]:
        # The client's own judgement must never be mistaken for the server's.
        return {key: item for key, item in value.items() if key != "feasibility"}

    @model_validator(mode="after")
    def _is_identified(self) -> Self:
        if self.request_id is None and self.mode is None and self.tool_id is None:
            msg = "nothing identifies the attempt; give at least one of request_id, mode and tool_id"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _hashes_agree(self) -> Self:
        if not self.hashes.model_fields_set:
            return self  # as in most requests, which leave the hashes to us
        claims = {name: claimed for name, claimed in self.hashes if claimed is not None}
        computed = {
            "feasibility_sha256": None if self.feasibility is None else _sha256_of(self.feasibility),
            **output_hashes(self.outputs),
        }
        for name, value in computed.items():
            if value is not None and claims.get(name, value) != value:
                msg = f"hashes.{name} is not the hash of what the request holds; leave it out or repair it"
                raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _attachments_agree(self) -> Self:
        for field, path, hash_name in attached(self.outputs):
            named = attachment_sha256(path)
            if named is None:
                msg = f"outputs.{field} lies in {ATTACHMENTS} and is no key of an attachment"
                raise ValueError(msg)
            if hash_name is None:
                continue
            known = output_hashes(self.outputs)[hash_name] or getattr(self.hashes, hash_name)
            if known not in {None, named}:
                msg = f"hashes.{hash_name} is not the hash of what outputs.{field} names"
                raise ValueError(msg)
        return self

    def missing(self) -> tuple[str, ...]:
        """Return the required fields that the request lacks, as dotted names, in contract order."""
        lacking = [name for name in ("mode", "tool_id", "status") if getattr(self, name) is None]
        if not self.feasibility:
            lacking.append("feasibility")
        if self.decision.risk_level is None:
            lacking.append("decision.risk_level")
        if self.status is Status.ERROR:
            exception = self.meta.get("exception")
            fields = exception if isinstance(exception, dict) else {}
            lacking += [
                f"meta.exception.{part}"
                for part in ("type", "message")
                if not isinstance(fields.get(part), str)
            ]
        return tuple(lacking)


#: An explicit null in one of these means the same as leaving it out.
_NULL_IS_ABSENT = frozenset(
    {"run_id", "created_at_utc", "request_summary", "decision", "hashes", "outputs", "meta"}
)
_UTC_TIME: TypeAdapter[datetime] = TypeAdapter(UtcTime)


def _settle_words(data: dict[str, Any]) -> dict[str, Any]:
    """Return ``with_words_in_meta``; an error names what is wrong with the rest of the request too."""
    try:
        return with_words_in_meta(data)
    except ValidationError as error:
        rest = {name: value for name, value in data.items() if name not in WORDS}
        errors = [error]
        try:
            RunRequest.model_validate(rest)
        except ValidationError as other:
            errors.append(other)
        raise joined(errors) from None


def _mint(created: object) -> str:
    try:
        return new_uuid7(max(_EPOCH, _UTC_TIME.validate_python(created)))
    except ValidationError:
        return new_uuid7()  # created_at_utc itself is reported by its own validator


def _sha256_of(checked: dict[str, Any]) -> str:
    # The fields were checked when they were validated.
    return sha256_hex(encode(checked))


#: What names a file, and the hash that proves it; that of a preview stands in its name alone.
_PATHS = (("gcode_path", "gcode_sha256"), ("opplan_path", "opplan_sha256"), ("preview_svg_path", None))


def attached(outputs: Outputs) -> list[tuple[str, str, str | None]]:
    """Return each field that names a file among the attachments, its path, and the field of its hash.

    Any other path is the caller's own, who keeps that file.
    """
    named = ((field, getattr(outputs, field), hash_name) for field, hash_name in _PATHS)
    return [item for item in named if item[1] is not None and item[1].startswith(ATTACHMENTS)]


def original_of(meta: Mapping[str, Any]) -> str | None:
    """Return the attachment that holds the original bytes of a migrated run; None where there is none."""
    legacy = meta.get("legacy")
    if not isinstance(legacy, dict):
        return None
    path = legacy.get("original")
    digest = attachment_sha256(path) if isinstance(path, str) else None
    # Only what a migration writes: `meta` is free, and a caller may have a word of that name.
    return path if digest is not None and digest == legacy.get("source_sha256") else None


def output_hashes(outputs: Outputs) -> dict[str, str | None]:
    """Return the hashes over exactly the outputs held: G-code as UTF-8, the plan as canonical JSON."""
    return {
        "gcode_sha256": None if outputs.gcode_text is None else sha256_hex(outputs.gcode_text.encode()),
        "opplan_sha256": None if outputs.opplan_json is None else _sha256_of(outputs.opplan_json),
    }


class RunRecord(Frozen):
    """The fields that a stored artifact and a composed run have in common."""

    schema_version: Literal["1"] = "1"
    run_id: SafeId
    created_at_utc: UtcTime
    request_id: SingleLine | None = None
    #: Null is read, never written: see ``UNKNOWN_EVENT``.
    event_type: SingleLine | None = UNKNOWN_EVENT
    mode: SingleLine
    tool_id: SingleLine
    status: StatusField
    request_summary: JsonObject
    feasibility: JsonObject
    decision: Decision
    hashes: Hashes
    outputs: Outputs
    meta: JsonObject

    @property
    def date(self) -> str:
        """The run's partition: the UTC date of ``created_at_utc``."""
        return self.created_at_utc.date().isoformat()


class RunArtifact(RunRecord):
    """A run as stored: written once, never changed (contract sections 2 and 4)."""

    advisory_inputs: list[JsonObject] = Field(default_factory=list, max_length=0)
    explanation_status: Literal["NONE"] = "NONE"
    explanation_summary: None = None

    @model_validator(mode="after")
    def _holds_its_own_proof(self) -> Self:
        if self.hashes.feasibility_sha256 != _sha256_of(self.feasibility):
            msg = "hashes.feasibility_sha256 is not the hash of feasibility"
            raise ValueError(msg)
        for name, value in output_hashes(self.outputs).items():
            if value is not None and getattr(self.hashes, name) != value:
                msg = f"hashes.{name} is not the hash of the stored output"
                raise ValueError(msg)
        if "feasibility" in self.request_summary:
            msg = "request_summary holds the caller's own feasibility claim"
            raise ValueError(msg)
        gcode = self.outputs.gcode_text
        if gcode is not None and len(gcode.encode()) > INLINE_GCODE_BYTES:
            msg = f"outputs.gcode_text is larger than {INLINE_GCODE_BYTES} bytes; it belongs in an attachment"
            raise ValueError(msg)
        return self


class ComposedRun(RunRecord):
    """A run as readers see it: the artifact with its links, reviews and live explanation status."""

    advisory_inputs: list[ComposedAdvisory]
    explanation_status: StatusOfExplanation
    explanation_summary: Utf8Text | None
