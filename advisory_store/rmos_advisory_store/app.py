"""The advisory store's HTTP face. Start it with ``uvicorn --factory`` and ``create_app``."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.telemetry import TelemetryConfig
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.requests import ClientDisconnect

from rmos_advisory_store.assets import AssetLog, ReviewRequest
from rmos_advisory_store.traced import TracedRequests
from rmos_shared.advisories.base import SaveOutcome
from rmos_shared.advisories.model import AdvisoryAsset
from rmos_shared.clock import SystemClock
from rmos_shared.errors import FieldProblem, InvalidRequest, RmosError, SettingsInvalid
from rmos_shared.settings.advisory_store import AdvisoryStoreSettings
from rmos_shared.store.identity import init_store
from rmos_shared.store.local import LocalStore
from rmos_shared.telemetry.events import RequestFailed
from rmos_shared.telemetry.log import emit
from rmos_shared.telemetry.traces.choice import chosen_traces

PREFIX = "/api/advisory/assets"
MAX_PAGE = 200
#: FastAPI's own would export paths, queries and the texts of errors.
_NO_TELEMETRY: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}


def create_app(settings: AdvisoryStoreSettings | None = None) -> FastAPI:
    """Build the store; ``settings`` come from the environment if not given.

    Every error is JSON with ``error`` (a code), ``message`` and ``problems``; what a caller sent wrong is
    400, never 422 or 500. An asset or review is durable before it is acknowledged.

    Raises:
        SettingsInvalid: naming each variable that is wrong.
        StoreUnavailable: the directory cannot be used.
    """
    settings = settings or AdvisoryStoreSettings.load()
    init_store(settings.advisory_dir)
    log = AssetLog(LocalStore(settings.advisory_dir), SystemClock())
    traces = chosen_traces("rmos-advisory-store")

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(traces.close)

    app = FastAPI(
        title="Reference advisory store",
        openapi_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        telemetry=_NO_TELEMETRY,
    )
    app.add_middleware(TracedRequests, traces=traces)
    app.exception_handler(RmosError)(_on_our_error)
    app.exception_handler(AnyHTTPException)(_on_http_error)
    app.exception_handler(RequestValidationError)(_on_wrong_query)
    app.exception_handler(ClientDisconnect)(_on_disconnect)
    app.exception_handler(Exception)(_on_unexpected_error)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    app.include_router(_assets_router(log, settings.max_asset_bytes), dependencies=_guards(settings))
    return app


def _assets_router(log: AssetLog, max_bytes: int) -> APIRouter:
    router = APIRouter(prefix=PREFIX)

    @router.put("/{asset_id}")
    async def save(asset_id: str, request: Request) -> JSONResponse:
        body = await _read_body(request, max_bytes)
        key = request.headers.get("Idempotency-Key", asset_id)
        asset, outcome = await run_in_threadpool(_save, log, asset_id, key, body)
        receipt = {
            "asset_id": asset.asset_id,
            "content_hash": asset.content_hash,
            "outcome": outcome.value,
        }
        return JSONResponse(receipt, 201 if outcome is SaveOutcome.CREATED else 200)

    @router.get("/{asset_id}")
    def get(asset_id: str) -> JSONResponse:
        return JSONResponse(log.get(asset_id).dump())

    @router.post("/{asset_id}/review")
    async def review(asset_id: str, request: Request) -> JSONResponse:
        body = await _read_body(request, max_bytes)
        verdict = ReviewRequest.read(_decode(body), what="review")
        reviewed = await run_in_threadpool(log.review, asset_id, verdict)
        return JSONResponse(reviewed.dump(), 201)

    @router.get("")
    def list_assets(*, pending: bool = False, limit: int = 50, after: str | None = None) -> JSONResponse:
        page = log.page(pending=pending, limit=min(max(limit, 1), MAX_PAGE), after=after)
        # Without the large fields: a page of whole assets could fill the memory of both sides.
        heavy = {"suggestion_data", "prompt", "meta"}
        items = [asset.model_dump(mode="json", exclude=heavy) for asset in page.assets]
        return JSONResponse({"items": items, "corrupt": page.corrupt, "next_after": page.next_after})

    return router


def _save(log: AssetLog, asset_id: str, key: str, body: bytes) -> tuple[AdvisoryAsset, SaveOutcome]:
    asset = AdvisoryAsset.read(_decode(body), what="asset")
    if asset.asset_id != asset_id:
        raise InvalidRequest((FieldProblem("asset_id", "is not the id in the path"),), what="asset")
    if key != asset_id:
        raise InvalidRequest((FieldProblem("Idempotency-Key", "must be the asset id"),))
    return asset, log.save(asset)


def _guards(settings: AdvisoryStoreSettings) -> list[Any]:
    if settings.advisory_token is None:
        return []
    expected = settings.advisory_token.get_secret_value().encode()
    if not expected:
        raise SettingsInvalid("RMOS_ADVISORY_TOKEN is empty; unset it to let everyone in")

    # Async although it awaits nothing: FastAPI would run a plain function in a thread.
    async def check(request: Request) -> None:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        # Headers are latin-1 to Starlette; the token's own bytes are what must agree.
        same = secrets.compare_digest(given.strip().encode("latin-1"), expected)
        if scheme.lower() != "bearer" or not same:
            raise HTTPException(401, "a valid bearer token is required", {"WWW-Authenticate": "Bearer"})

    return [Depends(check)]


async def _read_body(request: Request, max_bytes: int) -> bytes:
    # Counted while it comes: a chunked body announces no length, and an announced one may lie.
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise HTTPException(413, f"the body is larger than {max_bytes} bytes")
    return bytes(body)


def _decode(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise InvalidRequest((FieldProblem("body", "is not JSON, or nested too deep"),)) from None


def _error(
    status: int,
    code: str,
    message: str,
    problems: tuple[FieldProblem, ...] = (),
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    rows = [{"field": problem.field, "reason": problem.reason} for problem in problems]
    return JSONResponse({"error": code, "message": message, "problems": rows}, status, headers)


def _on_our_error(_request: Request, error: RmosError) -> Response:
    if error.http_status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        emit(RequestFailed(code=error.code, error=str(error)))
    problems = error.problems if isinstance(error, InvalidRequest) else ()
    return _error(error.http_status, error.code, str(error), problems)


def _on_http_error(_request: Request, error: AnyHTTPException) -> Response:
    code = HTTPStatus(error.status_code).name
    return _error(error.status_code, code, str(error.detail), headers=dict(error.headers or {}))


def _on_wrong_query(request: Request, error: RequestValidationError) -> Response:
    problems = tuple(FieldProblem(str(item["loc"][-1]), item["msg"]) for item in error.errors())
    return _on_our_error(request, InvalidRequest(problems))


def _on_disconnect(_request: Request, _error: ClientDisconnect) -> Response:
    return Response(status_code=400)  # no one is there to read it


def _on_unexpected_error(_request: Request, _cause: Exception) -> Response:
    return _error(500, "INTERNAL_ERROR", "the advisory store failed; its log says where")
