"""Explanations, the verdicts on them, and the records that tie them to runs (contract section 5)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from rmos_shared.models.base import Frozen, JobId, JsonObject, Line, SafeId, Sha256, Text, UtcTime

Detail = Literal["summary", "full"]
Kind = Literal["explanation", "advisory", "note", "unknown"]
Fraction = Annotated[int | float, Field(ge=0, le=1)]


class TriggeredRule(Frozen):
    """One feasibility rule that judged the run, in words for the operator at the machine."""

    rule_id: Line
    known: bool
    level: Literal["RED", "YELLOW", "UNKNOWN"]
    title: Text
    #: What it means and what to look at; None at detail ``summary``.
    meaning: Text | None
    hint: Text | None


class Explanation(Frozen):
    """Why a run was judged as it was: what an explainer returns."""

    run_id: SafeId
    detail: Detail
    engine_id: Line
    engine_version: Line
    #: Over the run's feasibility and decision: all that an explainer may look at.
    inputs_sha256: Sha256
    #: True when the same inputs always give the same explanation; policies trust nothing else.
    deterministic: bool
    summary: Text
    risk_level: Line
    triggered_rules: list[TriggeredRule]
    suggested_actions: list[Text]
    unknown_rules: list[Line]
    #: 0 (a guess) to 1 (certain).
    confidence: Fraction


class Verdict(Frozen):
    """What an approval policy says of an advisory."""

    policy_id: Line
    policy_version: Line
    approved: bool
    #: The system identity that approved; None while a person must.
    reviewed_by: Line | None
    reason: Text


class AdvisoryLink(Frozen):
    """A published, append-only tie between a run and an advisory in the advisory store."""

    run_id: SafeId
    advisory_id: SafeId
    kind: Kind
    created_at_utc: UtcTime
    request_id: Line | None
    engine_id: Line
    engine_version: Line
    summary: Text
    inputs_sha256: Sha256
    advisory_sha256: Sha256
    policy_id: Line
    policy_version: Line
    approved: bool
    reviewed_by: Line | None
    reason: Text

    def same_advisory(self, other: AdvisoryLink) -> bool:
        """Say whether both tie the same advisory; when, by which request and which verdict do not count."""
        volatile = {"created_at_utc", "request_id", "policy_id", "policy_version"} | {
            "approved",
            "reviewed_by",
            "reason",
        }
        return self.model_dump(exclude=volatile) == other.model_dump(exclude=volatile)


class Review(Frozen):
    """A person's verdict on an advisory: a new record that changes no file."""

    review_id: SafeId
    run_id: SafeId
    advisory_id: SafeId
    created_at_utc: UtcTime
    approved: bool
    reviewed_by: Line
    note: Text | None = None


class Attempt(Frozen):
    """An explanation that ended in the dead letters: why the run's explanation reads ERROR."""

    run_id: SafeId
    job_id: JobId
    request_id: Line | None
    failed_at_utc: UtcTime
    #: A ``DeadReason``.
    reason: Line
    message: Text


class ComposedAdvisory(Frozen):
    """A link as readers see it: with the last person's review, which outranks the policy's verdict."""

    link: AdvisoryLink
    review: Review | None

    @property
    def approved(self) -> bool:
        """Whether the advisory may be used now."""
        return self.link.approved if self.review is None else self.review.approved

    @property
    def needs_review(self) -> bool:
        """Whether it still waits for a person."""
        return not self.link.approved and self.review is None


class AdvisoryAsset(Frozen):
    """An advisory as the advisory store keeps it (contract section 5)."""

    asset_id: SafeId
    asset_type: Literal["image", "suggestion", "analysis", "pattern"]
    created_at_utc: UtcTime
    source: Line
    provider: Line
    model: Line
    prompt: Text
    #: Over ``suggestion_data``; two assets of one id with different hashes are a conflict.
    content_hash: Sha256
    suggestion_data: JsonObject
    confidence: Fraction
    reviewed: bool = False
    approved_for_workflow: bool = False
    reviewed_by: Line | None = None
    reviewed_at_utc: UtcTime | None = None
    review_note: Text | None = None
    rejection_reason: Text | None = None
    request_id: Line | None = None
    meta: JsonObject = Field(default_factory=dict)
