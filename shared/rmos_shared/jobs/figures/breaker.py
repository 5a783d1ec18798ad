"""The circuit breaker before the advisory store, as others than the workers see it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import cast

from rmos_shared.jobs.figures.model import BreakerFigures
from rmos_shared.jobs.figures.moment import moment_in
from rmos_shared.jobs.redis_errors import broker_errors
from rmos_shared.jobs.script import LedgerScript

#: Its keys below the ledger's prefix: the outage under way (a hash of why and began), and ``open`` or
#: ``probe`` while no further call may start.
BREAKER, OUTAGE, HOLD = "breaker:advisory:", "outage", "hold"


def read_breaker(script: LedgerScript, now: datetime) -> BreakerFigures:
    """Return how it is, changing nothing; ``now`` is the server's time.

    Raises:
        BrokerUnavailable: the server does not answer.
        BrokerDamaged: one of its keys is of a wrong type.
    """
    place = f"{script.prefix}{BREAKER}"
    with broker_errors(), script.client.pipeline(transaction=False) as pipe:
        pipe.hgetall(f"{place}{OUTAGE}")
        pipe.get(f"{place}{HOLD}")
        pipe.pttl(f"{place}{HOLD}")
        outage, hold, left_ms = pipe.execute()
    fields = cast("dict[bytes, bytes]", outage)
    if not fields:
        return BreakerFigures(state="closed")
    is_open = hold == b"open" and left_ms > 0
    return BreakerFigures(
        state="open" if is_open else "half_open",
        why=fields.get(b"why", b"").decode("utf-8", "replace") or None,
        since_utc=moment_in(fields.get(b"began", b"")),
        until_utc=now + timedelta(milliseconds=left_ms) if is_open else None,
    )
