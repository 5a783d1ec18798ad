"""What the indexer is told of: runs that are new, or that something was laid beside. Best effort."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Notice:
    """A run that the index should look at."""

    run_id: str
    #: Whether its artifact was stored just now; else something may lie beside it.
    new: bool


class Notices(Protocol):
    """Where notices come from. Any may be missing, late or repeated: the reconciler has the last word."""

    def wait(self, seconds: float) -> Sequence[Notice]:
        """Return what has come since the last call, waiting up to ``seconds`` while there is nothing.

        Raises:
            BrokerUnavailable: nothing can be told now.
        """
        ...


class NoNotices:
    """For a store that nobody tells of: waits, and leaves all to the reconciler."""

    def __init__(self, stopping: threading.Event) -> None:
        """Wait no longer once ``stopping`` is set."""
        self._stopping = stopping

    def wait(self, seconds: float) -> Sequence[Notice]:
        """Return nothing after ``seconds``."""
        self._stopping.wait(seconds)
        return ()
