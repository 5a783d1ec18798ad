"""One request and its answer, as far as everything around the routes must know them."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import Scope

from rmos_runs.gateway.caller import Caller
from rmos_runs.gateway.paths import AUDIT_PREFIX, PREFIX
from rmos_shared.errors import FieldProblem, InvalidRequest
from rmos_shared.ids import new_uuid7
from rmos_shared.telemetry.scope import valid_traceparent

REQUEST_ID = "X-Request-ID"
#: A request id goes into headers, logs and names of files of others: plain characters only.
REQUEST_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._:@+=-]{0,127}$"
_REQUEST_ID = re.compile(REQUEST_ID_PATTERN.strip("^$"), re.ASCII)
_KEY = "rmos"


class Limit:
    """When a request must have begun to be answered; work that may last longer asks for more."""

    def __init__(self) -> None:
        """Count nothing yet."""
        self._timeout: asyncio.Timeout | None = None

    @asynccontextmanager
    async def begun(self, seconds: float) -> AsyncIterator[None]:
        """End what is done in the block with ``TimeoutError`` unless it is done, or answered, in time."""
        try:
            async with asyncio.timeout(seconds) as self._timeout:
                yield
        finally:
            self._timeout = None

    def allow(self, seconds: float) -> None:
        """Count so many seconds from now, unless the answer has begun."""
        if self._timeout is not None:
            self._timeout.reschedule(asyncio.get_running_loop().time() + seconds)

    def end(self) -> None:
        """Count no more: the answer has begun."""
        if self._timeout is not None:
            self._timeout.reschedule(None)
            self._timeout = None


@dataclass(slots=True)
class Exchange:
    """What is known of a request from its head on."""

    request_id: str
    #: The caller's, if it is valid.
    traceparent: str | None
    problem: InvalidRequest | None = None
    #: The caller chose the request id.
    chosen: bool = False
    caller: Caller | None = None
    status: int | None = None
    #: The template of the route that answers; None before it is known.
    route: str | None = None
    limit: Limit = field(default_factory=Limit)
    started_at: float = field(default_factory=time.perf_counter)

    @classmethod
    def of(cls, scope: Scope) -> Exchange:
        """Return that of a request whose head has arrived, and leave it with the request."""
        headers = Headers(scope=scope)
        given, problem = headers.get(REQUEST_ID), None
        if given is not None and not _REQUEST_ID.fullmatch(given):
            reason = "must be 1 to 128 letters, digits or one of ._:@+=-, and begin with a letter or digit"
            given, problem = None, InvalidRequest((FieldProblem(REQUEST_ID, reason),))
        traceparent = valid_traceparent(headers.get("traceparent"))
        exchange = cls(given or new_uuid7(), traceparent, problem, chosen=given is not None)
        scope[_KEY] = exchange
        return exchange

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """The headers that every answer bears."""
        told = [(REQUEST_ID.lower().encode(), self.request_id.encode())]
        if self.traceparent is not None:
            told.append((b"traceparent", self.traceparent.encode()))
        return told

    @property
    def milliseconds(self) -> float:
        """Since the head arrived."""
        return round((time.perf_counter() - self.started_at) * 1000, 3)

    @property
    def caller_name(self) -> str:
        """The caller's, as logs have it."""
        return "nobody" if self.caller is None else self.caller.name


def exchange_of(request: Request) -> Exchange:
    """Return the exchange that ``Exchange.of`` left with the request."""
    return cast("Exchange", request.scope[_KEY])


def caller_of(request: Request) -> Caller:
    """Return who made the request; only behind ``Front``."""
    caller = exchange_of(request).caller
    assert caller is not None  # noqa: S101 - nothing behind Front runs without
    return caller


def route_of(scope: Scope) -> str:
    """Return the template of the route that answers, for logs: no id of the caller's is in it."""
    route = scope[_KEY].route or str(getattr(scope.get("route"), "path", "unmatched"))
    # An included route may know its own part alone.
    for prefix in (PREFIX, AUDIT_PREFIX):
        if scope["path"].startswith(prefix) and not route.startswith(prefix) and route != "unmatched":
            return prefix + route
    return route
