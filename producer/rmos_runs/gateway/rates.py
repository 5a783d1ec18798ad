"""How many requests each caller may make: token buckets, in memory, one for each name."""

from __future__ import annotations

from dataclasses import dataclass

from rmos_runs.gateway.errors import RateExceeded
from rmos_shared.clock import Clock


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_at: float


class Rates:
    """Lets each caller make ``burst`` requests at once and ``per_second`` on average.

    Memory holds one bucket for each name of a key.
    """

    def __init__(self, *, per_second: float, burst: int, clock: Clock) -> None:
        """Start with full buckets."""
        self._per_second = per_second
        self._burst = burst
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}

    def spend(self, name: str) -> None:
        """Take one request from a caller's bucket.

        Raises:
            RateExceeded: it is empty; the error says how long until it holds one again.
        """
        now = self._clock.monotonic()
        bucket = self._buckets.setdefault(name, _Bucket(self._burst, now))
        bucket.tokens = min(self._burst, bucket.tokens + (now - bucket.filled_at) * self._per_second)
        bucket.filled_at = now
        if bucket.tokens < 1:
            raise RateExceeded((1 - bucket.tokens) / self._per_second)
        bucket.tokens -= 1
