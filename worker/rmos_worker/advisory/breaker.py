"""The circuit breaker: all workers together stop calling a store that is down."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

import redis
from redis.commands.core import Script

from rmos_shared.errors import BreakerOpen

_log = logging.getLogger(__name__)

# KEYS[1]  string  failed calls in a row, over all workers; gone after a success
# KEYS[2]  string  "open" or "probe"; while it exists no further call may start. Its expiry is the timer.
# ``allow``: how many milliseconds to stay away; or 0, nothing has failed; or -1, something has, so that a
# success is news. The first call after "open" becomes the one probe.
_ALLOW = """
local left = redis.call('PTTL', KEYS[2])
if left > 0 then return left end
local failures = tonumber(redis.call('GET', KEYS[1]) or 0)
if failures >= tonumber(ARGV[1]) then
  redis.call('SET', KEYS[2], 'probe', 'PX', ARGV[2])
end
return failures > 0 and -1 or 0
"""
# A failure of a call that began before the breaker opened must not keep it open longer.
_FAILURE = """
if redis.call('INCR', KEYS[1]) >= tonumber(ARGV[1]) and redis.call('GET', KEYS[2]) ~= 'open' then
  redis.call('SET', KEYS[2], 'open', 'PX', ARGV[2])
end
"""


class Breaker(Protocol):
    """Decides whether a call may be made, from how the calls before it ended."""

    def allow(self) -> bool:
        """Return if the call may be made, and say whether the breaker is in doubt about the store.

        A failure must be recorded then; a success only if it was in doubt, for otherwise it is no news.

        Raises:
            BreakerOpen: do not call; ``retry_after_seconds`` is how long the breaker holds calls back.
        """
        ...

    def record_success(self) -> None:
        """Note that the store answered, be it with a refusal."""
        ...

    def record_failure(self) -> None:
        """Note that the store was unavailable."""
        ...


class NoBreaker:
    """Lets every call pass."""

    def allow(self) -> bool:
        """Return at once, never in doubt."""
        return False

    def record_success(self) -> None:
        """Do nothing."""

    def record_failure(self) -> None:
        """Do nothing."""


class RedisBreaker:
    """A breaker whose state all workers share through Redis, by the server's clock.

    After ``failures`` failed calls in a row, over all workers, it holds every call back for
    ``open_seconds``; then lets a single one pass. That probe's success closes it, its failure opens it
    again; a probe that never reports (a killed worker) gives way to another after ``probe_seconds``,
    which should be the longest that a call can take. A success of a call that began before the first of
    these failures says nothing of the store as it is now, and is not counted.

    When Redis does not answer, every call passes: a breaker may save calls, never cost one.
    """

    def __init__(
        self,
        client: redis.Redis,
        *,
        failures: int,
        open_seconds: float,
        probe_seconds: float,
        prefix: str = "rmos:breaker:advisory:",
    ) -> None:
        """Prepare, without a call to Redis; the caller owns ``client`` and its time-outs."""
        self._keys = (f"{prefix}failures", f"{prefix}hold")
        self._client = client
        self._allow = client.register_script(_ALLOW)
        self._failure = client.register_script(_FAILURE)
        self._failures = failures
        self._open_ms = _milliseconds(open_seconds)
        self._probe_ms = _milliseconds(probe_seconds)

    def allow(self) -> bool:
        """Return if the call may be made, and say whether a call has failed since the last success.

        Raises:
            BreakerOpen: it may not; ``retry_after_seconds`` tells how long.
        """
        left_ms = self._run(self._allow, (self._failures, self._probe_ms))
        if left_ms > 0:
            left_seconds = left_ms / 1000
            raise BreakerOpen(
                f"the advisory store was not called: it failed {self._failures} calls in a row or more, so "
                f"calls are held back for another {left_seconds:.1f} s",
                retry_after_seconds=left_seconds,
            )
        return left_ms < 0

    def record_success(self) -> None:
        """Close the breaker."""
        try:
            self._client.delete(*self._keys)
        except (redis.RedisError, OSError) as error:
            _warn(error)

    def record_failure(self) -> None:
        """Count a failed call; open the breaker if it was one too many, or the probe."""
        self._run(self._failure, (self._failures, self._open_ms))

    def _run(self, script: Script, args: Sequence[int]) -> int:
        try:
            return int(script(keys=self._keys, args=args) or 0)
        except (redis.RedisError, OSError) as error:
            _warn(error)
            return 0


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))  # PX 0 is an error


def _warn(error: Exception) -> None:
    _log.warning(
        "the breaker's state in Redis is out of reach (%s); calls to the advisory store pass unguarded",
        type(error).__name__,
    )
