"""Methods that a path does not have: refused by name, and put on record where they would change a run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.routing import APIRoute
from starlette.responses import Response

from rmos_runs.gateway.errors import MethodRefused
from rmos_runs.gateway.exchange import exchange_of
from rmos_shared.telemetry.events import ChangeRefused
from rmos_shared.telemetry.log import emit

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"})
_CHANGING = frozenset({"PUT", "PATCH", "DELETE"})


def include(
    app: FastAPI,
    router: APIRouter,
    prefix: str,
    *,
    tags: list[str | Enum] | None = None,
    responses: dict[int | str, dict[str, Any]] | None = None,
) -> None:
    """Mount a router, and close its paths to all other methods.

    At once, so that a fixed path such as ``/bulk`` is not taken for a run's by the routes that follow.
    """
    app.include_router(router, prefix=prefix, tags=tags, responses=responses)
    methods: defaultdict[str, set[str]] = defaultdict(set)
    for route in router.routes:
        if isinstance(route, APIRoute):
            methods[route.path] |= route.methods or set()
    for path, served in methods.items():
        refuse = _refusal(prefix + path, ", ".join(sorted(served)))
        app.add_route(prefix + path, refuse, [*(_METHODS - served)], include_in_schema=False)


def _refusal(route: str, allowed: str) -> Callable[[Request], Awaitable[Response]]:
    async def refuse(request: Request) -> Response:
        exchange = exchange_of(request)
        exchange.route = route
        if request.method in _CHANGING:
            emit(
                ChangeRefused(
                    method=request.method,
                    route=route,
                    run_id=_told(request.path_params.get("run_id")),
                    request_id=exchange.request_id,
                    caller=exchange.caller_name,
                )
            )
        raise MethodRefused(allowed)

    return refuse


def _told(run_id: str | None) -> str | None:
    # It was not checked: a log line must hold no more of it than an id could have.
    return None if run_id is None else ascii(run_id[:128])[1:-1]
