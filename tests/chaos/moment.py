"""The moment in which a producer has a call under way."""

from __future__ import annotations

import time
from pathlib import Path

from chaos.process import Process

_MOST_SECONDS = 5.0


def await_intent(journal: Path, producer: Process) -> None:
    """Wait until the journal grows: a producer writes what it intends just before it calls."""
    size, deadline = _size(journal), time.monotonic() + _MOST_SECONDS
    while _size(journal) == size and producer.alive and time.monotonic() < deadline:
        time.sleep(0.001)


def _size(journal: Path) -> int:
    return journal.stat().st_size if journal.exists() else 0
