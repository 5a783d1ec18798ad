"""Reviews: what waits for a person, and their word on it."""

from __future__ import annotations

from datetime import date
from itertools import islice
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import ConfigDict
from starlette.responses import Response

from rmos_runs.gateway.access import needs, reads
from rmos_runs.gateway.answers import body_of_type, described, json_answer
from rmos_runs.gateway.body import read_json
from rmos_runs.gateway.context import AdvisoryId, Given, RunId
from rmos_runs.gateway.exchange import caller_of
from rmos_runs.gateway.keys import Role
from rmos_runs.gateway.models import LimitQuery, ReviewsBody, VerdictBody, WaitingReview
from rmos_runs.gateway.services import Services
from rmos_runs.operations.reviews import record_review
from rmos_shared.advisories.model import Review
from rmos_shared.models.base import IsoDate
from rmos_shared.runs.reader import RunReader

router = APIRouter(prefix="/reviews", tags=["operators"])


class ReviewsQuery(LimitQuery):
    """Of which days the waiting advisories are listed."""

    model_config = ConfigDict(strict=False)

    date_from: IsoDate | None = None
    date_to: IsoDate | None = None


@router.get("", dependencies=[reads(Role.REVIEW)], responses=described(ReviewsBody))
async def list_reviews(services: Given, query: Annotated[ReviewsQuery, Query()]) -> Response:
    """List the advisories that the policy left to a person and nobody has reviewed, newest day first."""
    return json_answer(await services.threads.run(_waiting, services.reader, query))


@router.post(
    "/{run_id}/{advisory_id}/approve",
    status_code=201,
    dependencies=[needs(Role.REVIEW)],
    responses=described(Review, 404, 408, 413, status=201),
    openapi_extra=body_of_type("VerdictBody", required=False),
)
async def approve(request: Request, services: Given, run_id: RunId, advisory_id: AdvisoryId) -> Response:
    """Approve an advisory: its words, not the cut. The verdict is a new record; no file changes."""
    return await _review(request, services, run_id, advisory_id, approved=True)


@router.post(
    "/{run_id}/{advisory_id}/reject",
    status_code=201,
    dependencies=[needs(Role.REVIEW)],
    responses=described(Review, 404, 408, 413, status=201),
    openapi_extra=body_of_type("VerdictBody", required=False),
)
async def reject(request: Request, services: Given, run_id: RunId, advisory_id: AdvisoryId) -> Response:
    """Reject an advisory: its words, not the cut. The verdict is a new record; no file changes."""
    return await _review(request, services, run_id, advisory_id, approved=False)


async def _review(
    request: Request, services: Services, run_id: str, advisory_id: str, *, approved: bool
) -> Response:
    data = await read_json(request, services.bodies, most_bytes=services.settings.max_body_bytes, empty={})
    verdict = VerdictBody.read(data, what="request")
    review = await services.threads.run(
        record_review,
        services.writer,
        run_id,
        advisory_id,
        approved=approved,
        reviewed_by=caller_of(request).name,
        note=verdict.note,
    )
    return json_answer(review, 201)


def _waiting(reader: RunReader, query: ReviewsQuery) -> ReviewsBody:
    items: list[WaitingReview] = []
    corrupt: list[str] = []
    days = (query.date_from, query.date_to)
    first, last = (None if day is None else date.fromisoformat(day) for day in days)
    for entry in islice(reader.waiting_reviews(first, last), query.clamped + 1):
        if entry.error is not None:
            corrupt.append(entry.error.key)
        if entry.advisory is not None:
            link = entry.advisory.link
            items.append(
                WaitingReview(run_id=link.run_id, advisory_id=link.advisory_id, summary=link.summary)
            )
    more = len(items) + len(corrupt) > query.clamped
    return ReviewsBody(items=items[: query.clamped], corrupt=corrupt, more=more)
