"""What was reported while a test ran."""

from __future__ import annotations

import pytest

from rmos_shared.telemetry.events import Event
from rmos_shared.telemetry.log import EventMessage


def events_in(caplog: pytest.LogCaptureFixture) -> list[Event]:
    """Return the events among the captured log records, in order."""
    return [record.msg.event for record in caplog.records if isinstance(record.msg, EventMessage)]
