"""The route of the events in an app of its own: ``uvicorn --factory support.event_app:create_app``."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from rmos_runs.gateway.paths import PREFIX
from rmos_runs.gateway.routes.events import EventLimits, events_router
from rmos_shared.errors import RmosError
from rmos_shared.jobs.event_stream import AsyncJobEvents
from rmos_shared.settings.broker import BrokerSettings


def create_app() -> FastAPI:
    """Return the app; the limits come from the environment."""
    stream = AsyncJobEvents.connect(BrokerSettings.load())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await stream.close()

    app = FastAPI(lifespan=lifespan)
    limits = EventLimits(**json.loads(os.environ["LIMITS"]))
    app.include_router(events_router(stream, limits=limits), prefix=PREFIX)

    @app.exception_handler(RmosError)
    async def refused(_: Request, error: RmosError) -> JSONResponse:
        return JSONResponse({"error": error.code}, error.http_status)

    return app
