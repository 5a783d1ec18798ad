"""Reviews: what waits for a person, their word on it, and every word that was given."""

from __future__ import annotations

from datetime import date
from itertools import islice
from typing import Annotated, TypeVar

from fastapi import APIRouter, Query, Request
from pydantic import ConfigDict, Field
from starlette.responses import Response

from rmos_runs.gateway.access import needs, reads
from rmos_runs.gateway.answers import body_of_type, described, json_answer
from rmos_runs.gateway.body import read_json
from rmos_runs.gateway.context import AdvisoryId, Given, RunId
from rmos_runs.gateway.exchange import caller_of
from rmos_runs.gateway.keys import Role
from rmos_runs.gateway.models import (
    ApprovalBody,
    Limit,
    LimitQuery,
    RecordedBody,
    RejectionBody,
    ReviewsBody,
    RunVerdictBody,
    VerdictsBody,
    WaitingItem,
)
from rmos_runs.gateway.services import Services
from rmos_runs.operations.reviews import MOST_HOURS, Opinion, Recorded, ReviewFilter, Reviews, WaitingReview
from rmos_shared.advisories.model import Review, ReviewReason
from rmos_shared.models.base import IsoDate, SingleLine
from rmos_shared.runs.model import RiskField

Body = TypeVar("Body", ApprovalBody, RejectionBody)
router = APIRouter(prefix="/reviews", tags=["operators"])


class ReviewsQuery(LimitQuery):
    """Which of the waiting advisories are listed."""

    model_config = ConfigDict(strict=False)

    risk_level: RiskField | None = None
    tool_id_prefix: SingleLine | None = None
    date_from: IsoDate | None = None
    date_to: IsoDate | None = None
    age_hours: Limit | None = Field(
        None, ge=0, le=MOST_HOURS, description="Only what has waited at least so long."
    )

    @property
    def choice(self) -> ReviewFilter:
        """The filter that is asked for."""
        first, last = (
            None if day is None else date.fromisoformat(day) for day in (self.date_from, self.date_to)
        )
        return ReviewFilter(self.risk_level, self.tool_id_prefix, first, last, self.age_hours)


@router.get("", dependencies=[reads(Role.REVIEW)], responses=described(ReviewsBody))
async def list_reviews(services: Given, query: Annotated[ReviewsQuery, Query()]) -> Response:
    """List the advisories that the policy left to a person and nobody has reviewed, newest day first."""
    return json_answer(await services.threads.run(_waiting, _reviews(services), query))


@router.get("/{run_id}", dependencies=[reads(Role.REVIEW, Role.READ)], responses=described(VerdictsBody, 404))
async def list_verdicts(services: Given, run_id: RunId) -> Response:
    """List every verdict of a person on the advisories of a run; none is ever lost."""
    items = await services.threads.run(_reviews(services).history, run_id)
    return json_answer(VerdictsBody(run_id=run_id, items=items))


@router.post(
    "/{run_id}/{advisory_id}/approve",
    status_code=201,
    dependencies=[needs(Role.REVIEW)],
    responses=described(RecordedBody, 404, 408, 413, status=201),
    openapi_extra=body_of_type("ApprovalBody", required=False),
)
async def approve(request: Request, services: Given, run_id: RunId, advisory_id: AdvisoryId) -> Response:
    """Approve an advisory: its words, not the cut. The verdict is a new record; no file changes."""
    body = await _body(request, services, ApprovalBody)
    return await _judge(request, services, run_id, advisory_id, body)


@router.post(
    "/{run_id}/{advisory_id}/reject",
    status_code=201,
    dependencies=[needs(Role.REVIEW)],
    responses=described(RecordedBody, 404, 408, 413, status=201),
    openapi_extra=body_of_type("RejectionBody", required=False),
)
async def reject(request: Request, services: Given, run_id: RunId, advisory_id: AdvisoryId) -> Response:
    """Reject an advisory: its words, not the cut. The verdict is a new record; no file changes."""
    body = await _body(request, services, RejectionBody)
    return await _judge(request, services, run_id, advisory_id, body)


async def _body(request: Request, services: Services, kind: type[Body]) -> Body:
    data = await read_json(request, services.bodies, most_bytes=services.settings.max_body_bytes, empty={})
    return kind.read(data, what="request")


async def _judge(
    request: Request, services: Services, run_id: str, advisory_id: str, body: ApprovalBody | RejectionBody
) -> Response:
    name = caller_of(request).name
    opinion = Opinion(
        approved=isinstance(body, ApprovalBody),
        reviewed_by=name if body.reviewer is None else f"{name} (as {body.reviewer})",
        reason=None if body.reason is None else ReviewReason(body.reason),
        note=body.note,
    )
    recorded = await services.threads.run(_reviews(services).record, opinion, run_id, advisory_id)
    return json_answer(_recorded(recorded), 201)


def _reviews(services: Services) -> Reviews:
    return Reviews(services.reader, services.writer, services.jobs)


def _recorded(recorded: Recorded) -> RecordedBody:
    run = recorded.run
    return RecordedBody(
        **{name: getattr(recorded.review, name) for name in Review.model_fields},
        run_verdict=RunVerdictBody(
            status=run.status,
            risk_level=run.decision.risk_level,
            block_reason=run.decision.block_reason,
        ),
        counts=recorded.counts,
        others=[*recorded.others],
    )


def _waiting(reviews: Reviews, query: ReviewsQuery) -> ReviewsBody:
    items: list[WaitingItem] = []
    corrupt: list[str] = []
    for found in islice(reviews.waiting(query.choice), query.clamped + 1):
        if isinstance(found, WaitingReview):
            items.append(_item(found))
        else:
            corrupt.append(found.key)
    more = len(items) + len(corrupt) > query.clamped
    return ReviewsBody(items=items[: query.clamped], corrupt=corrupt, more=more)


def _item(waiting: WaitingReview) -> WaitingItem:
    link, run = waiting.link, waiting.run
    return WaitingItem(
        run_id=link.run_id,
        advisory_id=link.advisory_id,
        kind=link.kind,
        summary=link.summary,
        waits_since_utc=link.created_at_utc,
        risk_level=None if run is None else run.decision.risk_level,
        tool_id=None if run is None else run.tool_id,
    )
