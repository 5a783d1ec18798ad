"""Spans by OpenTelemetry's SDK, handed to a collector over OTLP by a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from importlib import metadata

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Span as OtelSpan
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from rmos_shared.telemetry.events import TracesExported, TracesNotExported
from rmos_shared.telemetry.log import emit
from rmos_shared.telemetry.traces.base import Attributes, Kind, Span

#: A process that ends waits no longer for a collector than this.
_CLOSE_SECONDS = 2.0
_KINDS = {Kind.SERVER: SpanKind.SERVER, Kind.CLIENT: SpanKind.CLIENT, Kind.CONSUMER: SpanKind.CONSUMER}
_W3C = TraceContextTextMapPropagator()


class OtelTraces:
    """Queues ended spans and exports them in batches, as OpenTelemetry's variables say.

    The queue is bounded: while the collector is away the newest spans replace the oldest. Nothing is
    installed as the process's global provider, so no library exports spans of its own through this.
    """

    exported = True

    def __init__(self, service: str, exporter: SpanExporter | None = None) -> None:
        """Start the exporting thread; ``exporter`` is for tests.

        Raises:
            ValueError: a variable has a value that OpenTelemetry refuses.
        """
        version = metadata.version("rmos-runs")
        ours = Resource.create({"service.name": service, "service.version": version})
        # What the variables say about the process outranks what we call it.
        self._provider = TracerProvider(
            resource=ours.merge(OTELResourceDetector().detect()), shutdown_on_exit=False
        )
        self._provider.add_span_processor(BatchSpanProcessor(_Reporting(exporter or OTLPSpanExporter())))
        self._tracer = self._provider.get_tracer("rmos", version)

    def begin(
        self, name: str, kind: Kind, *, parent: str | None, attributes: Attributes | None = None
    ) -> Span:
        """Begin a span below ``parent``, whatever other span this thread may be in."""
        context = Context() if parent is None else _W3C.extract({"traceparent": parent}, Context())
        return _Recorded(
            self._tracer.start_span(name, context=context, kind=_KINDS[kind], attributes=attributes)
        )

    def close(self) -> None:
        """Export what is left, unless that takes longer than two seconds."""
        # The SDK itself would wait for half a minute.
        closing = threading.Thread(target=self._provider.shutdown, name="traces-close", daemon=True)
        closing.start()
        closing.join(_CLOSE_SECONDS)


class _Recorded:
    """A span of the SDK."""

    def __init__(self, span: OtelSpan) -> None:
        self._span = span

    @property
    def traceparent(self) -> str | None:
        context = self._span.get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"

    def end(
        self, attributes: Attributes | None = None, *, name: str | None = None, error: str | None = None
    ) -> None:
        if name is not None:
            self._span.update_name(name)
        if attributes is not None:
            self._span.set_attributes(attributes)
        if error is not None:
            self._span.set_attribute("error.type", error)
            self._span.set_status(StatusCode.ERROR)
        self._span.end()


class _Reporting(SpanExporter):
    """Logs once that the collector takes no spans, and once that it does again.

    The exporter's own lines, one for each batch and each try, are turned off where logs are set up.
    """

    def __init__(self, inner: SpanExporter) -> None:
        self._inner = inner
        self._refused = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._inner.export(spans)
        refused = result is not SpanExportResult.SUCCESS
        if refused and not self._refused:
            emit(TracesNotExported(reason="the collector takes no spans; they are thrown away meanwhile"))
        if self._refused and not refused:
            emit(TracesExported())
        self._refused = refused
        return result

    def shutdown(self) -> None:
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._inner.force_flush(timeout_millis)
