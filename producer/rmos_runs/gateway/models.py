"""What the gateway is asked and answers, as its OpenAPI document shows it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from rmos_shared.advisories.model import (
    AdvisoryKind,
    AdvisoryLink,
    ComposedAdvisory,
    DetailLevel,
    Review,
)
from rmos_shared.jobs.model import JobState
from rmos_shared.models.base import Frozen, Nickname, SafeId, SingleLine, UtcTime, Utf8Text
from rmos_shared.runs.model import ComposedRun, RiskField, RunRecord, StatusField, StatusOfExplanation
from rmos_shared.runs.query import DEFAULT_LIMIT, MAX_LIMIT, RunFilter, RunPage


class Problem(Frozen):
    """One wrong field."""

    field: str
    reason: str


class ErrorFields(Frozen):
    """What an error says."""

    model_config = ConfigDict(extra="allow")

    #: A code for programs.
    error: str
    message: str
    problems: list[Problem]
    request_id: str
    run_id: str | None = None
    job_id: str | None = None


class ErrorBody(ErrorFields):
    """An error; ``detail`` says the same once more, for readers that look there."""

    detail: ErrorFields


class ProblemBody(ErrorFields):
    """An error with the members of RFC 9457."""

    type: str
    title: str
    status: int
    detail: str


class Accepted(Frozen):
    """A job is accepted: it ends done, or dead and visible."""

    run_id: str
    job_id: str
    #: Where to ask how it fares.
    status_url: str
    #: The job that explains the run, accepted in the step that ends the first.
    explain_job_id: str | None = None
    #: Required fields that the request lacks: the run is stored as BLOCKED.
    missing: list[str] = Field(default_factory=list)
    #: The same request was accepted before, under the same Idempotency-Key.
    repeat: bool = False


class AdvisoryInput(AdvisoryLink):
    """A link as readers see it: a person's review, if any, decides ``approved`` and ``reviewed_by``."""

    #: The last of ``reviews``, which counts.
    review: Review | None
    #: Every person's verdict, oldest first.
    reviews: list[Review]
    needs_review: bool

    @classmethod
    def of(cls, advisory: ComposedAdvisory) -> AdvisoryInput:
        """Return an advisory of a run as readers see it."""
        link, review = advisory.link, advisory.review
        fields: dict[str, Any] = {name: getattr(link, name) for name in AdvisoryLink.model_fields}
        fields["approved"] = advisory.approved
        fields["reviewed_by"] = link.reviewed_by if review is None else review.reviewed_by
        return cls(**fields, review=review, reviews=advisory.reviews, needs_review=advisory.needs_review)


class RunBody(RunRecord):
    """A run as readers see it (contract section 5)."""

    advisory_inputs: list[AdvisoryInput]
    explanation_status: StatusOfExplanation
    explanation_summary: Utf8Text | None

    @classmethod
    def of(cls, run: ComposedRun) -> RunBody:
        """Return the body of a composed run."""
        return cls(
            **{name: getattr(run, name) for name in RunRecord.model_fields},
            advisory_inputs=[AdvisoryInput.of(advisory) for advisory in run.advisory_inputs],
            explanation_status=run.explanation_status,
            explanation_summary=run.explanation_summary,
        )


class AdvisoriesBody(Frozen):
    """The advisories of a run."""

    run_id: SafeId
    advisory_inputs: list[AdvisoryInput]
    count: int
    explanation_status: StatusOfExplanation
    explanation_summary: Utf8Text | None


class ListBody(RunPage):
    """A page of runs."""

    runs_dir: str


class AttachBody(Frozen):
    """An advisory that the advisory store holds, to be linked to a run."""

    advisory_id: SafeId
    kind: AdvisoryKind = "advisory"
    request_id: SingleLine | None = None


class SuggestBody(Frozen):
    """What to have explained; an empty object will do."""

    generate_explanation: bool = True
    explanation_detail: DetailLevel = "summary"
    request_id: SingleLine | None = None


class ApprovalBody(Frozen):
    """Why an advisory is approved; an empty object will do."""

    reason: Literal["accurate", "checked"] | None = None
    note: Utf8Text | None = None
    #: Who of those that use the key; kept behind the key's name, never in its place.
    reviewer: Nickname | None = None


class RejectionBody(Frozen):
    """Why an advisory is rejected; an empty object will do."""

    reason: Literal["wrong", "incomplete", "unclear", "outdated"] | None = None
    note: Utf8Text | None = None
    #: As in an approval.
    reviewer: Nickname | None = None


class ReasonBody(Frozen):
    """Why a dead letter is replayed or discarded; kept in its history."""

    why: SingleLine


class WaitingItem(Frozen):
    """An advisory that waits for a person; what is judged are its words, not the cut."""

    run_id: SafeId
    advisory_id: SafeId
    kind: AdvisoryKind
    summary: Utf8Text
    #: Since the policy left it to a person.
    waits_since_utc: UtcTime
    #: Of the run; null where it cannot be read.
    risk_level: RiskField | None
    tool_id: SingleLine | None


class RunVerdictBody(Frozen):
    """What the server decided on the run itself, which no review changes."""

    status: StatusField
    risk_level: RiskField
    block_reason: Utf8Text | None


class RecordedBody(Review):
    """A verdict that is stored, and what its reviewer must know beside it."""

    #: The words of the advisory, never the cut.
    judged: Literal["advisory"] = "advisory"
    run_verdict: RunVerdictBody
    #: Whether this verdict is the last one on the advisory.
    counts: bool
    #: Verdicts of others on the same advisory, or earlier ones of the same caller, oldest first.
    others: list[Review]


class VerdictsBody(Frozen):
    """Every verdict of a person on the advisories of a run, oldest first; of one advisory the last counts."""

    run_id: SafeId
    items: list[Review]


class ReviewsBody(Frozen):
    """What waits for a person; ``corrupt`` names files that may hide more."""

    items: list[WaitingItem]
    corrupt: list[Utf8Text]
    #: There are more than these.
    more: bool


class Letter(Frozen):
    """A dead letter, without its payload."""

    id: str
    reason: str | None
    message: str | None
    #: A task, or the queue of a raw letter.
    kind: str
    run_id: str | None
    died_at_utc: str


class LettersBody(Frozen):
    """Dead letters, oldest first: jobs, then raw letters."""

    items: list[Letter]
    #: There are more than these.
    more: bool


class LetterDone(Frozen):
    """What became of a dead letter."""

    id: str
    state: JobState
    by: str


class HealthBody(Frozen):
    """The process answers."""

    status: Literal["ok"]


class ReadyBody(Frozen):
    """Whether the store and the broker answer: ``ok``, or the code of what is wrong."""

    ready: bool
    store: str
    broker: str


class BulkLine(Frozen):
    """What became of one line of ``POST /bulk``; fields beside ``line`` and ``status`` as for one run."""

    model_config = ConfigDict(extra="allow")

    #: Counted from 1; blank lines count and have no result.
    line: int
    status: int


def _integer(value: object) -> object:
    # "1.0" and " 1" are numbers to pydantic.
    if isinstance(value, str) and not value.removeprefix("-").isdecimal():
        msg = "must be a whole number"
        raise ValueError(msg)
    return value


def _switch(value: object) -> object:
    if value not in {"true", "false", True, False, None}:
        msg = "must be true or false"
        raise ValueError(msg)
    return value


Limit = Annotated[int, BeforeValidator(_integer)]


class LimitQuery(Frozen):
    """How many items are asked for."""

    model_config = ConfigDict(strict=False)

    limit: Limit = Field(DEFAULT_LIMIT, description=f"Clamped to 1..{MAX_LIMIT}.")

    @property
    def clamped(self) -> int:
        """The limit as it is used."""
        return min(max(self.limit, 1), MAX_LIMIT)


class FilterQuery(RunFilter):
    """Which runs are meant; filters that are left out leave all runs in."""

    model_config = ConfigDict(strict=False)

    needs_review: Annotated[bool | None, BeforeValidator(_switch)] = None


class ListQuery(FilterQuery, LimitQuery):
    """Which runs are listed."""

    cursor: str | None = Field(None, description="`next_cursor` of the page before; opaque.")


def chosen_filter(query: RunFilter) -> RunFilter:
    """Return the filters of a query alone."""
    return RunFilter(**{name: getattr(query, name) for name in RunFilter.model_fields})
