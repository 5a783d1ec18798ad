"""The precedence of live jobs over those of batches."""

from __future__ import annotations

import time
from collections.abc import Callable

from rmos_shared.errors import BrokerUnavailable
from rmos_shared.jobs.work import JobWork

#: A batch's job waits no longer than this: live jobs that never end must not stop a batch for good.
MOST_SECONDS = 0.25
_PAUSE_SECONDS = 0.005


class Precedence:
    """Lets a batch's job wait while workers are at live jobs.

    Nice levels do not reach what a batch shares with them: the advisory store, Redis and the disk.
    """

    def __init__(
        self,
        work: JobWork,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Ask ``work`` what is under way; ``sleep`` and ``clock`` are in seconds."""
        self._work = work
        self._sleep = sleep
        self._clock = clock

    def wait(self) -> None:
        """Return when no live job is under way, or after ``MOST_SECONDS``; at once while Redis is away."""
        end = self._clock() + MOST_SECONDS
        try:
            while self._work.live_under_way() and self._clock() < end:
                self._sleep(_PAUSE_SECONDS)
        except BrokerUnavailable:
            return  # the job's own steps find out what that means for it
