"""Explanations, the verdicts on them, and the records that tie them to runs (contract section 5)."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from rmos_shared.models.base import Frozen, JobId, JsonObject, SafeId, Sha256, SingleLine, UtcTime, Utf8Text

DetailLevel = Literal["summary", "full"]
AdvisoryKind = Literal["explanation", "advisory", "note", "unknown"]
Fraction = Annotated[int | float, Field(ge=0, le=1)]


class TriggeredRule(Frozen):
    """One feasibility rule that judged the run, in words for the operator at the machine."""

    rule_id: SingleLine
    known: bool
    level: Literal["RED", "YELLOW", "UNKNOWN"]
    title: Utf8Text
    #: What it means and what to look at; None at detail ``summary``.
    meaning: Utf8Text | None
    hint: Utf8Text | None


class Explanation(Frozen):
    """Why a run was judged as it was: what an explainer returns."""

    run_id: SafeId
    detail: DetailLevel
    engine_id: SingleLine
    engine_version: SingleLine
    #: Over the run's feasibility and decision: all that an explainer may look at.
    inputs_sha256: Sha256
    #: True when the same inputs always give the same explanation; policies trust nothing else.
    deterministic: bool
    summary: Utf8Text
    risk_level: SingleLine
    triggered_rules: list[TriggeredRule]
    suggested_actions: list[Utf8Text]
    unknown_rules: list[SingleLine]
    #: 0 (a guess) to 1 (certain).
    confidence: Fraction


class Verdict(Frozen):
    """What an approval policy says of an advisory."""

    policy_id: SingleLine
    policy_version: SingleLine
    approved: bool
    #: The system identity that approved; None while a person must.
    reviewed_by: SingleLine | None
    reason: Utf8Text


class AdvisoryLink(Frozen):
    """A published, append-only tie between a run and an advisory in the advisory store."""

    run_id: SafeId
    advisory_id: SafeId
    kind: AdvisoryKind
    created_at_utc: UtcTime
    request_id: SingleLine | None
    engine_id: SingleLine
    engine_version: SingleLine
    summary: Utf8Text
    inputs_sha256: Sha256
    advisory_sha256: Sha256
    policy_id: SingleLine
    policy_version: SingleLine
    approved: bool
    reviewed_by: SingleLine | None
    reason: Utf8Text

    def same_advisory(self, other: AdvisoryLink) -> bool:
        """Say whether both tie the same advisory; when, by which request and which verdict do not count."""
        volatile = {"created_at_utc", "request_id", "policy_id", "policy_version"} | {
            "approved",
            "reviewed_by",
            "reason",
        }
        return self.model_dump(exclude=volatile) == other.model_dump(exclude=volatile)


class ReviewReason(StrEnum):
    """Why a person approved or rejected the words of an advisory; never why a cut was allowed."""

    #: Approving: it says what the record says.
    ACCURATE = "accurate"
    #: Approving: it was compared with what it speaks of, such as the tool table or the machine.
    CHECKED = "checked"
    #: Rejecting: the record does not bear it out.
    WRONG = "wrong"
    #: Rejecting: it leaves out what its reader must know.
    INCOMPLETE = "incomplete"
    #: Rejecting: nobody can act on it.
    UNCLEAR = "unclear"
    #: Rejecting: it is of an older engine, or of rules that no longer hold.
    OUTDATED = "outdated"


APPROVING = frozenset({ReviewReason.ACCURATE, ReviewReason.CHECKED})
REJECTING = frozenset({*ReviewReason} - APPROVING)


class Review(Frozen):
    """A person's verdict on an advisory's words: a new record that changes no file."""

    review_id: SafeId
    run_id: SafeId
    advisory_id: SafeId
    created_at_utc: UtcTime
    approved: bool
    #: An account and its machine, or an API key; what they call themselves stands behind it.
    reviewed_by: SingleLine
    note: Utf8Text | None = None
    reason: Annotated[ReviewReason, Field(strict=False)] | None = None
    #: Reviews that were made by one command, chosen by a filter, share one.
    act_id: SafeId | None = None

    @field_validator("reason")
    @classmethod
    def _reason_fits(cls, value: ReviewReason | None, info: ValidationInfo) -> ReviewReason | None:
        # A verdict that is wrong itself has been told already.
        if value is None or "approved" not in info.data:
            return value
        fitting = APPROVING if info.data["approved"] else REJECTING
        if value not in fitting:
            what = "approved" if info.data["approved"] else "rejected"
            msg = f"what is {what} has one of these reasons: {', '.join(sorted(fitting))}"
            raise ValueError(msg)
        return value


class Attempt(Frozen):
    """An explanation that ended in the dead letters: why the run's explanation reads ERROR."""

    run_id: SafeId
    job_id: JobId
    request_id: SingleLine | None
    failed_at_utc: UtcTime
    #: A ``DeadReason``.
    reason: SingleLine
    message: Utf8Text


class ComposedAdvisory(Frozen):
    """A link as readers see it: with all reviews of persons; the last one outranks the policy's verdict."""

    link: AdvisoryLink
    #: The last of ``reviews``, which counts; None when nobody has judged.
    review: Review | None
    #: All of them, oldest first.
    reviews: list[Review]

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
    source: SingleLine
    provider: SingleLine
    model: SingleLine
    prompt: Utf8Text
    #: Over ``suggestion_data``; two assets of one id with different hashes are a conflict.
    content_hash: Sha256
    suggestion_data: JsonObject
    confidence: Fraction
    reviewed: bool = False
    approved_for_workflow: bool = False
    reviewed_by: SingleLine | None = None
    reviewed_at_utc: UtcTime | None = None
    review_note: Utf8Text | None = None
    rejection_reason: Utf8Text | None = None
    request_id: SingleLine | None = None
    meta: JsonObject = Field(default_factory=dict)
