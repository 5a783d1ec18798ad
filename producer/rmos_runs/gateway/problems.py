"""Errors as answers: the body of the contract, or the members of RFC 9457 for who asks for them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.types import Scope

from rmos_runs.gateway.errors import JobDead, MethodRefused, RateExceeded, RouteNotFound
from rmos_runs.gateway.exchange import Exchange, exchange_of
from rmos_runs.gateway.services import Services
from rmos_shared.errors import (
    AdvisoryNotFound,
    FieldProblem,
    InvalidRequest,
    JobNotFound,
    RmosError,
    RunNotFound,
    TryLater,
)
from rmos_shared.telemetry.events import GatewayFailed
from rmos_shared.telemetry.log import emit

PROBLEM_TYPE = "application/problem+json"
#: What a client is told to wait that is given no better figure.
RETRY_SECONDS = 1
#: Problems that one body names; a request may have thousands.
_NAMED_PROBLEMS = 50


class InternalError(RmosError):
    """The gateway met a bug; its log holds the traceback."""

    code = "INTERNAL_ERROR"


def answer_of(error: RmosError, scope: Scope, exchange: Exchange) -> Response:
    """Return the answer to a request that ended in an error, and report what is not the caller's doing."""
    if error.http_status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        emit(GatewayFailed(code=error.code, error=str(error), request_id=exchange.request_id))
    told = body_of(error) | {"request_id": exchange.request_id}
    if wants_problem(scope):
        title = HTTPStatus(error.http_status).phrase
        members = {"type": "about:blank", "title": title, "status": error.http_status, "detail": str(error)}
        body, media_type = {**told, **members}, PROBLEM_TYPE
    else:
        body, media_type = {**told, "detail": told}, "application/json"
    return JSONResponse(body, error.http_status, _headers(error), media_type=media_type)


def body_of(error: RmosError) -> dict[str, Any]:
    """Return what an error says, without what belongs to its request."""
    return {"error": error.code, "message": _text(str(error)), "problems": _problems(error), **_named(error)}


def wants_problem(scope: Scope) -> bool:
    """Say whether the caller accepts ``application/problem+json``; no wildcard means it."""
    accepted = Headers(scope=scope).get("accept", "")
    return any(part.partition(";")[0].strip().lower() == PROBLEM_TYPE for part in accepted.split(","))


def _problems(error: RmosError) -> list[dict[str, str]]:
    problems = error.problems[:_NAMED_PROBLEMS] if isinstance(error, InvalidRequest) else ()
    return [{"field": _text(problem.field), "reason": _text(problem.reason)} for problem in problems]


def _named(error: RmosError) -> dict[str, Any]:
    match error:
        case RunNotFound(run_id=run_id):
            return {"run_id": _text(run_id)}
        case JobNotFound(job_id=job_id):
            return {"job_id": _text(job_id)}
        case AdvisoryNotFound():
            return {}
        case JobDead(record=record, reason=reason):
            return {"run_id": record.run_id, "job_id": record.job_id, "reason": reason}
        case _:
            return {}


def _headers(error: RmosError) -> dict[str, str]:
    return dict(_header_pairs(error))


def _header_pairs(error: RmosError) -> Iterator[tuple[str, str]]:
    if error.http_status == HTTPStatus.UNAUTHORIZED:
        yield "WWW-Authenticate", 'Bearer realm="rmos"'
    if isinstance(error, MethodRefused):
        yield "Allow", error.allowed
    if isinstance(error, TryLater):
        seconds = error.retry_after_seconds if isinstance(error, RateExceeded) else RETRY_SECONDS
        yield "Retry-After", str(max(1, math.ceil(seconds)))


def _text(text: str) -> str:
    # Names come from the caller; a lone surrogate among them could not be sent.
    return text.encode("utf-8", "backslashreplace").decode()


# -- as FastAPI calls them ------------------------------------------------------------------------------


async def on_our_error(request: Request, error: Exception) -> Response:
    """Answer an error of ours; a change of a run that is refused is on record."""
    assert isinstance(error, RmosError)  # noqa: S101 - registered for it alone
    await _record_refusal(request, error)
    return answer_of(error, request.scope, exchange_of(request))


def on_invalid(request: Request, error: Exception) -> Response:
    """Answer a parameter that breaks its rule: 400, naming each."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for it alone
    problems = (
        # After the place, such as ``query``: the name, and the number of an item of a list.
        FieldProblem(".".join(map(str, item["loc"][1:])), str(item["msg"]).removeprefix("Value error, "))
        for item in error.errors()
    )
    return answer_of(InvalidRequest(tuple(problems)), request.scope, exchange_of(request))


async def on_http_error(request: Request, error: Exception) -> Response:
    """Answer what the router itself says: no such path, no such method."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for it alone
    ours: RmosError
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        ours = MethodRefused((error.headers or {}).get("Allow", ""))
    elif error.status_code == HTTPStatus.NOT_FOUND:
        ours = RouteNotFound("there is nothing at this path; /docs shows what there is")
    else:
        ours = InvalidRequest((FieldProblem("request", str(error.detail)),))
    await _record_refusal(request, ours)
    return answer_of(ours, request.scope, exchange_of(request))


async def _record_refusal(request: Request, error: RmosError) -> None:
    """Put on record that somebody asked to change a run."""
    if not isinstance(error, MethodRefused):
        return
    services: Services = request.app.state.services
    if services.refused.concern(request.method, request.url.path):
        by = exchange_of(request).caller_name
        with suppress(TryLater):
            await services.threads.run(services.refused.record, request.method, request.url.path, by)
