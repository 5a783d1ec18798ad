"""The reference advisory store with faults on demand.

``create_app`` is for ``uvicorn --factory``. ``FAULTS``, as JSON, are those at the start; ``PUT /_faults``
replaces them.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Request
from pydantic import Field
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rmos_advisory_store.app import PREFIX
from rmos_advisory_store.app import create_app as create_store
from rmos_shared.models.base import Frozen
from rmos_shared.settings.advisory_store import AdvisoryStoreSettings

_Share = Annotated[float, Field(ge=0, le=1)]


class Faults(Frozen):
    """Which faults to make; each share is one of all calls, the first in this order to be served first."""

    latency_ms: Annotated[int, Field(ge=0, le=600_000)] = 0
    drop_rate: _Share = 0.0
    rate_429: _Share = 0.0
    error_rate: _Share = 0.0
    retry_after_seconds: Annotated[int, Field(ge=0, le=3_600)] = 1

    def pick(self, draw: float) -> Literal["drop", "429", "503"] | None:
        """Return the fault for one call; ``draw`` is uniform in [0, 1)."""
        if draw < self.drop_rate:
            return "drop"
        if draw < self.drop_rate + self.rate_429:
            return "429"
        if draw < self.drop_rate + self.rate_429 + self.error_rate:
            return "503"
        return None


class FaultSwitch:
    """The faults in force; they may be replaced at any time."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults


def create_app(settings: AdvisoryStoreSettings | None = None) -> FastAPI:
    """Return the store as it is shipped, with faults in front of it."""
    app = create_store(settings)
    switch = FaultSwitch(Faults.read(json.loads(os.environ.get("FAULTS", "{}")), what="faults"))
    app.add_middleware(FaultInjector, switch=switch, prefix=PREFIX)

    @app.put("/_faults")
    async def set_faults(request: Request) -> JSONResponse:
        switch.faults = Faults.read(await request.json(), what="faults")
        return JSONResponse(switch.faults.dump())

    return app


class FaultInjector:
    """ASGI middleware that makes the faults of ``switch`` on paths below ``prefix``.

    A dropped call does its work and loses its answer: the harder half of what a lost connection can be.
    """

    def __init__(self, app: ASGIApp, *, switch: FaultSwitch, prefix: str) -> None:
        """Wrap ``app``."""
        self._app = app
        self._switch = switch
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one call, or fail it on purpose."""
        if scope["type"] != "http" or not scope["path"].startswith(self._prefix):
            await self._app(scope, receive, send)
            return
        faults = self._switch.faults
        await asyncio.sleep(faults.latency_ms / 1000)
        match faults.pick(random.random()):  # noqa: S311 - no secret hangs on it
            case "drop":
                await self._app(scope, receive, _swallow)
                await _cut(receive)
            case "429":
                headers = {"Retry-After": str(faults.retry_after_seconds)}
                await _answer(429, headers)(scope, receive, send)
            case "503":
                await _answer(503)(scope, receive, send)
            case None:
                await self._app(scope, receive, send)


def _answer(status: int, headers: dict[str, str] | None = None) -> JSONResponse:
    body = {"error": "INJECTED_FAULT", "message": "this fault was asked for", "problems": []}
    return JSONResponse(body, status, headers)


async def _swallow(message: Message) -> None:
    pass


async def _cut(receive: Receive) -> None:
    # ASGI has no word for this: an app that returns without an answer is given a 500 by uvicorn. But
    # uvicorn's receive is a method of the object that holds the socket.
    cycle: Any = receive.__self__  # type: ignore[attr-defined]
    cycle.transport.close()
    # Only once uvicorn has seen the loss does it take our silence for what it is, and logs nothing.
    while (await receive())["type"] != "http.disconnect":
        pass
