"""Jobs: how one fares."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from rmos_runs.gateway.access import reads
from rmos_runs.gateway.answers import described, json_answer
from rmos_runs.gateway.context import Given, JobIdPath
from rmos_runs.gateway.keys import Role
from rmos_runs.gateway.problems import RETRY_SECONDS
from rmos_shared.jobs.model import JobRecord

router = APIRouter(tags=["jobs"])


@router.get(
    "/jobs/{job_id}",
    dependencies=[reads(Role.READ, Role.ENQUEUE, Role.OPERATE)],
    responses=described(JobRecord, 404),
)
async def get_job(services: Given, job_id: JobIdPath) -> Response:
    """Return the ledger's record of a job, without its payload; done jobs leave the ledger after a week."""
    record = await services.ledger.get(job_id)
    return json_answer(record, headers={"Retry-After": str(RETRY_SECONDS)} if record.state.pending else None)
