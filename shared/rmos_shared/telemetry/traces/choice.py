"""Whether this process exports its spans, by OpenTelemetry's own variables."""

from __future__ import annotations

import os
from collections.abc import Mapping

from rmos_shared.telemetry.events import TracesNotExported
from rmos_shared.telemetry.log import emit
from rmos_shared.telemetry.traces.base import NoTraces, Traces

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_OUR_PROTOCOL = "http/protobuf"


def chosen_traces(service: str, environment: Mapping[str, str] | None = None) -> Traces:
    """Return what exports the spans of this process over OTLP; nothing is loaded unless an endpoint is named.

    ``service`` is the process's name where ``OTEL_SERVICE_NAME`` says no other. Call it after a fork, for it
    starts a thread. What stands in the way is logged, and never stops a process.
    """
    environment = os.environ if environment is None else environment
    if not _is_configured(environment):
        return NoTraces()
    protocol = _first(_PROTOCOLS, environment) or _OUR_PROTOCOL
    if protocol != _OUR_PROTOCOL:
        emit(TracesNotExported(reason=f"only the protocol {_OUR_PROTOCOL} is built in"))
        return NoTraces()
    try:
        from rmos_shared.telemetry.traces.otel import OtelTraces  # noqa: PLC0415 - an extra, and not free

        return OtelTraces(service)
    except ImportError:
        emit(TracesNotExported(reason="the extra otel is not installed"))
    except Exception as error:  # noqa: BLE001 - whatever a variable says, the work goes on without traces
        emit(TracesNotExported(reason=f"{type(error).__name__}: an OTEL_ variable may be wrong"))
    return NoTraces()


def _is_configured(environment: Mapping[str, str]) -> bool:
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporters = environment.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp"
    return exporters == "otlp" and _first(_ENDPOINTS, environment) != ""


def _first(names: tuple[str, ...], environment: Mapping[str, str]) -> str:
    return next((value for name in names if (value := environment.get(name, "").strip())), "")
