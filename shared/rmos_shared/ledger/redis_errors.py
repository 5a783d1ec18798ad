"""Redis errors become ours at this edge, with the cause chained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from redis import exceptions

from rmos_shared.errors import BrokerUnavailable

#: Answers of a server that is alive but cannot serve now; it sends them as plain response errors.
_PASSING = (
    "OOM",
    "LOADING",
    "READONLY",
    "MISCONF",
    "MASTERDOWN",
    "BUSY",
    "NOREPLICAS",
    "UNKILLABLE",
    "TRYAGAIN",
)


@contextmanager
def broker_errors() -> Iterator[None]:
    """Translate every way in which Redis can be out of reach.

    Raises:
        BrokerUnavailable: not reachable, not in time, refused the login, or refuses writes. Whether the
            step was done is then unknown; every step of ours may be repeated.
    """
    try:
        yield
    except (exceptions.ConnectionError, exceptions.TimeoutError) as error:
        raise BrokerUnavailable(
            f"the broker cannot be reached ({type(error).__name__}); check RMOS_BROKER_URL and the server, "
            "then repeat the call with the same ids: that is safe"
        ) from error
    except exceptions.ResponseError as error:
        # A script reports the code of the command inside it somewhere in its text; those codes that redis-py
        # knows it cuts off the text.
        told = f"{error.status_code} {error}"
        code = next((word for word in _PASSING if word in told), None)
        if code is None:
            raise
        raise BrokerUnavailable(
            f"the broker refuses to serve ({code}); see its log and memory, then repeat the call with the "
            "same ids: that is safe"
        ) from error
