"""What a request belongs to: its caller's trace, and the ids that its log lines bear."""

from __future__ import annotations

from http import HTTPStatus
from urllib.parse import unquote

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rmos_shared.telemetry.scope import Scope as Busy
from rmos_shared.telemetry.scope import busy_with, valid_traceparent
from rmos_shared.telemetry.traces.base import Kind, Traces


class TracedRequests:
    """ASGI middleware: a span for each request, below that of its caller."""

    def __init__(self, app: ASGIApp, *, traces: Traces) -> None:
        """Wrap ``app``."""
        self._app = app
        self._traces = traces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; its health is nobody's trace."""
        if scope["type"] != "http" or scope["path"] == "/health":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        request_id = headers.get("x-request-id")
        method, status = scope["method"], int(HTTPStatus.INTERNAL_SERVER_ERROR)
        span = self._traces.begin(
            method,
            Kind.SERVER,
            parent=valid_traceparent(headers.get("traceparent")),
            attributes={"http.request.method": method},
        )

        async def told(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            busy = Busy(
                request_id=None if request_id is None else unquote(request_id), traceparent=span.traceparent
            )
            with busy_with(busy):
                await self._app(scope, receive, told)
        finally:
            route = str(getattr(scope.get("route"), "path", "unmatched"))
            span.end(
                {"http.route": route, "http.response.status_code": status},
                name=f"{method} {route}",
                error=str(status) if status >= HTTPStatus.INTERNAL_SERVER_ERROR else None,
            )
