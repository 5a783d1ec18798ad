"""A collector of traces on loopback: OTLP over HTTP, as OpenTelemetry's own speaks it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from support.threaded_server import ThreadedServer


@dataclass(frozen=True)
class SeenSpan:
    """A span as it arrived."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: int
    failed: bool
    attributes: dict[str, Any]


class Collector:
    """Takes spans while it runs; keeps their bytes. It may be stopped and started, on one port."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                collector.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._handler = Handler
        self._server: ThreadedServer | None = None
        self._port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        self._server = ThreadedServer(self._handler, self._port)
        self._port = self._server.server_port
        self._server.start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop()
            self._server = None

    def trace(self, trace_id: str) -> list[SeenSpan]:
        return [span for span in self.spans() if span.trace_id == trace_id]

    def spans(self) -> Iterator[SeenSpan]:
        for body in list(self.bodies):
            for sent in ExportTraceServiceRequest.FromString(body).resource_spans:
                service = _values(sent.resource.attributes)["service.name"]
                for scope in sent.scope_spans:
                    yield from (_seen(service, span) for span in scope.spans)


def tree(spans: list[SeenSpan], parent_id: str) -> list[Any]:
    """Return the names below a span, sorted: a name, or a name and what is below it."""
    found: list[Any] = []
    for span in spans:
        if span.parent_id == parent_id:
            below = tree(spans, span.span_id)
            found.append((span.name, below) if below else span.name)
    return sorted(found, key=str)


def _seen(service: str, span: Any) -> SeenSpan:
    return SeenSpan(
        service=service,
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        kind=span.kind,
        failed=span.status.code == span.status.STATUS_CODE_ERROR,
        attributes=_values(span.attributes),
    )


def _values(attributes: Any) -> dict[str, Any]:
    return {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in attributes}
