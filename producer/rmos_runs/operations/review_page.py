"""All that a person needs who is to judge the advisories of a run, on one page."""

from __future__ import annotations

from collections.abc import Iterator

from rmos_runs.operations.advisory_words import AdvisoryWords
from rmos_runs.operations.compare import rule_ids
from rmos_shared.advisories.model import AdvisoryLink, ComposedAdvisory, Review
from rmos_shared.errors import AdvisoryNotFound, AdvisoryUnavailable, CorruptArtifact
from rmos_shared.models.base import Frozen, JsonObject, SafeId, SingleLine, UtcTime, Utf8Text
from rmos_shared.runs.model import ComposedRun, Decision, Hashes, RunRecord, StatusField, StatusOfExplanation
from rmos_shared.runs.vocabulary import meta_text

#: What tells where a run belongs, as contract section 7 names it.
_PLACE = ("machine_id", "material_id", "session_id", "batch_label", "parent_run_id")


class RunVerdict(Frozen):
    """What the server decided on the run itself, which no review changes."""

    status: StatusField
    decision: Decision
    #: The rules that judged it.
    rules_triggered: list[Utf8Text]

    @classmethod
    def of(cls, run: RunRecord) -> RunVerdict:
        """Return that of a run."""
        return cls(status=run.status, decision=run.decision, rules_triggered=rule_ids(run))


class AdvisoryToJudge(Frozen):
    """An advisory: where its words come from, the words, and what was said of them."""

    link: AdvisoryLink
    needs_review: bool
    #: The whole content as the advisory store keeps it, proven; None if it cannot be had.
    words: JsonObject | None
    words_missing: Utf8Text | None
    #: Every verdict, oldest first; the last counts.
    reviews: list[Review]


class ReviewPage(Frozen):
    """A run, and every advisory of it; what is judged are the advisories' words, never the cut."""

    run_id: SafeId
    created_at_utc: UtcTime
    request_id: SingleLine | None
    mode: SingleLine
    tool_id: SingleLine
    #: Machine, material, session, batch and parent, as far as the run names them.
    place: JsonObject
    run_verdict: RunVerdict
    hashes: Hashes
    explanation_status: StatusOfExplanation
    explanation_summary: Utf8Text | None
    advisories: list[AdvisoryToJudge]

    @classmethod
    def of(cls, run: ComposedRun, words: AdvisoryWords) -> ReviewPage:
        """Return the page of a run; asks the advisory store once for each advisory, within its time."""
        named = ((name, meta_text(run.meta, name)) for name in _PLACE)
        return cls(
            run_id=run.run_id,
            created_at_utc=run.created_at_utc,
            request_id=run.request_id,
            mode=run.mode,
            tool_id=run.tool_id,
            place={name: text for name, text in named if text is not None},
            run_verdict=RunVerdict.of(run),
            hashes=run.hashes,
            explanation_status=run.explanation_status,
            explanation_summary=run.explanation_summary,
            advisories=[*_advisories(run.advisory_inputs, words)],
        )


def _advisories(advisories: list[ComposedAdvisory], words: AdvisoryWords) -> Iterator[AdvisoryToJudge]:
    away: str | None = None
    for advisory in advisories:
        content, missing = None, away
        # The summary in the link is still there to be judged, and the page says what is missing.
        try:
            content = None if away else words.fetch(advisory.link)
        except AdvisoryUnavailable as error:
            # Asked no more: each call may take its whole time.
            missing = away = str(error)
        except (AdvisoryNotFound, CorruptArtifact) as error:
            missing = str(error)
        yield AdvisoryToJudge(
            link=advisory.link,
            needs_review=advisory.needs_review,
            words=content,
            words_missing=missing,
            reviews=advisory.reviews,
        )
