"""Whose trace a job and a call belong to, and who exports spans."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NonRecordingSpan, SpanContext, StatusCode, TraceFlags

from rmos_runs.jobs import prepare_run
from rmos_shared.jobs.work import Claim
from rmos_shared.tasks.table import CREATE
from rmos_shared.telemetry.events import TracesExported, TracesNotExported
from rmos_shared.telemetry.scope import (
    Scope,
    busy_with,
    current_scope,
    current_traceparent,
    valid_traceparent,
)
from rmos_shared.telemetry.traces import otel
from rmos_shared.telemetry.traces.base import Kind, NoTraces
from rmos_shared.telemetry.traces.choice import chosen_traces
from rmos_shared.telemetry.traces.otel import OtelTraces
from rmos_worker.engine.job_spans import JobSpans
from support.events import events_in

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = CALLER[:-1] + "0"
TRACE = int(CALLER.split("-")[1], 16)
ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
CLAIM = Claim("j1", CREATE.name, b"{}", "r1", "req-1", 0, 1, 0.0, CALLER)


@pytest.fixture
def memory() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def traces(memory: InMemorySpanExporter) -> Iterator[OtelTraces]:
    made = OtelTraces("rmos-test", memory)
    yield made
    made.close()


def ended(traces: OtelTraces, memory: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    traces._provider.force_flush()
    return {span.name: span for span in memory.get_finished_spans()}


def parent_of(span: ReadableSpan) -> str | None:
    return None if span.parent is None else f"{span.parent.trace_id:032x}-{span.parent.span_id:016x}"


def test_what_is_at_hand_is_at_hand_in_the_block_alone() -> None:
    assert current_scope() == Scope()
    with busy_with(Scope("j1", traceparent=CALLER)):
        with busy_with(Scope("j2")):
            assert current_scope().ids == {"job_id": "j2"}
        assert current_traceparent() == CALLER
        other: list[Scope] = []
        thread = threading.Thread(target=lambda: other.append(current_scope()))
        thread.start()
        thread.join()
        assert other == [Scope()]
    assert current_traceparent() is None


@pytest.mark.parametrize(
    "text",
    [
        *(None, "", "x", CALLER.upper(), CALLER + "\r\nX: y", CALLER + "-00", CALLER.replace("-", ":")),
        *(f"00-{'0' * 32}-b7ad6b7169203331-01", f"00-{CALLER.split('-')[1]}-{'0' * 16}-01"),
    ],
)
def test_what_is_no_traceparent_is_left_out(text: str | None) -> None:
    assert valid_traceparent(text) is None
    assert valid_traceparent(CALLER) == CALLER


def test_a_job_belongs_to_the_trace_of_the_service_that_enqueues_it() -> None:
    def job_traceparent() -> str | None:
        return prepare_run({"mode": "x"}, CREATE, explain=False, most_bytes=10_000).job.traceparent

    assert job_traceparent() is None
    context = SpanContext(TRACE, 7, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
    with trace.use_span(NonRecordingSpan(context)):
        assert job_traceparent() == f"00-{TRACE:032x}-0000000000000007-01"
        with busy_with(Scope(traceparent=CALLER)):
            assert job_traceparent() == CALLER, "what is being worked on comes first"


def test_a_service_without_opentelemetry_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "opentelemetry.trace")
    assert current_traceparent() is None
    assert "opentelemetry.trace" not in sys.modules, "nothing is imported for it"


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_SERVICE_NAME": "x"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": " "},
        {**ENDPOINT, "OTEL_SDK_DISABLED": "TRUE"},
        {**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"},
    ],
    ids=str,
)
def test_nothing_is_exported_unless_somebody_says_where_to(
    environment: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    assert isinstance(chosen_traces("rmos-test", environment), NoTraces)
    assert events_in(caplog) == []


def test_what_cannot_be_exported_is_told_and_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert isinstance(chosen_traces("x", {**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}), NoTraces)
    monkeypatch.setattr(otel, "OtelTraces", lambda _service: int("no number"))
    assert isinstance(chosen_traces("x", ENDPOINT), NoTraces)
    monkeypatch.setitem(sys.modules, "rmos_shared.telemetry.traces.otel", None)
    assert isinstance(chosen_traces("x", ENDPOINT), NoTraces)
    assert events_in(caplog) == [
        TracesNotExported(reason="only the protocol http/protobuf is built in"),
        TracesNotExported(reason="ValueError: an OTEL_ variable may be wrong"),
        TracesNotExported(reason="the extra otel is not installed"),
    ]


def test_spans_nest_by_traceparent_and_tell_failures(
    traces: OtelTraces, memory: InMemorySpanExporter
) -> None:
    outer = traces.begin("outer", Kind.SERVER, parent=CALLER, attributes={"a": 1})
    inner = traces.begin("inner", Kind.CLIENT, parent=outer.traceparent)
    inner.end({"b": "x"}, error="Timeout")
    outer.end(name="outer, named late")
    traces.begin("alone", Kind.CONSUMER, parent=None).end()
    spans = ended(traces, memory)
    assert parent_of(spans["outer, named late"]) == CALLER[3:-3]
    assert parent_of(spans["inner"]) == (outer.traceparent or "")[3:-3]
    assert spans["inner"].attributes == {"b": "x", "error.type": "Timeout"}
    assert spans["inner"].status.status_code is StatusCode.ERROR
    assert spans["inner"].status.description is None
    assert spans["inner"].events == ()
    assert parent_of(spans["alone"]) is None


def test_a_caller_that_does_not_sample_is_obeyed_and_its_trace_goes_on(
    traces: OtelTraces, memory: InMemorySpanExporter
) -> None:
    span = traces.begin("x", Kind.SERVER, parent=UNSAMPLED)
    span.end()
    assert ended(traces, memory) == {}
    assert span.traceparent is not None
    assert (span.traceparent[:36], span.traceparent[-2:]) == (CALLER[:36], "00")


def test_names_of_the_variables_outrank_ours(
    monkeypatch: pytest.MonkeyPatch, memory: InMemorySpanExporter
) -> None:
    def name() -> Any:
        made = OtelTraces("rmos-test", memory)
        made.close()
        return made._provider.resource.attributes["service.name"]

    assert name() == "rmos-test"
    monkeypatch.setenv("OTEL_SERVICE_NAME", "shop")
    assert name() == "shop"


class Moody(SpanExporter):
    """A collector that takes, refuses or keeps waiting."""

    def __init__(self) -> None:
        self.result = SpanExportResult.FAILURE
        self.waits = threading.Event()
        self.waits.set()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        assert spans
        self.waits.wait()
        return self.result


def test_a_collector_that_refuses_is_told_once_and_so_is_its_return(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    collector = Moody()
    traces = OtelTraces("rmos-test", collector)
    for result in (SpanExportResult.FAILURE, SpanExportResult.FAILURE, SpanExportResult.SUCCESS):
        collector.result = result
        traces.begin("x", Kind.SERVER, parent=None).end()
        traces._provider.force_flush()
    traces.close()
    assert [type(event) for event in events_in(caplog)] == [TracesNotExported, TracesExported]


def test_an_end_does_not_wait_for_a_collector_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otel, "_CLOSE_SECONDS", 0.1)
    collector = Moody()
    collector.waits.clear()
    traces = OtelTraces("rmos-test", collector)
    started = time.monotonic()
    for _ in range(5_000):  # more than the queue holds
        traces.begin("x", Kind.SERVER, parent=None).end()
    traces.close()
    assert time.monotonic() - started < 5
    collector.waits.set()


def test_each_job_of_a_group_has_a_span_in_its_own_trace(
    traces: OtelTraces, memory: InMemorySpanExporter
) -> None:
    other = replace(CLAIM, job_id="j2", request_id=None, traceparent=None)
    spans = JobSpans(traces, [CLAIM, other])
    first, second = spans.claims
    assert (first.traceparent or "")[:35] == CALLER[:35]
    assert first.traceparent != CALLER, "what it causes belongs below its own span"
    assert second.traceparent is not None
    spans.end({"j1": "done", "j2": "dead"}.__getitem__, {"j2": ValueError("spruce-top-of-a-customer")})
    traces._provider.force_flush()
    done, dead = memory.get_finished_spans()
    assert parent_of(done) == CALLER[3:-3]
    assert done.attributes == {
        "messaging.system": "rmos",
        "messaging.operation.type": "process",
        "messaging.operation.name": "process",
        "messaging.destination.name": "runs.create",
        "messaging.message.id": "j1",
        "messaging.batch.message_count": 2,
        "rmos.task": "runs.create",
        "rmos.run_id": "r1",
        "rmos.request_id": "req-1",
        "rmos.retry_count": 0,
        "rmos.outcome": "done",
    }
    assert dead.attributes is not None
    assert (dead.attributes["rmos.outcome"], dead.attributes["error.type"]) == ("dead", "ValueError")
    assert "spruce" not in dead.to_json()


def test_where_nobody_sees_spans_jobs_are_left_as_they_are() -> None:
    claims = [CLAIM]
    spans = JobSpans(NoTraces(), claims)
    assert spans.claims is claims
    spans.end(str, {})
    assert NoTraces().begin("x", Kind.CLIENT, parent=CALLER).traceparent == CALLER
