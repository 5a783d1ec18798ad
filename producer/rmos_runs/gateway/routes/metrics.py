"""``/metrics`` for Prometheus: what this process counts, and the state of the system."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request
from prometheus_client import CollectorRegistry
from starlette.responses import Response

from rmos_runs.gateway.context import Given
from rmos_runs.gateway.figures import families
from rmos_runs.gateway.services import Services
from rmos_runs.operations.status import Bounds, SystemStatus, read_status
from rmos_shared.errors import RmosError
from rmos_shared.telemetry.prometheus import Family, exposition

#: How long a reading is good, whoever asks; Prometheus comes every 15 seconds or so.
_FRESH_SECONDS = 5.0
_BOUNDS = Bounds(jobs=10_000, events=10_000, reviews=1_000)


class _Figures:
    """Reads the state of the system for one caller at a time; those who ask meanwhile get the same."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._read_at: float | None = None
        self._families: list[Family] = []

    async def read(self, services: Services) -> list[Family]:
        async with self._turn:
            begun = time.monotonic()
            if self._read_at is None or begun - self._read_at > _FRESH_SECONDS:
                status: SystemStatus | None = None
                try:
                    status = await services.long.run(read_status, services.sources, _BOUNDS)
                except RmosError:
                    # What this process counts is told all the same.
                    status = None
                self._read_at = time.monotonic()
                self._families = families(status, read_seconds=self._read_at - begun)
            return self._families


def metrics_router(registry: CollectorRegistry, dependencies: Sequence[Any]) -> APIRouter:
    """Return the route, which no description lists; ``registry`` has what this process counts."""
    router, figures = APIRouter(), _Figures()

    @router.get("/metrics", dependencies=dependencies, include_in_schema=False)
    async def get_metrics(request: Request, services: Given) -> Response:
        """Return the metrics in the format that is asked for."""
        told = [*registry.collect(), *await figures.read(services)]
        body, content_type = exposition(told, request.headers.get("accept", ""))
        return Response(body, media_type=content_type)

    return router
