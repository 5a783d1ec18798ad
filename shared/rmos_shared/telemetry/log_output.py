"""How a process writes its log: an event a line on standard error, as JSON or for a person's eyes.

For programs alone: whoever imports the client keeps the logging that it has set up itself.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from typing import Any, Literal

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from rmos_shared.errors import RmosError
from rmos_shared.telemetry.log import EventMessage
from rmos_shared.telemetry.scope import current_scope

LogFormat = Literal["auto", "json", "console"]
#: What these say of each request, message or span would drown our lines; their failures reach us as our own.
_QUIET = {
    "httpx": logging.WARNING,
    "httpcore": logging.WARNING,
    "asyncio": logging.WARNING,
    "celery.worker.strategy": logging.WARNING,
    "celery.app.trace": logging.WARNING,
    "uvicorn.access": logging.WARNING,
    "opentelemetry": logging.CRITICAL,
}
#: Of one traceback, and of the causes behind an error.
_MOST_FRAMES = 20
_MOST_CAUSES = 5


def configure_logs(log_format: LogFormat = "auto", level: int | str = logging.INFO) -> None:
    """Send every record of the standard library to standard error, from ``level`` on.

    A line that cannot be written, for a full disk or a reader that is gone, is lost, and nothing else is.
    """
    handler = LineHandler(sys.stderr.fileno())
    handler.setFormatter(log_formatter(for_eyes=is_for_eyes(log_format), colors=_colors()))
    logging.captureWarnings(capture=True)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name, lowest in _QUIET.items():
        logging.getLogger(name).setLevel(lowest)


def is_for_eyes(log_format: LogFormat) -> bool:
    """Say whether lines are for a person: ``auto`` means where standard error is a terminal."""
    return log_format == "console" or (log_format == "auto" and sys.stderr.isatty())


def log_formatter(*, for_eyes: bool, colors: bool = False) -> logging.Formatter:
    """Return what makes a line of a record: an event of ours field by field, and the ids at hand."""
    gather: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        _fields_of_event,
        _ids_at_hand,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _shown_exception,
    ]
    render: list[Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if for_eyes:
        render += [_printable, structlog.dev.ConsoleRenderer(colors=colors, pad_event_to=0, sort_keys=False)]
    else:
        render.append(structlog.processors.JSONRenderer())
    return structlog.stdlib.ProcessorFormatter(foreign_pre_chain=gather, processors=render)


class LineHandler(logging.Handler):
    """Writes a line in one piece, so that those of several processes never mix in one file."""

    def __init__(self, descriptor: int) -> None:
        """Write to ``descriptor``, unbuffered: nothing is left over that could fail later."""
        super().__init__()
        self._descriptor = descriptor

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, or lose it."""
        try:
            line = f"{self.format(record)}\n".encode("utf-8", "backslashreplace")
        except Exception:  # noqa: BLE001 - as logging has it: a line is not worth a process
            self.handleError(record)
            return
        with suppress(OSError):
            os.write(self._descriptor, line)


def _colors() -> bool:
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR")


def _fields_of_event(_logger: WrappedLogger, _method: str, fields: EventDict) -> EventDict:
    """Spread one of our own events over the line: its key, then its fields."""
    message = fields["_record"].msg
    if isinstance(message, EventMessage):
        fields.update({"event": message.event.key}, **asdict(message.event))
    return fields


def _ids_at_hand(_logger: WrappedLogger, _method: str, fields: EventDict) -> EventDict:
    for name, value in current_scope().ids.items():
        fields.setdefault(name, value)
    return fields


def _shown_exception(_logger: WrappedLogger, _method: str, fields: EventDict) -> EventDict:
    info = fields.pop("exc_info", None)
    if info and info[1] is not None:
        fields["exception"] = "\n".join(_lines_of(info[1]))
    return fields


def _lines_of(error: BaseException) -> Iterator[str]:
    """Yield where an error and its causes were raised, and their classes.

    The texts of foreign errors are left out, for they may quote what they stumbled over: a payload, an
    address with its password. Those of our own and of the system hold none.
    """
    cause: BaseException | None = error
    for number in range(_MOST_CAUSES):
        if cause is None:
            return
        if number:
            yield "caused by:"
        yield "Traceback (most recent call last):"
        for frame in traceback.format_tb(cause.__traceback__)[-_MOST_FRAMES:]:
            yield frame.rstrip("\n")
        yield _named(cause)
        if isinstance(cause, BaseExceptionGroup):
            yield from (f"  one of: {_named(member)}" for member in cause.exceptions[:_MOST_CAUSES])
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)


def _named(error: BaseException) -> str:
    name = type(error).__name__
    if isinstance(error, RmosError):
        return f"{name}: {error}"
    if isinstance(error, OSError) and isinstance(error.strerror, str) and error.errno is not None:
        return f"{name}: {os.strerror(error.errno)}"
    return name


def _printable(_logger: WrappedLogger, _method: str, fields: EventDict) -> EventDict:
    """Escape what could steer a terminal or forge a line; leave out what is unknown."""
    shown = {name: _escaped(value) for name, value in fields.items() if value is not None}
    if "exception" in fields:
        shown["exception"] = "\n".join(_escaped(line) for line in fields["exception"].split("\n"))
    return shown


def _escaped(value: Any) -> Any:
    if not isinstance(value, str) or value.isprintable():
        return value
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in value)
