"""The circuit breaker: all workers together stop calling a store that is down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol, Self

import redis
from redis.commands.core import Script

from rmos_shared.errors import BreakerOpen
from rmos_shared.jobs.figures.breaker import BREAKER, HOLD, OUTAGE
from rmos_shared.settings.worker import WorkerSettings
from rmos_shared.telemetry.events import BreakerUnreachable
from rmos_shared.telemetry.log import emit

# KEYS[1]  string  failed calls in a row, over all workers; gone after a success
# KEYS[2]  string  "open" or "probe"; while it exists no further call may start. Its expiry is the timer.
# KEYS[3]  hash    the outage under way, while failures are at the limit: why, began
# KEYS[4]  string  when the last outage ended, in milliseconds of the server's clock
# ``check``: how many milliseconds to stay away, or 0. The first call after "open" becomes the one probe.
_CHECK = """
local left = redis.call('PTTL', KEYS[2])
if left > 0 then return left end
if tonumber(redis.call('GET', KEYS[1]) or 0) >= tonumber(ARGV[1]) then
  redis.call('SET', KEYS[2], 'probe', 'PX', ARGV[2])
end
return 0
"""
_NOW = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
"""
# Arguments: limit, milliseconds to hold at first, how often that may double, why. Answers 0, counted; 1, with
# this an outage begins, or is of another kind than before; 2, it lasts. A failure of a call that began before
# the breaker opened must not keep it open longer.
_FAILURE = (
    _NOW
    + """
if redis.call('GET', KEYS[2]) == 'open' then return 2 end
local beyond = redis.call('INCR', KEYS[1]) - tonumber(ARGV[1])
if beyond < 0 then return 0 end
redis.call('SET', KEYS[2], 'open', 'PX', ARGV[2] * 2 ^ math.min(beyond, tonumber(ARGV[3])))
local before = redis.call('HGET', KEYS[3], 'why')
redis.call('HSETNX', KEYS[3], 'began', now)
redis.call('HSET', KEYS[3], 'why', ARGV[4])
return before == ARGV[4] and 2 or 1
"""
)
# Answers how many milliseconds the outage lasted that ends with this, or -1.
_SUCCESS = (
    _NOW
    + """
local began = redis.call('HGET', KEYS[3], 'began')
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
if not began then return -1 end
redis.call('SET', KEYS[4], now)
return math.max(now - tonumber(began), 0)
"""
)
# Answers whether the breaker is open, whether it holds calls back now, and when the last outage ended.
_READ = """
local open = tonumber(redis.call('GET', KEYS[1]) or 0) >= tonumber(ARGV[1])
return {open and 1 or 0, redis.call('EXISTS', KEYS[2]), tonumber(redis.call('GET', KEYS[4]) or 0)}
"""
#: While an outage lasts, the time to stay away grows to this power of two times the first.
_DOUBLINGS = 3


class Outage(Enum):
    """What one more failed call says of the store."""

    #: It may have been this call alone.
    NONE = 0
    #: This call is the one that shows that nobody reaches it; or shows another cause of that than before.
    BEGINS = 1
    LASTS = 2


@dataclass(frozen=True, slots=True)
class Reading:
    """The breaker at one moment."""

    #: The store is out of reach, as far as is known.
    open: bool
    #: No call may be made; without it and open, a single one may.
    holds: bool
    #: When the last outage ended, in milliseconds of the server's clock; 0 if there was none.
    ended_ms: int


class Breaker(Protocol):
    """Decides whether a call may be made, from how the calls before it ended."""

    def check(self) -> None:
        """Return if the call may be made; how it ended must be recorded then.

        Raises:
            BreakerOpen: do not call; ``retry_after_seconds`` is how long the breaker holds calls back.
        """
        ...

    def record_success(self) -> float | None:
        """Note that the store answered, be it with a refusal.

        Returns how many seconds the outage lasted that this ends: once for all workers, else None.
        """
        ...

    def record_failure(self, why: str) -> Outage:
        """Note that the store was unavailable; ``why`` is the code of the error."""
        ...


class RedisBreaker:
    """A breaker whose state all workers share through Redis, by the server's clock.

    After ``failures`` failed calls in a row, over all workers, it holds every call back for
    ``open_seconds``; then lets a single one pass. That probe's success closes it, its failure opens it
    again for twice as long, up to eight times the first. A probe that never reports (a killed worker) gives
    way to another after ``probe_seconds``, which should be the longest that a call can take. A success of a
    call that began before the first of these failures says nothing of the store as it is now, and is not
    counted.

    When Redis does not answer, every call passes: a breaker may save calls, never cost one.
    """

    def __init__(
        self,
        client: redis.Redis,
        *,
        failures: int,
        open_seconds: float,
        probe_seconds: float,
        prefix: str = f"rmos:{BREAKER}",
    ) -> None:
        """Prepare, without a call to Redis; the caller owns ``client`` and its time-outs."""
        self._keys = tuple(f"{prefix}{name}" for name in ("failures", HOLD, OUTAGE, "ended"))
        self._check = client.register_script(_CHECK)
        self._failure = client.register_script(_FAILURE)
        self._success = client.register_script(_SUCCESS)
        self._read = client.register_script(_READ)
        self._failures = failures
        self._open_ms = _milliseconds(open_seconds)
        self._probe_ms = _milliseconds(probe_seconds)

    @classmethod
    def of(cls, client: redis.Redis, settings: WorkerSettings) -> Self:
        """Return the breaker that these settings ask for."""
        return cls(
            client,
            failures=settings.breaker_failures,
            open_seconds=settings.breaker_open_seconds,
            probe_seconds=settings.advisory_total_seconds,
        )

    def read(self) -> Reading:
        """Return how it is now, changing nothing; as after no failure at all when Redis does not answer."""
        is_open, holds, ended_ms = self._run(self._read, (self._failures,)) or (0, 0, 0)
        return Reading(bool(is_open), bool(holds), int(ended_ms))

    def check(self) -> None:
        """Return if the call may be made.

        Raises:
            BreakerOpen: it may not, for another ``retry_after_seconds``.
        """
        left_ms = int(self._run(self._check, (self._failures, self._probe_ms)) or 0)
        if left_ms > 0:
            left_seconds = left_ms / 1000
            raise BreakerOpen(
                f"the advisory store was not called: it failed {self._failures} calls in a row or more, so "
                f"calls are held back for another {left_seconds:.1f} s",
                retry_after_seconds=left_seconds,
                outage=True,
            )

    def record_success(self) -> float | None:
        """Close the breaker; return how many seconds the outage lasted that this ends, or None."""
        lasted_ms = self._run(self._success, ())
        return None if lasted_ms is None or lasted_ms < 0 else int(lasted_ms) / 1000

    def record_failure(self, why: str) -> Outage:
        """Count a failed call; open the breaker if it was one too many, or the probe."""
        return Outage(int(self._run(self._failure, (self._failures, self._open_ms, _DOUBLINGS, why)) or 0))

    def _run(self, script: Script, args: Sequence[int | str]) -> Any:
        try:
            return script(keys=self._keys, args=args)
        except (redis.RedisError, OSError) as error:
            emit(BreakerUnreachable(error=type(error).__name__))
            return None


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))  # PX 0 is an error
