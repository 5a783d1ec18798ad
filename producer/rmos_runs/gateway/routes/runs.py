"""Runs: put one in, list them, read one, download its bytes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Request
from starlette.responses import Response

from rmos_runs.gateway.accepting import IdempotencyKey, Intake, Prefer, answer_of_job
from rmos_runs.gateway.access import needs, reads
from rmos_runs.gateway.answers import body_of_type, described, json_answer
from rmos_runs.gateway.body import read_json
from rmos_runs.gateway.context import Given, RunId
from rmos_runs.gateway.exchange import Exchange, exchange_of
from rmos_runs.gateway.keys import Role
from rmos_runs.gateway.models import (
    Accepted,
    AdvisoriesBody,
    ListBody,
    ListQuery,
    RunBody,
    chosen_filter,
)
from rmos_runs.jobs import Explain, prepare_run
from rmos_runs.receipt import Prepared
from rmos_shared.canonical import sha256_hex
from rmos_shared.runs.model import RunRequest
from rmos_shared.tasks.table import CREATE, TaskSpec

router = APIRouter(tags=["runs"])

ExplainWord = Literal["none", "summary", "full"]
ExplainQuery = Annotated[
    ExplainWord, Query(description="Whether, and how fully, the run is explained once it is stored.")
]


@router.post(
    "",
    status_code=202,
    dependencies=[needs(Role.ENQUEUE)],
    responses=described(Accepted, 408, 409, 413, 422, status=202, created=RunBody),
    openapi_extra=body_of_type("RunRequest"),
)
async def create_run(
    request: Request,
    services: Given,
    explain: ExplainQuery = "none",
    key: IdempotencyKey = None,
    prefer: Prefer = None,  # noqa: ARG001 - described here, read where the answer is made
) -> Response:
    """Have a run recorded.

    What lacks a required field is recorded as BLOCKED; a wrong value is refused, naming each field.
    """
    settings = services.settings
    data = await read_json(request, services.bodies, most_bytes=settings.max_body_bytes)
    prepared = prepared_run(
        data, exchange_of(request), explain=explain, spec=CREATE, most_bytes=settings.max_payload_bytes
    )
    asked = {"route": "create", "explain": explain, "body": data}
    accepted = await Intake.of(services, request, key).accept(prepared, asked)
    return await answer_of_job(services, request, accepted)


def prepared_run(
    data: Any, exchange: Exchange, *, explain: ExplainWord, spec: TaskSpec, most_bytes: int
) -> Prepared:
    """Return the job that records a run as it came in.

    A request that names its run gets a job of which the same again is a repeat. One without a request id gets
    that of the call, which identifies nothing unless the caller chose it.

    Raises:
        InvalidRequest: naming each wrong field.
    """
    lacks_id = isinstance(data, dict) and data.get("request_id") is None
    if lacks_id and exchange.chosen:
        data = {**data, "request_id": exchange.request_id}
    run = RunRequest.read(data, what="request")
    if run.request_id is None:
        run = run.model_copy(update={"request_id": exchange.request_id})
    detail: Explain = False if explain == "none" else explain
    derived = isinstance(data, dict) and data.get("run_id") is not None
    return prepare_run(run, spec, explain=detail, most_bytes=most_bytes, derived=derived)


@router.get("", dependencies=[reads(Role.READ)], responses=described(ListBody))
async def list_runs(services: Given, query: Annotated[ListQuery, Query()]) -> Response:
    """List runs, newest first. `complete_until_utc` says up to when no stored run is missing."""
    page = await services.threads.run(
        services.catalog.page, chosen_filter(query), limit=query.clamped, cursor=query.cursor
    )
    fields = {name: getattr(page, name) for name in type(page).model_fields}
    return json_answer(ListBody(**fields, runs_dir=str(services.settings.runs_dir)))


@router.get("/{run_id}", dependencies=[reads(Role.READ)], responses=described(RunBody, 404))
async def get_run(services: Given, run_id: RunId) -> Response:
    """Return a run as readers see it: the artifact with its advisories, reviews and explanation status."""
    return json_answer(RunBody.of(await services.threads.run(services.reader.read, run_id)))


@router.get(
    "/{run_id}/download",
    dependencies=[reads(Role.READ)],
    responses=described(None, 404)
    | {
        200: {
            "description": "The stored bytes.",
            "content": {"application/json": {"schema": {"type": "object"}}},
        },
        304: {"description": "The caller has these bytes."},
    },
)
async def download_run(
    services: Given,
    run_id: RunId,
    if_none_match: Annotated[str | None, Header(description="The `ETag` of the bytes at hand.")] = None,
) -> Response:
    """Return the stored bytes, verbatim; the `ETag` is their SHA-256."""
    data = await services.threads.run(services.reader.get_bytes, run_id)
    tag = f'"{sha256_hex(data)}"'
    # Published once and for good, and not for everyone: a cache of the caller's own may keep it for ever.
    headers = {"ETag": tag, "Cache-Control": "private, max-age=31536000, immutable"}
    if _matches(if_none_match, tag):
        return Response(status_code=304, headers=headers)
    headers["Content-Disposition"] = f'attachment; filename="{run_id}.json"'
    return Response(data, headers=headers, media_type="application/json")


@router.get("/{run_id}/advisories", dependencies=[reads(Role.READ)], responses=described(AdvisoriesBody, 404))
async def list_advisories(services: Given, run_id: RunId) -> Response:
    """Return a run's advisories and how far its explanation is."""
    run = RunBody.of(await services.threads.run(services.reader.read, run_id))
    return json_answer(
        AdvisoriesBody(
            run_id=run.run_id,
            advisory_inputs=run.advisory_inputs,
            count=len(run.advisory_inputs),
            explanation_status=run.explanation_status,
            explanation_summary=run.explanation_summary,
        )
    )


def _matches(header: str | None, tag: str) -> bool:
    given = [part.strip().removeprefix("W/") for part in (header or "").split(",")]
    return tag in given or "*" in given
