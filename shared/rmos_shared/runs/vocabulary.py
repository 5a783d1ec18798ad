"""The words that readers and filters look for in a run's ``meta`` (contract section 7)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from rmos_shared.canonical import canonical_json
from rmos_shared.errors import InvalidRequest
from rmos_shared.models.base import Frozen, JsonObject, SafeId, Word, WordText

#: Where the predecessor wrote the same thing under another name, besides inside ``lineage``.
_ALSO = {"session_id": ("workflow_session_id",)}

ParentKind = Literal["spec", "plan", "decision", "toolpaths", "execution", "run"]


class Vocabulary(Frozen):
    """What a request may carry at its top level to be stored under ``meta``, and of which type.

    Names and references are printable, for filters ask for them; only what is prose may have line breaks.
    """

    session_id: Word | None = None
    workflow_session_id: Word | None = None
    batch_label: Word | None = None
    #: What this run came from. It need not be stored here.
    parent_run_id: SafeId | None = None
    parent_kind: ParentKind | None = None
    lineage: JsonObject | None = None
    tool_kind: Word | None = None
    machine_id: Word | None = None
    material_id: Word | None = None
    workflow_mode: Word | None = None
    toolchain_id: Word | None = None
    toolchain_version: Word | None = None
    post_processor_id: Word | None = None
    engine_version: Word | None = None
    config_fingerprint: Word | None = None
    geometry_ref: Word | None = None
    geometry_hash: Word | None = None
    gate_policy_id: Word | None = None
    gate_decision: Word | None = None
    drift_detected: bool | None = None
    drift_summary: WordText | None = None
    notes: WordText | None = None


WORDS = frozenset(Vocabulary.model_fields)


def with_words_in_meta(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return a request whose words at the top level are in its ``meta``, by the same names.

    A null is left out. ``meta`` that is no object is left as it is, for its own validator to refuse.

    Raises:
        ValidationError: a word is of the wrong type, or ``meta`` gives another value for the same thing.
            Every such word is named.
    """
    words = {name: request[name] for name in WORDS.intersection(request) if request[name] is not None}
    Vocabulary.model_validate(words)
    rest = {name: value for name, value in request.items() if name not in WORDS}
    meta = rest.get("meta") or {}
    if not words or not isinstance(meta, dict):
        return rest
    problems = list(_contradictions(words, meta))
    if problems:
        raise ValidationError.from_exception_data("request", problems)
    return rest | {"meta": meta | words}


def meta_text(meta: Mapping[str, Any], name: str) -> str | None:
    """Return what ``meta`` says under a name of the vocabulary, or None.

    It is looked for under the name itself, then under the name that older runs use, then the same inside
    ``lineage``. A value that is no text counts as missing.
    """
    lineage = meta.get("lineage")
    for place in (meta, lineage if isinstance(lineage, dict) else {}):
        for key in (name, *_ALSO.get(name, ())):
            value = place.get(key)
            if isinstance(value, str) and value:
                return value
    return None


def _contradictions(words: dict[str, Any], meta: dict[str, Any]) -> Iterator[InitErrorDetails]:
    for name, value in sorted(words.items()):
        if meta.get(name) is not None and not _same(meta[name], value):
            yield _problem(name, f"differs from meta.{name}; give it once")
    told = meta | words
    for name, others in _ALSO.items():
        for other in others:
            named = next((word for word in (name, other) if word in words), None)
            values = (told.get(name), told.get(other))
            if named is not None and None not in values and not _same(*values):
                yield _problem(named, f"{name} and {other} are the same thing, and differ; give one of them")


def _same(one: object, other: object) -> bool:
    # As JSON: 1 is neither true nor 1.0.
    try:
        return canonical_json(one) == canonical_json(other)
    except InvalidRequest:
        return False


def _problem(name: str, reason: str) -> InitErrorDetails:
    return InitErrorDetails(type=PydanticCustomError("contradiction", reason), loc=(name,), input=None)
