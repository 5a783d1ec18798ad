"""A person's verdicts: which advisories are meant, what others said, and what a bulk act may do."""

from __future__ import annotations

import threading
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from rmos_runs.operations.reviews import (
    BulkVerdict,
    Opinion,
    Recorded,
    ReviewFilter,
    Reviews,
    WaitingReview,
    check_bulk,
)
from rmos_shared.advisories.model import APPROVING, REJECTING, Review, ReviewReason
from rmos_shared.errors import AdvisoryNotFound, CorruptArtifact, InvalidRequest
from rmos_shared.runs.layout import run_key
from rmos_shared.runs.model import RiskLevel, RunArtifact
from rmos_shared.store.memory import MemoryStore
from support.records import HOUR, NOON, make_link, make_review, make_run
from support.runs import Runs

YES = Opinion(approved=True, reviewed_by="person:ana@cnc-1", reason=ReviewReason.CHECKED)
NO = Opinion(approved=False, reviewed_by="person:ben@cnc-2", reason=ReviewReason.WRONG, note="no such tool")


@pytest.fixture
def log() -> Runs:
    return Runs(MemoryStore())


@pytest.fixture
def reviews(log: Runs) -> Reviews:
    return Reviews(log.reader, log.writer)


def waiting(log: Runs, *, at: datetime = NOON, **fields: Any) -> RunArtifact:
    """Store a run whose explanation waits for a person."""
    run = make_run(at, **fields)
    log.writer.put_run(run)
    log.writer.attach(make_link(run, approved=False, reviewed_by=None, created_at_utc=at))
    return run


def chosen(reviews: Reviews, **choice: Any) -> set[str]:
    found = reviews.waiting(ReviewFilter(**choice))
    return {one.link.run_id for one in found if isinstance(one, WaitingReview)}


def test_filters_choose_among_what_waits(log: Runs, reviews: Reviews) -> None:
    old = waiting(log, decision={"risk_level": "RED"}, tool_id="saw:x")
    new = waiting(log, at=datetime.now(UTC) - HOUR, decision={"risk_level": "YELLOW"}, tool_id="router:y")
    both = {old.run_id, new.run_id}
    assert chosen(reviews) == both
    assert chosen(reviews, risk_level=RiskLevel.RED) == {old.run_id}
    assert chosen(reviews, tool_id_prefix="router:") == {new.run_id}
    assert chosen(reviews, risk_level=RiskLevel.RED, tool_id_prefix="router:") == set()
    assert chosen(reviews, date_from=date(2026, 8, 2)) == {new.run_id}
    assert chosen(reviews, date_to=date(2026, 8, 1)) == {old.run_id}
    assert chosen(reviews, age_hours=2) == {old.run_id}
    assert chosen(reviews, age_hours=0.5) == both
    reviews.record(YES, old.run_id, "adv1")
    assert chosen(reviews) == {new.run_id}


def test_a_run_that_cannot_be_read_is_told_and_never_chosen_by_its_risk(log: Runs, reviews: Reviews) -> None:
    run = waiting(log)
    key = run_key(run.date, run.run_id)
    log.store._files[key] = (b"{", NOON)  # type: ignore[attr-defined]
    for choice, listed in ((ReviewFilter(), 1), (ReviewFilter(risk_level=RiskLevel.GREEN), 0)):
        found = [*reviews.waiting(choice)]
        assert [one.key for one in found if isinstance(one, CorruptArtifact)] == [key]
        assert sum(isinstance(one, WaitingReview) for one in found) == listed


def test_a_later_reviewer_is_told_of_every_verdict_and_all_are_kept(log: Runs, reviews: Reviews) -> None:
    run = waiting(log)
    first = reviews.record(YES, run.run_id, "adv1")
    assert (first.others, first.counts) == ((), True)
    second = reviews.record(NO, run.run_id, "adv1")
    assert (second.others, second.counts) == ((first.review,), True)
    assert reviews.history(run.run_id) == [first.review, second.review]
    (advisory,) = log.reader.read(run.run_id).advisory_inputs
    assert advisory.reviews == [first.review, second.review]
    assert (advisory.review, advisory.approved) == (second.review, False)


def test_of_two_reviewers_at_once_both_are_kept_and_one_is_told(log: Runs, reviews: Reviews) -> None:
    for _ in range(20):
        run, start = waiting(log), threading.Barrier(2)
        recorded: list[Recorded] = []

        def judge(opinion: Opinion, run_id: str = run.run_id, at: threading.Barrier = start) -> None:
            at.wait(timeout=10)
            recorded.append(reviews.record(opinion, run_id, "adv1"))  # noqa: B023 - joined below

        both = [threading.Thread(target=judge, args=(opinion,)) for opinion in (YES, NO)]
        for thread in both:
            thread.start()
        for thread in both:
            thread.join(timeout=10)
        kept = reviews.history(run.run_id)
        assert {review.reviewed_by for review in kept} == {YES.reviewed_by, NO.reviewed_by}
        assert any(one.others for one in recorded), "whoever stored last hears of the other"


def test_a_verdict_that_is_dated_later_still_counts_and_that_is_told(log: Runs, reviews: Reviews) -> None:
    run = waiting(log)
    ahead = make_review(make_link(run), approved=False, created_at_utc=datetime.now(UTC) + timedelta(days=1))
    log.writer.add_review(ahead)
    recorded = reviews.record(YES, run.run_id, "adv1")
    assert (recorded.others, recorded.counts) == ((ahead,), False)
    (advisory,) = log.reader.read(run.run_id).advisory_inputs
    assert advisory.review == ahead


def test_a_damaged_verdict_of_somebody_else_is_told_and_hides_none_of_ours(
    log: Runs, reviews: Reviews
) -> None:
    run = waiting(log)
    log.store.create(f"_reviews/{run.date}/{run.run_id}/other.json", b"{")
    recorded = reviews.record(YES, run.run_id, "adv1")
    assert recorded.damage is not None
    assert log.store.get(f"_reviews/{run.date}/{run.run_id}/{recorded.review.review_id}.json") is not None


def test_many_are_judged_only_while_they_wait(log: Runs, reviews: Reviews) -> None:
    runs = [waiting(log) for _ in range(3)]
    found = [(run.run_id, "adv1") for run in runs]
    reviews.record(NO, runs[1].run_id, "adv1")
    act = BulkVerdict()
    steps = [*reviews.record_many(YES, [*found, ("01a20d3c3a8b73898836cc2b6ecc4ed6", "adv1")], act)]
    assert len(steps) == 4
    assert (act.recorded, act.judged_meanwhile, len(act.damage)) == (2, 1, 1)
    made = [review for run in runs for review in reviews.history(run.run_id) if review.approved]
    assert {review.act_id for review in made} == {act.act_id}
    assert log.reader.read(runs[1].run_id).advisory_inputs[0].approved is False
    again = BulkVerdict()
    assert [*reviews.record_many(YES, found, again)]
    assert (again.recorded, again.judged_meanwhile) == (0, 3)


def test_a_reason_must_fit_the_verdict(log: Runs, reviews: Reviews) -> None:
    assert {*ReviewReason} == APPROVING | REJECTING
    run = waiting(log)
    for approved, fitting in ((True, APPROVING), (False, REJECTING)):
        for reason in ReviewReason:
            opinion = Opinion(approved=approved, reviewed_by="person:ana", reason=reason)
            if reason in fitting:
                stored = reviews.record(opinion, run.run_id, "adv1").review
                assert Review.read_json(stored.to_bytes()) == stored
                continue
            with pytest.raises(InvalidRequest, match="reason: what is"):
                reviews.record(opinion, run.run_id, "adv1")
            with pytest.raises(InvalidRequest, match="reason: what is"):
                check_bulk(opinion)
    assert len(reviews.history(run.run_id)) == len(ReviewReason)
    with pytest.raises(InvalidRequest, match="reason: a verdict on many"):
        check_bulk(Opinion(approved=True, reviewed_by="person:ana"))
    with pytest.raises(AdvisoryNotFound):
        reviews.record(YES, run.run_id, "adv9")


def test_a_review_without_a_reason_is_read_as_before() -> None:
    old = {
        "review_id": "rev1",
        "run_id": "r",
        "advisory_id": "adv1",
        "created_at_utc": "2026-08-01T12:00:00Z",
        "approved": True,
        "reviewed_by": "person:ana",
        "note": None,
    }
    review = Review.read(old)
    assert (review.reason, review.act_id) == (None, None)
