"""The state of the system, and whether the gateway and what it stands on answer."""

from __future__ import annotations

from collections.abc import Awaitable

from fastapi import APIRouter
from starlette.responses import Response

from rmos_runs.gateway.access import reads
from rmos_runs.gateway.answers import described, json_answer
from rmos_runs.gateway.context import Given
from rmos_runs.gateway.keys import Role
from rmos_runs.gateway.models import HealthBody, ReadyBody
from rmos_runs.operations.status import SystemStatus, read_status
from rmos_shared.errors import RmosError

router = APIRouter(tags=["operators"])
health = APIRouter(tags=["health"])


@router.get("/status", dependencies=[reads(Role.OPERATE)], responses=described(SystemStatus))
async def get_status(services: Given) -> Response:
    """Return the state of the system, as `rmos status --json` does.

    What is not reachable is null and named under `unreachable`; without the broker the answer is 503.
    """
    # Who asks for the ledger's figures relies on a status that says when there are none.
    await services.threads.run(services.jobs.stats)
    return json_answer(await services.threads.run(read_status, services.sources))


@health.get("/livez", responses={200: {"model": HealthBody, "description": "The process answers."}})
async def livez() -> Response:
    """Say that the process answers: one that does not is started anew; store and broker are for `/readyz`."""
    return json_answer(HealthBody(status="ok"))


@health.get("/healthz", responses={200: {"model": HealthBody, "description": "The process answers."}})
async def healthz() -> Response:
    """Say that the process answers; it asks nobody else."""
    return json_answer(HealthBody(status="ok"))


@health.get(
    "/readyz",
    responses={
        200: {"model": ReadyBody, "description": "Store and broker answer."},
        503: {"model": ReadyBody, "description": "One of them does not."},
    },
)
async def readyz(services: Given) -> Response:
    """Say whether the store and the broker answer."""
    store = await _state(services.threads.run(services.store.identity))
    broker = await _state(services.ledger.ping())
    ready = store == broker == "ok"
    return json_answer(ReadyBody(ready=ready, store=store, broker=broker), 200 if ready else 503)


async def _state(answer: Awaitable[object]) -> str:
    try:
        await answer
    except RmosError as error:
        return error.code
    return "ok"
