"""From what an old system attached to a run to links and reviews: a pure decision (decision 0026)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter, ValidationError

from rmos_runs.operations.migration.decoding import Unreadable, decode
from rmos_runs.operations.migration.sources import RawLink
from rmos_runs.operations.migration.times import moment_of
from rmos_shared.advisories.model import AdvisoryKind, AdvisoryLink, Review
from rmos_shared.canonical import canonical_sha256
from rmos_shared.errors import FieldProblem, InvalidRequest
from rmos_shared.ids import is_safe_id
from rmos_shared.models.base import Sha256, SingleLine, Utf8Text, format_utc
from rmos_shared.runs.attachment_key import attachment_key
from rmos_shared.runs.layout import link_key
from rmos_shared.runs.model import RiskLevel, RunArtifact, Status
from rmos_shared.store.base import KEY

#: Stands for what was hashed where nothing says what the advisory was made from: the hash of ``null``.
NO_INPUTS = canonical_sha256(None)
UNKNOWN_ENGINE = "unknown"
POLICY_B = "policy_b"
#: Where no policy of ours decided; what it did not approve waits for a person.
MIGRATION = "migration"
_POLICY_B_SIGNS = "system:auto_explanation_green"
_KINDS: dict[str, AdvisoryKind] = {"explanation": "explanation", "advisory": "advisory", "note": "note"}
#: What old systems write into every link of which nobody said anything.
_SAYS_NOTHING: dict[str, object] = {
    "schema_version": "run_advisory_link.v1",
    "status": "NEW",
    "rejected": False,
    "promoted": False,
    "reviewed": False,
    "approved_for_workflow": False,
}
#: What a link has a place for.
_CARRIED = frozenset(
    {"run_id", "advisory_id", "kind", "created_at_utc", "request_id", "engine_id", "engine_version"}
    | {"summary", "advisory_sha256"}
)
_LINE: TypeAdapter[str] = TypeAdapter(SingleLine)
_TEXT: TypeAdapter[str] = TypeAdapter(Utf8Text)
_HASH: TypeAdapter[str] = TypeAdapter(Sha256)


@dataclass(frozen=True, slots=True)
class Tie:
    """One advisory of a run, as it is to be stored."""

    place: str
    link: AdvisoryLink
    reviews: tuple[Review, ...]
    #: Link files that say more than a link can: to be stored beside it, for ``link.reason`` names them.
    originals: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that cannot become a link."""

    place: str
    reason: str


@dataclass(slots=True)
class _Old:
    """One advisory as all its places together describe it; the first place has the word."""

    place: str
    fields: dict[str, Any] = field(default_factory=dict)
    #: A key stands twice in it, so the fields are not all that it says.
    repeats: bool = False
    originals: list[bytes] = field(default_factory=list)


def advisories(
    run: RunArtifact, old: Mapping[str, Any], place: str, files: Sequence[RawLink]
) -> Iterator[Tie | Problem]:
    """Yield each advisory of a run, and each place where one should be and none can be made of it.

    ``old`` are the fields of the run's old record: what is embedded outranks the link files, as it did for
    the predecessor's readers.
    """
    found: dict[str, _Old] = {}
    for item in _embedded(old, place):
        yield from _collect(found, item)
    for file in files:
        yield from _collect(found, _of_file(file, run.run_id), file.data)
    for advisory_id, merged in found.items():
        try:
            yield _tie(run, old, advisory_id, merged)
        except InvalidRequest as error:
            yield Problem(merged.place, str(error.problems[0]))


# -- where they are ---------------------------------------------------------------------------------------


def _embedded(old: Mapping[str, Any], place: str) -> Iterator[_Old | Problem]:
    for name in ("advisory_inputs", "advisories"):
        items = old.get(name)
        if items is None:
            continue
        if not isinstance(items, list):
            yield Problem(f"{place}: {name}", "is no list")
            continue
        for number, item in enumerate(items):
            where = f"{place}: {name}.{number}"
            if isinstance(item, str):
                yield _Old(where, {"advisory_id": item})
            elif isinstance(item, dict):
                yield _Old(where, item)
            else:
                yield Problem(where, "is no object")


def _of_file(file: RawLink, run_id: str) -> _Old | Problem:
    if file.data is None:
        return Problem(file.place, file.reason or "cannot be read")
    try:
        decoded = decode(file.data)
    except Unreadable as error:
        return Problem(file.place, error.reason)
    if decoded.fields.get("run_id") not in (None, run_id):
        return Problem(file.place, "says that it belongs to another run than its name does")
    return _Old(file.place, {"advisory_id": file.named, **decoded.fields}, bool(decoded.repeated))


def _collect(
    found: dict[str, _Old], item: _Old | Problem, original: bytes | None = None
) -> Iterator[Problem]:
    if isinstance(item, Problem):
        yield item
        return
    advisory_id = item.fields.get("advisory_id")
    if not isinstance(advisory_id, str) or not is_safe_id(advisory_id):
        yield Problem(item.place, "its advisory id is missing, or is none that may become part of a path")
        return
    merged = found.setdefault(advisory_id, _Old(item.place))
    if original is not None and (item.repeats or _says_more(item.fields, merged.fields)):
        merged.originals.append(original)
    merged.fields = {
        **item.fields,
        **{key: value for key, value in merged.fields.items() if value is not None},
    }


def _says_more(fields: Mapping[str, Any], known: Mapping[str, Any]) -> bool:
    """Say whether a link file holds what is neither known of the advisory yet nor has a place in a link."""
    for name, value in fields.items():
        if value is None or value == _SAYS_NOTHING.get(name) or known.get(name) == value:
            continue
        if known.get(name) is not None or name not in _CARRIED | {
            "kind",
            "created_at_utc",
            "advisory_sha256",
        }:
            return True
        if name == "kind" and value not in _KINDS:
            return True
    return False


# -- what they become -------------------------------------------------------------------------------------


def _tie(run: RunArtifact, old: Mapping[str, Any], advisory_id: str, merged: _Old) -> Tie:
    fields = merged.fields
    kind = _kind(fields)
    created, _ = moment_of(fields.get("created_at_utc"))
    lacks = [] if created else ["time (that of the run stands)"]
    engine = _valid(_LINE, fields.get("engine_id"))
    version = _valid(_LINE, fields.get("engine_version"))
    summary = _valid(_TEXT, fields.get("summary"))
    if summary is None and kind == "explanation":
        summary = _valid(_TEXT, old.get("explanation_summary"))
    inputs = _valid(_HASH, fields.get("inputs_sha256"))
    lacks += [
        name
        for name, value in (("engine", engine), ("summary", summary), ("inputs", inputs))
        if value is None
    ]
    review = _review(run, advisory_id, fields, created or run.created_at_utc)
    approved = _policy_b_approved(run, fields) and review is None
    link = AdvisoryLink.read(
        {
            "run_id": run.run_id,
            "advisory_id": advisory_id,
            "kind": kind,
            "created_at_utc": created or run.created_at_utc,
            "request_id": _valid(_LINE, fields.get("request_id")),
            "engine_id": engine or UNKNOWN_ENGINE,
            "engine_version": version or UNKNOWN_ENGINE,
            "summary": summary or "no summary was recorded",
            "inputs_sha256": inputs or NO_INPUTS,
            "advisory_sha256": _content_hash(fields) or canonical_sha256(fields),
            "policy_id": POLICY_B if approved else MIGRATION,
            "policy_version": "1",
            "approved": approved,
            "reviewed_by": _POLICY_B_SIGNS if approved else None,
            "reason": _reason(approved=approved, review=review, lacks=lacks, originals=merged.originals),
        }
    )
    if not KEY.fullmatch(link_key(run.date, run.run_id, advisory_id)):
        raise InvalidRequest((FieldProblem("advisory_id", "together with the run's id too long for a file"),))
    return Tie(merged.place, link, () if review is None else (review,), tuple(merged.originals))


def _kind(fields: Mapping[str, Any]) -> AdvisoryKind:
    old = fields.get("kind") or fields.get("type")
    # "advisory.v1.json" is how the predecessor's second kind of link file says it.
    return _KINDS.get(old.lower().split(".")[0], "unknown") if isinstance(old, str) else "unknown"


def _content_hash(fields: Mapping[str, Any]) -> str | None:
    """Return the hash of the advisory's own content, where the old system recorded one."""
    names = ("advisory_sha256", "content_hash", "sha256")
    return next((digest for name in names if (digest := _valid(_HASH, fields.get(name)))), None)


def _policy_b_approved(run: RunArtifact, fields: Mapping[str, Any]) -> bool:
    """Say whether Policy B approved there, and could: what it may not approve was not approved by it."""
    return (
        fields.get("approved_for_workflow") is True
        and fields.get("reviewed_by") == _POLICY_B_SIGNS
        and run.decision.risk_level is RiskLevel.GREEN
        and run.status is Status.OK
    )


def _review(
    run: RunArtifact, advisory_id: str, fields: Mapping[str, Any], created: datetime
) -> Review | None:
    """Return what a person decided there; None where nobody did, or nobody is named for an approval."""
    by = _valid(_LINE, fields.get("reviewed_by"))
    person = None if by is None or by.startswith("system:") else by
    rejected = fields.get("rejected") is True or str(fields.get("status")).upper() == "REJECTED"
    approved = fields.get("approved_for_workflow") is True and person is not None
    if not rejected and not approved:
        return None
    times = ("reviewed_at_utc", "rejected_at_utc", "updated_at_utc", "reviewed_at")
    at = next((moment for name in times if (moment := moment_of(fields.get(name))[0])), None)
    notes = ("review_note", "rejection_operator_note", "rejection_reason_detail", "rejection_reason")
    told = next((text for name in notes if (text := _valid(_TEXT, fields.get(name)))), "no note was recorded")
    when = "" if at else "; its time was not recorded, that of the advisory stands"
    values = {
        "run_id": run.run_id,
        "advisory_id": advisory_id,
        # A rejection holds whoever spoke it.
        "approved": approved and not rejected,
        "reviewed_by": person or "unknown",
        "note": f"migrated: {told}{when}",
    }
    moment = at or created
    digest = canonical_sha256({**values, "created_at_utc": format_utc(moment)})
    return Review.read({**values, "review_id": f"legacy-{digest[:32]}", "created_at_utc": moment})


def _reason(*, approved: bool, review: Review | None, lacks: list[str], originals: list[bytes]) -> str:
    if approved:
        parts = ["migrated: Policy B approved it there"]
    elif review is not None:
        parts = ["migrated: a person decided there, as the review says"]
    else:
        parts = ["migrated: neither a person nor Policy B approved it there; a person must decide"]
    if lacks:
        parts.append(f"not recorded there: {', '.join(lacks)}")
    parts += [f"its link file is kept as {attachment_key(data, '.json')}" for data in originals]
    return "; ".join(parts)


def _valid(adapter: TypeAdapter[str], value: object) -> str | None:
    try:
        return adapter.validate_python(value, strict=True)
    except ValidationError:
        return None
