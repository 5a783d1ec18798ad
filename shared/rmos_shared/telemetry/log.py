"""Events as log records, for any handler of the standard library."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass

from rmos_shared.telemetry.events import Event

_LOGGER = logging.getLogger("rmos")


@dataclass(frozen=True, slots=True)
class EventMessage:
    """The ``msg`` of a log record: an event."""

    event: Event

    def __str__(self) -> str:
        """Return the key and the fields on one line, for a person's eyes."""
        fields = (f"{name}={value!r}" for name, value in asdict(self.event).items())
        return " ".join((self.event.key, *fields))


def emit(event: Event, *, quiet: bool = False, traceback: bool = False) -> None:
    """Log an event at its level, or at DEBUG when ``quiet``.

    ``traceback`` adds that of the error being handled.
    """
    _LOGGER.log(logging.DEBUG if quiet else event.level, EventMessage(event), exc_info=traceback)
