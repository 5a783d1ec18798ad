"""What every request passes before the routes: who calls, how often, how much, how long; and its log line."""

from __future__ import annotations

from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rmos_runs.gateway.body import TimedBody, drain
from rmos_runs.gateway.caller import Authentication
from rmos_runs.gateway.errors import RequestTimeout
from rmos_runs.gateway.exchange import Exchange, route_of
from rmos_runs.gateway.problems import InternalError, answer_of
from rmos_runs.gateway.rates import Rates
from rmos_runs.gateway.turns import Turns
from rmos_shared.errors import RmosError
from rmos_shared.settings.gateway import GatewaySettings
from rmos_shared.telemetry.events import GatewayFailed, RequestFinished
from rmos_shared.telemetry.log import emit
from rmos_shared.telemetry.scope import Scope as Busy
from rmos_shared.telemetry.scope import busy_with
from rmos_shared.telemetry.traces.base import Kind, NoTraces, Span, Traces

#: Of answers that say nothing else about it.
_UNLESS_SAID = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))
#: As nginx has it: the client went away before its answer.
_CLIENT_GONE = 499
#: Where nobody has to say who they are: what there is, and whether it works.
_OPEN = frozenset({"/healthz", "/livez", "/readyz", "/docs", "/openapi.json"})
_OPEN_BELOW = "/static-offline-docs/"


class Front:
    """The outermost application. It alone answers what never reaches a route, and no error leaves it."""

    def __init__(
        self,
        app: ASGIApp,
        settings: GatewaySettings,
        authentication: Authentication,
        rates: Rates,
        traces: Traces,
    ) -> None:
        """Stand before ``app``."""
        self._app = app
        self._settings = settings
        self._authentication = authentication
        self._rates = rates
        self._traces = traces
        self._turns = Turns(settings.concurrent_requests)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = Exchange.of(scope)
        span = self._span(scope, exchange)
        try:
            with busy_with(Busy(request_id=exchange.request_id, traceparent=span.traceparent)):
                await self._answer(exchange, scope, receive, send)
        finally:
            status, route = exchange.status or _CLIENT_GONE, route_of(scope)
            span.end(
                {"http.route": route, "http.response.status_code": status},
                name=f"{scope['method']} {route}",
                error=str(status) if status >= HTTPStatus.INTERNAL_SERVER_ERROR else None,
            )

    def _span(self, scope: Scope, exchange: Exchange) -> Span:
        # Of what is asked every few seconds only to see that somebody answers, nobody wants to see a trace.
        traces = NoTraces() if _is_open(scope["path"]) else self._traces
        return traces.begin(
            scope["method"],
            Kind.SERVER,
            parent=exchange.traceparent,
            attributes={"http.request.method": scope["method"], "rmos.request_id": exchange.request_id},
        )

    async def _answer(self, exchange: Exchange, scope: Scope, receive: Receive, send: Send) -> None:
        body = TimedBody(
            receive,
            timeout_seconds=self._settings.body_timeout_seconds,
            slowest_bytes=self._settings.slowest_body_bytes,
            received=lambda: exchange.limit.allow(self._longest_seconds),
        )
        answer = _Answer(exchange, Headers(scope=scope), body, send)
        try:
            await self._pass(scope, body, answer)
        except RmosError as error:
            await self._close(error, scope, body, answer)
        except ClientDisconnect:
            exchange.status = exchange.status or _CLIENT_GONE
        except Exception as error:  # noqa: BLE001 - no bug of a route may end the server's task unreported
            event = GatewayFailed(
                code=InternalError.code, error=type(error).__name__, request_id=exchange.request_id
            )
            emit(event, traceback=True)
            await self._close(InternalError("the gateway failed; its log says where"), scope, receive, answer)
        finally:
            emit(
                RequestFinished(
                    method=scope["method"],
                    route=route_of(scope),
                    status=exchange.status or _CLIENT_GONE,
                    milliseconds=exchange.milliseconds,
                    request_id=exchange.request_id,
                    caller=exchange.caller_name,
                )
            )

    async def _pass(self, scope: Scope, body: Receive, answer: _Answer) -> None:
        with self._turns.one():
            if not _is_open(scope["path"]):
                caller = self._authentication.caller(scope)
                answer.exchange.caller = caller
                self._rates.spend(caller.name)
            if answer.exchange.problem is not None:
                raise answer.exchange.problem
            try:
                async with answer.exchange.limit.begun(self._longest_seconds):
                    await self._app(scope, body, answer.send)
            except TimeoutError:
                raise RequestTimeout("the request took longer than it may") from None

    @property
    def _longest_seconds(self) -> float:
        # From the head, or from the last that came of the body, to the begin of the answer.
        return self._settings.body_timeout_seconds + self._settings.request_timeout_seconds

    async def _close(self, error: RmosError, scope: Scope, body: Receive, answer: _Answer) -> None:
        if answer.exchange.status is not None:
            # Of an answer that has begun the rest stays out, and the server ends the connection.
            emit(GatewayFailed(code=error.code, error=str(error), request_id=answer.exchange.request_id))
            return
        response = answer_of(error, scope, answer.exchange)
        await response(scope, body, answer.send)


def _is_open(path: str) -> bool:
    return path in _OPEN or path.startswith(_OPEN_BELOW)


class _Answer:
    """Sends an answer with what each must bear, and notes its status."""

    def __init__(self, exchange: Exchange, headers: Headers, body: TimedBody, send: Send) -> None:
        self.exchange = exchange
        self._headers = headers
        self._body = body
        self._send = send

    async def send(self, message: Message) -> None:
        """Send the next message."""
        if message["type"] == "http.response.start":
            self.exchange.status = message["status"]
            # From here on the reader's pace counts (see ``TimedConnection``).
            self.exchange.limit.end()
            headers = [*message.get("headers", []), *self.exchange.headers]
            if not await self._is_read():
                # What is left of the body is nobody's request, and could go on for ever.
                headers.append((b"connection", b"close"))
            said = {name.lower() for name, _ in headers}
            headers += [(name, value) for name, value in _UNLESS_SAID if name not in said]
            message = {**message, "headers": headers}
        await self._send(message)

    async def _is_read(self) -> bool:
        announced = "transfer-encoding" in self._headers or self._headers.get("content-length", "0") != "0"
        if self._body.ended or not announced:
            return True
        # An answer that is no error may still be made of what comes.
        refused = (self.exchange.status or 0) >= HTTPStatus.BAD_REQUEST
        return refused and await drain(self._body, self._headers)
