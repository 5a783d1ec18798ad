"""Many runs in one request."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial

from fastapi import APIRouter, Request
from starlette.responses import Response

from rmos_runs.gateway.accepting import IdempotencyKey, Intake
from rmos_runs.gateway.access import needs
from rmos_runs.gateway.answers import described
from rmos_runs.gateway.body import check_length
from rmos_runs.gateway.bulk import Bulk
from rmos_runs.gateway.context import Given
from rmos_runs.gateway.exchange import exchange_of
from rmos_runs.gateway.keys import Role
from rmos_runs.gateway.routes.runs import ExplainQuery, prepared_run
from rmos_runs.gateway.services import Services
from rmos_runs.gateway.stream import StreamedAnswer
from rmos_shared.tasks.table import CREATE_MANY

router = APIRouter(tags=["runs"])
NDJSON = "application/x-ndjson"
#: Of no type: whatever is sent is text, and what is wrong is told line by line.
_LINES = {"contentMediaType": NDJSON}


@router.post(
    "/bulk",
    dependencies=[needs(Role.ENQUEUE)],
    responses=described(None, 408, 413)
    | {
        200: {
            "description": "A result for each line, in order: `line`, `status`, and the fields of that.",
            "content": {NDJSON: {"schema": _LINES}},
        }
    },
    openapi_extra={
        "requestBody": {
            "required": False,
            "description": "A request to record a run on each line, as for one run.",
            "content": {NDJSON: {"schema": _LINES}},
        }
    },
)
async def create_runs(
    request: Request, services: Given, explain: ExplainQuery = "none", key: IdempotencyKey = None
) -> Response:
    """Have many runs recorded, one on each line. A wrong line is told, and the rest goes in.

    Results come while lines are still being sent. Under an Idempotency-Key each line has a key of its own,
    made of that and its number: the same body again accepts nothing twice.
    """
    check_length(request, services.settings.max_bulk_bytes)
    services.many.check()
    settings = services.settings
    bulk = Bulk(
        intake=Intake.of(services, request, key),
        chunks=request.stream(),
        prepare=partial(
            prepared_run,
            exchange=exchange_of(request),
            explain=explain,
            spec=CREATE_MANY,
            most_bytes=settings.max_payload_bytes,
        ),
        longest_line_bytes=settings.max_body_bytes,
        most_bytes=settings.max_bulk_bytes,
        most_lines=settings.max_bulk_lines,
        most_jobs=settings.accept_batch_jobs,
    )
    return StreamedAnswer(_in_turn(services, bulk), NDJSON)


async def _in_turn(services: Services, bulk: Bulk) -> AsyncIterator[bytes]:
    with services.many.one():
        async for result in bulk.results():
            yield result
