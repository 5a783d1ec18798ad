"""Structured logs: one JSON object a line, on standard error."""

from __future__ import annotations

import logging
import sys
from dataclasses import asdict
from typing import Any

import structlog

from rmos_shared.telemetry.log import EventMessage


def configure_logs(level: int | str = logging.INFO, **_: Any) -> None:
    """Send every standard-library record through structlog's JSON renderer.

    Connected to Celery's ``setup_logging`` signal, which also keeps Celery from adding handlers of its own.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        _fields_of_event,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level or logging.INFO)
    # One line per request and per message would drown ours; their failures reach us as our own errors.
    for noisy in ("httpx", "httpcore", "celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _fields_of_event(_logger: Any, _method: str, record: Any) -> Any:
    """Spread one of our own events over the object that is printed: its key, then its fields."""
    message = record["_record"].msg
    if isinstance(message, EventMessage):
        record |= {"event": message.event.key} | asdict(message.event)
    return record
