"""Advisories of a run: have one linked, have one made."""

from __future__ import annotations

from typing import Any, TypeVar

from fastapi import APIRouter, Request
from starlette.responses import Response

from rmos_runs.gateway.accepting import IdempotencyKey, Intake, Prefer, answer_of_job
from rmos_runs.gateway.access import needs
from rmos_runs.gateway.answers import body_of_type, described, json_answer
from rmos_runs.gateway.body import read_json
from rmos_runs.gateway.context import Given, RunId
from rmos_runs.gateway.exchange import exchange_of
from rmos_runs.gateway.keys import Role
from rmos_runs.gateway.models import Accepted, AttachBody, RunBody, SuggestBody
from rmos_runs.gateway.services import Services
from rmos_runs.jobs import prepare_attachment, prepare_suggestion
from rmos_shared.errors import RunNotFound, StoreUnavailable
from rmos_shared.models.base import Frozen

router = APIRouter(tags=["advisories"])
Body = TypeVar("Body", bound=Frozen)


@router.post(
    "/{run_id}/attach-advisory",
    status_code=202,
    dependencies=[needs(Role.ENQUEUE)],
    responses=described(Accepted, 404, 408, 409, 413, 422, status=202, created=RunBody),
    openapi_extra=body_of_type("AttachBody"),
)
async def attach_advisory(
    request: Request,
    services: Given,
    run_id: RunId,
    key: IdempotencyKey = None,
    prefer: Prefer = None,  # noqa: ARG001 - described here, read where the answer is made
) -> Response:
    """Have an advisory of the advisory store linked to a run; the same one twice is one link."""
    asked, data = await _read(AttachBody, request, services)
    await must_be_known(services, run_id)
    prepared = prepare_attachment(
        run_id,
        data.advisory_id,
        data.kind,
        data.request_id or exchange_of(request).request_id,
        most_bytes=services.settings.max_payload_bytes,
    )
    asked = {"route": "attach", "run_id": run_id, "body": asked}
    accepted = await Intake.of(services, request, key).accept(prepared, asked)
    return await answer_of_job(services, request, accepted)


@router.post(
    "/{run_id}/suggest-and-attach",
    status_code=202,
    dependencies=[needs(Role.ENQUEUE)],
    responses=described(Accepted, 404, 408, 409, 413, 422, status=202, created=RunBody, ok=RunBody),
    openapi_extra=body_of_type("SuggestBody", required=False),
)
async def suggest_and_attach(
    request: Request,
    services: Given,
    run_id: RunId,
    key: IdempotencyKey = None,
    prefer: Prefer = None,  # noqa: ARG001 - described here, read where the answer is made
) -> Response:
    """Have a run explained and the explanation linked, if the policy approves it or a person does.

    With `generate_explanation: false` nothing is to be made: the answer is the run as it stands.
    """
    asked, data = await _read(SuggestBody, request, services)
    if not data.generate_explanation:
        return json_answer(RunBody.of(await services.threads.run(services.reader.read, run_id)))
    await must_be_known(services, run_id)
    prepared = prepare_suggestion(
        run_id,
        data.explanation_detail,
        data.request_id or exchange_of(request).request_id,
        most_bytes=services.settings.max_payload_bytes,
    )
    asked = {"route": "suggest", "run_id": run_id, "body": asked}
    accepted = await Intake.of(services, request, key).accept(prepared, asked)
    return await answer_of_job(services, request, accepted)


async def must_be_known(services: Services, run_id: str) -> None:
    """Refuse a run that nobody has brought: its job could only die.

    While the store is away nothing is refused, for accepting needs the ledger alone; the job then waits.

    Raises:
        RunNotFound: it is neither stored nor on its way.
    """
    try:
        if await services.threads.run(services.reader.artifact_key, run_id) is not None:
            return
        creation = await services.threads.run(services.jobs.job_about, "create", run_id)
        if creation is not None and creation.state.pending:
            return
        # It may have been stored between the two looks.
        if await services.threads.run(services.reader.artifact_key, run_id) is None:
            raise RunNotFound(run_id)
    except StoreUnavailable:
        return


async def _read(model: type[Body], request: Request, services: Services) -> tuple[Any, Body]:
    data = await read_json(request, services.bodies, most_bytes=services.settings.max_body_bytes, empty={})
    return data, model.read(data, what="request")
