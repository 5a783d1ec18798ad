"""The gateway's log: one JSON object a line on standard error, with the fields that workers' lines have."""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from rmos_shared.models.base import format_utc
from rmos_shared.telemetry.log import EventMessage


class JsonLines(logging.Formatter):
    """Writes a record as one line; an event of ours is spread over it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        told: dict[str, Any] = {
            "event": record.getMessage(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "timestamp": format_utc(datetime.fromtimestamp(record.created, tz=UTC)),
        }
        if isinstance(record.msg, EventMessage):
            told |= {**asdict(record.msg.event), "event": record.msg.event.key}
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return json.dumps(told, default=str)


def configure_logs() -> None:
    """Send every record of the standard library to standard error, ours from level INFO on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("rmos").setLevel(logging.INFO)
