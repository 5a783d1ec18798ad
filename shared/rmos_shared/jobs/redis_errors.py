"""Redis errors become ours at this edge, with the cause chained."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from redis import exceptions

from rmos_shared.errors import BrokerDamaged, BrokerUnavailable

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


#: How the script names a key of a wrong type.
_DAMAGE = re.compile(r"DAMAGED (\S+) is (\w+), not (\w+)")


@contextmanager
def broker_errors() -> Iterator[None]:
    """Translate every way in which Redis can be out of reach.

    Raises:
        BrokerUnavailable: not reachable, not in time, refused the login, or refuses writes. Whether the
            step was done is then unknown; every step of ours may be repeated.
        BrokerDamaged: a key is not of the type that the ledger gives it. The step was not done.
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
        text = f"{error.status_code} {error}"
        damage = _DAMAGE.search(text)
        if damage is not None:
            raise BrokerDamaged(
                f"the ledger's key {damage[1]} is a {damage[2]}, not a {damage[3]}; nothing was changed. "
                "Another program wrote it: move it away (RENAME), then see rmos doctor"
            ) from error
        code = next((word for word in _PASSING if word in text), None)
        if code is None and ("WRONGTYPE" in text or "script" in text):
            raise BrokerDamaged(
                "something in the ledger is not what the ledger writes; rmos doctor names it"
            ) from error
        if code is None:
            raise
        raise BrokerUnavailable(
            f"the broker refuses to serve ({code}); see its log and memory, then repeat the call with the "
            "same ids: that is safe"
        ) from error
