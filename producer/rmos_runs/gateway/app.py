"""The gateway's application (contract section 6). ``python -m rmos_runs.gateway`` serves it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.telemetry import TelemetryConfig
from fastapi_offline import FastAPIOffline
from prometheus_client import CollectorRegistry, ProcessCollector
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from rmos_runs.gateway import closed, openapi
from rmos_runs.gateway.access import needs, reads
from rmos_runs.gateway.answers import described
from rmos_runs.gateway.caller import Authentication
from rmos_runs.gateway.catalog import Catalogs
from rmos_runs.gateway.front import Front
from rmos_runs.gateway.keys import KeyRing, Role
from rmos_runs.gateway.paths import AUDIT_PREFIX, PREFIX
from rmos_runs.gateway.problems import on_http_error, on_invalid, on_our_error
from rmos_runs.gateway.rates import Rates
from rmos_runs.gateway.routes import (
    advisories,
    audit,
    bulk,
    dead_letters,
    jobs,
    records,
    reviews,
    runs,
    status,
)
from rmos_runs.gateway.routes.attachments import attachment_routes
from rmos_runs.gateway.routes.events import EventLimits, events_router
from rmos_runs.gateway.routes.metrics import metrics_router
from rmos_runs.gateway.services import services_of
from rmos_shared.clock import Clock, SystemClock
from rmos_shared.errors import RmosError
from rmos_shared.jobs.event_stream import AsyncJobEvents
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.start import StartRecord
from rmos_shared.runs.attachments import Attachments
from rmos_shared.runs.reader import RunReader
from rmos_shared.settings.gateway import GatewaySettings
from rmos_shared.settings.index import IndexSettings
from rmos_shared.store.choice import chosen_store
from rmos_shared.store.told import ToldStore
from rmos_shared.telemetry.prometheus import EventMetrics
from rmos_shared.telemetry.traces.base import NoTraces, Traces

#: FastAPI's own would export paths, queries and the texts of errors.
_NO_TELEMETRY: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}
#: In this order: fixed paths go before those that begin with a run's id.
_ROUTERS = (
    *(bulk.router, jobs.router, dead_letters.router, reviews.router, status.router, records.fixed),
    *(records.router, advisories.router, runs.router),
)


def create_app(
    settings: GatewaySettings,
    catalogs: Catalogs,
    *,
    index: IndexSettings | None = None,
    ring: KeyRing | None = None,
    clock: Clock | None = None,
    traces: Traces | None = None,
) -> ASGIApp:
    """Build the gateway; ``catalogs`` says what answers questions about many runs, ``index`` the state of it.

    ``traces`` says who sees spans.

    Every error is JSON with ``error`` (a code), ``message`` and ``problems``; what a caller sent wrong is
    400, never 422 or 500. A job is accepted before its caller is told so. Nothing is connected before it is
    needed.

    Raises:
        SettingsInvalid: the file of API keys cannot be read.
    """
    traces = traces or NoTraces()
    api = bare_app(settings, catalogs, index, traces)
    authentication = Authentication(ring or KeyRing(settings.api_keys_file))
    rates = Rates(
        per_second=settings.rate_requests, burst=settings.burst_requests, clock=clock or SystemClock()
    )
    return Front(api, settings, authentication, rates, traces)


def _attachments(settings: GatewaySettings, jobs: JobLedger) -> APIRouter:
    # Nothing is opened yet, so these parts need not wait for the application's start.
    store = chosen_store(settings)
    return attachment_routes(
        Attachments(ToldStore(store, jobs.unsealed.tell), most_bytes=settings.max_attachment_bytes),
        RunReader(store),
        may_upload=[needs(Role.ENQUEUE)],
        may_read=[reads(Role.READ)],
    )


def _events(settings: GatewaySettings, stream: AsyncJobEvents) -> APIRouter:
    limits = EventLimits(most_clients=settings.event_clients, send_seconds=settings.write_timeout_seconds)
    return events_router(stream, limits=limits, dependencies=[reads(Role.READ, Role.OPERATE)])


def bare_app(
    settings: GatewaySettings,
    catalogs: Catalogs,
    index: IndexSettings | None = None,
    traces: Traces | None = None,
) -> FastAPI:
    """Build what stands behind ``Front``: the routes, and their description. Its end closes ``traces``."""
    # It connects when it is first followed.
    stream = AsyncJobEvents.connect(settings)
    uploads = JobLedger.connect(settings)
    registry = CollectorRegistry()
    events = EventMetrics(registry)
    ProcessCollector(registry=registry)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with services_of(settings, catalogs, index) as services:
            app.state.services = services
            events.attach()
            began = StartRecord(uploads.acts, settings, "gateway")
            began.start()
            try:
                yield
            finally:
                events.detach()
                await stream.close()
                await asyncio.to_thread(began.stop, settings.broker_timeout_seconds)
                uploads.close()
                # Here, for uvicorn ends the process by the signal that it was sent.
                if traces is not None:
                    await asyncio.to_thread(traces.close)

    app = FastAPIOffline(
        **openapi.ABOUT,
        telemetry=_NO_TELEMETRY,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        swagger_ui_parameters={"persistAuthorization": True},
    )
    app.exception_handler(RmosError)(on_our_error)
    app.exception_handler(HTTPException)(on_http_error)
    app.exception_handler(RequestValidationError)(on_invalid)
    closed.include(app, status.health, "")
    closed.include(app, metrics_router(registry, [reads(Role.OPERATE, Role.MONITOR)]), "")
    told = described(None, 404, 408, 409, 413)
    closed.include(app, _attachments(settings, uploads), PREFIX, tags=["attachments"], responses=told)
    closed.include(app, _events(settings, stream), PREFIX, responses=described(None))
    closed.include(app, audit.router, AUDIT_PREFIX)
    for router in _ROUTERS:
        closed.include(app, router, PREFIX)
    app.openapi = lambda: openapi.document(app)  # type: ignore[method-assign]  # as FastAPI documents it
    return app
