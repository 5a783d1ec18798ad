"""What one endpoint may take of a worker, so that a receiver which is down or slow holds up no other."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rmos_shared.clock import Clock
from rmos_shared.errors import EndpointResting, WebhookUnavailable

#: Failures in a row after which an endpoint rests.
_FAILURES = 5
#: How long a delivery waits for another's turn to end, at the least.
_TURN_SECONDS = 1.0


@dataclass(slots=True)
class _Share:
    calls: int = 0
    failures: int = 0
    rests_until: float = 0.0


class EndpointShares:
    """Counts calls and failures by endpoint, in one process. Thread safe.

    An endpoint gets at most ``most_calls`` calls at a time. After five failures in a row it rests:
    ``base_seconds``, twice as long after each failure, up to ``cap_seconds``. Then one call goes out to see.
    """

    def __init__(self, *, most_calls: int, base_seconds: float, cap_seconds: float, clock: Clock) -> None:
        """Begin with no endpoint at rest."""
        self._most_calls = most_calls
        self._base_seconds = base_seconds
        self._cap_seconds = cap_seconds
        self._clock = clock
        self._shares: dict[str, _Share] = {}
        self._lock = threading.Lock()

    @contextmanager
    def turn(self, endpoint: str) -> Iterator[None]:
        """Let one call be made in the block; ``WebhookUnavailable`` from it counts as a failure.

        Raises:
            EndpointResting: no call is to be made now.
        """
        share = self._begin(endpoint)
        failed = False
        try:
            yield
        except WebhookUnavailable:
            failed = True
            raise
        finally:
            self._end(share, failed=failed)

    def _begin(self, endpoint: str) -> _Share:
        with self._lock:
            share = self._shares.setdefault(endpoint, _Share())
            rest = share.rests_until - self._clock.monotonic()
            if rest > 0:
                raise EndpointResting(
                    f"endpoint {endpoint} failed {share.failures} times in a row and rests",
                    retry_after_seconds=rest,
                )
            if share.calls >= (1 if share.failures >= _FAILURES else self._most_calls):
                raise EndpointResting(
                    f"endpoint {endpoint} has its share of this worker", retry_after_seconds=_TURN_SECONDS
                )
            share.calls += 1
            return share

    def _end(self, share: _Share, *, failed: bool) -> None:
        with self._lock:
            share.calls -= 1
            share.failures = share.failures + 1 if failed else 0
            if share.failures >= _FAILURES:
                rest = self._base_seconds * 2 ** min(share.failures - _FAILURES, 32)
                share.rests_until = self._clock.monotonic() + min(rest, self._cap_seconds)
