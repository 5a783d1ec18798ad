"""What each route is given."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Depends, Path, Request

from rmos_runs.gateway.services import Services
from rmos_shared.models.base import JobId, SafeId


async def _services(request: Request) -> Services:
    return cast("Services", request.app.state.services)


Given = Annotated[Services, Depends(_services)]
RunId = Annotated[SafeId, Path(description="A run's id.", examples=["01a20d3c3a8b73898836cc2b6ecc4ed6"])]
AdvisoryId = Annotated[SafeId, Path(description="An advisory's id.")]
JobIdPath = Annotated[JobId, Path(description="A job's id.", examples=["01a20d3c3a8b73898836cc2b6ecc4ed7"])]
